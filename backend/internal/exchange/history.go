package exchange

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/bcgov/vault-plugin-bcgov-jwt/backend/internal/keyring"
)

const (
	// fallbackPause follows a fallback in which every version was rejected, of a key that did not
	// work recently: asking more often does not register a key.
	fallbackPause = 5 * time.Second
	// storePause is the least time between stored updates of a key, so that a provider whose nodes
	// disagree does not make Vault write on every read.
	storePause = time.Minute
	// jwksPreference is how long another version is preferred to the active one with jwks. After
	// that, an unknown kid makes Keycloak fetch the document again, if the last fetch was more than
	// 10 whole seconds ago. Other providers may take longer, until their copy expires.
	jwksPreference = 11 * time.Second
	// recently is how long an acceptance shows that some node of the provider knows the key.
	recently = time.Minute
)

// histories holds the history of each key, by the key's own ID.
type histories struct {
	mu   sync.Mutex
	byID map[string]*history
}

// of returns a key's history, which begins anew when the key becomes another client's: what one
// provider accepted says nothing about the next.
func (h *histories) of(key *keyring.Key) *history {
	h.mu.Lock()
	defer h.mu.Unlock()
	known := h.byID[key.ID()]
	if known == nil || known.client != key.Client() {
		known = &history{client: key.Client()}
		h.byID[key.ID()] = known
	}
	return known
}

// Signing returns the version that would sign now: the active one, or one known to work instead.
func (e *Exchanger) Signing(key *keyring.Key) *keyring.Version {
	h := e.histories.of(key)
	h.mu.Lock()
	defer h.mu.Unlock()
	version, _ := h.choose(key, e.now())
	return version
}

// Forget drops the history of a key that was deleted, registered as another client, or changed by
// another node. At worst, one more token request relearns it.
func (e *Exchanger) Forget(id string) {
	e.histories.mu.Lock()
	defer e.histories.mu.Unlock()
	delete(e.histories.byID, id)
}

// history holds what the provider accepted and rejected of one key, as seen by this node.
type history struct {
	client keyring.Client

	mu sync.Mutex

	preferred   int // the version accepted in place of the active one; 0: none
	insteadOf   int // the version that was active then
	preferredAt time.Time

	acceptedAt  time.Time     // when any version was last accepted
	fallback    chan struct{} // closed when the current fallback ends; nil: none is running
	pausedUntil time.Time     // no fallback starts before
	storedAt    time.Time     // when an update was last attempted
	storedFor   int           // the highest version updated so far
	unstored    bool          // an update awaits a node that can write
}

// next returns the version for a token request. After jwksPreference, only one request tries the
// active version again: it could fail all the others.
func (h *history) next(key *keyring.Key, now time.Time) *keyring.Version {
	h.mu.Lock()
	defer h.mu.Unlock()
	version, again := h.choose(key, now)
	if again {
		h.preferredAt = now
	}
	return version
}

// choose returns the version that signs, and whether it is one to be tried again. h.mu is held.
func (h *history) choose(key *keyring.Key, now time.Time) (version *keyring.Version, again bool) {
	active := key.Active(now)
	if h.preferred == 0 || h.insteadOf != active.Number() {
		return active, false
	}
	if key.Settings().Registration == keyring.ByJWKS && now.Sub(h.preferredAt) >= jwksPreference {
		return active, true
	}
	for _, v := range key.Live(now) {
		if v.Number() == h.preferred {
			return v, false
		}
	}
	return active, false
}

// accept records that a version was accepted, and which one was active. Only a rejection of the
// active version makes another one preferred: a preference that renewed itself would never let the
// active one be tried again.
func (h *history) accept(version, active int, afterRefusal bool, now time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.acceptedAt = now
	switch {
	case version == active:
		h.preferred = 0
	case afterRefusal:
		h.preferred, h.insteadOf, h.preferredAt = version, active, now
	}
}

// ShouldForward reports whether this node, which cannot write, learned something about the key that
// should be stored, so that a read of it should go to a node that can. It does so once for each
// update: about once a minute.
func (e *Exchanger) ShouldForward(key *keyring.Key) bool {
	h := e.histories.of(key)
	h.mu.Lock()
	defer h.mu.Unlock()
	unstored := h.unstored
	h.unstored = false
	return unstored
}

func (h *history) acceptedRecently(now time.Time) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return now.Sub(h.acceptedAt) < recently
}

// joinFallback starts a fallback, which the caller leads, or returns the channel that is closed
// when the current one ends. It returns neither during fallbackPause.
func (h *history) joinFallback(now time.Time) (done <-chan struct{}, leads bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.fallback != nil {
		return h.fallback, false
	}
	if now.Before(h.pausedUntil) {
		return nil, false
	}
	h.fallback = make(chan struct{})
	return h.fallback, true
}

func (h *history) endFallback(pause bool, now time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	close(h.fallback)
	h.fallback, h.pausedUntil = nil, time.Time{}
	if pause {
		h.pausedUntil = now.Add(fallbackPause)
	}
}

// mayStore reports whether to store an update about a version now, and if so records that. The
// first update about a newer version, which means a rotation, need not wait.
func (h *history) mayStore(version int, now time.Time) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if version <= h.storedFor && now.Sub(h.storedAt) < storePause {
		return false
	}
	h.storedAt, h.storedFor = now, max(version, h.storedFor)
	return true
}

// storeTimeout limits a stored update: the token is ready, and its reader waits.
const storeTimeout = 5 * time.Second

// ErrReadOnly means that this node cannot store an update.
var ErrReadOnly = errors.New("this node cannot write")

// recordAcceptance records which version the provider accepted: on this node immediately, and in
// storage where worthwhile. afterRefusal means that it first rejected the version that was to sign.
func (e *Exchanger) recordAcceptance(
	ctx context.Context, h *history, request Request, accepted *keyring.Version, afterRefusal bool,
) {
	now := e.now()
	active := request.Key.Active(now)
	another := accepted.Number() != active.Number()
	byJWKS := request.Key.Settings().Registration == keyring.ByJWKS
	h.accept(accepted.Number(), active.Number(), afterRefusal, now)
	if another && byJWKS && !afterRefusal {
		return // a preferred version says nothing about the active one, which may work by now
	}
	update := keyUpdate(request.Key, accepted, active, now)
	if update == nil || request.Change == nil || !h.mayStore(accepted.Number(), now) {
		return
	}
	// What the provider accepted stays true when the client disconnects.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), storeTimeout)
	defer cancel()
	stored := false
	err := request.Change(ctx, func(current *keyring.Key) *keyring.Key {
		edited := e.applyIfUnchanged(current, request.Key, active, accepted, update)
		stored = edited != nil
		return edited
	})
	switch {
	case errors.Is(err, ErrReadOnly):
		h.mu.Lock()
		h.unstored = true
		h.mu.Unlock()
	case err != nil:
		e.logger.Warn("accepted version could not be stored; kept in memory",
			"key", request.Key.Name(), "version", accepted.Number(),
			"request_id", request.RequestID, "error", err)
	case stored && another && !byJWKS:
		e.observer.Switched(request.Key)
		e.logger.Info("active version changed by provider acceptance",
			"key", request.Key.Name(), "from", active.Number(), "to", accepted.Number(),
			"role", request.Role, "request_id", request.RequestID)
	}
}

// keyUpdate returns the change that an acceptance makes to the stored key, nil for none.
func keyUpdate(
	key *keyring.Key, accepted, active *keyring.Version, now time.Time,
) func(*keyring.Key) *keyring.Key {
	switch {
	case accepted.Number() == active.Number():
		if !active.AcceptedTime().IsZero() {
			return nil
		}
		return func(current *keyring.Key) *keyring.Key {
			return current.Accept(accepted.Number(), now)
		}
	case key.Settings().Registration == keyring.ByJWKS: // the schedule stays
		if active.AcceptedTime().IsZero() && !accepted.AcceptedTime().IsZero() {
			return nil
		}
		return func(current *keyring.Key) *keyring.Key {
			return current.ClearAccepted(active.Number()).Accept(accepted.Number(), now)
		}
	default:
		return func(current *keyring.Key) *keyring.Key {
			return current.Activate(accepted.Number(), keyring.ByProvider, now).
				Accept(accepted.Number(), now)
		}
	}
}

// applyIfUnchanged applies the update unless its premises changed while the request was in flight:
// the key was deleted or recreated, another version became active, or the accepted one was
// destroyed.
func (e *Exchanger) applyIfUnchanged(
	current, before *keyring.Key, active, accepted *keyring.Version,
	update func(*keyring.Key) *keyring.Key,
) *keyring.Key {
	if current == nil || !sameClient(current, before) ||
		current.Version(accepted.Number()) == nil {
		return nil
	}
	now := current.Active(e.now())
	if now.Number() != active.Number() || now.AcceptedTime() != active.AcceptedTime() {
		return nil
	}
	return update(current)
}
