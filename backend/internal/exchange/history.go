package exchange

import (
	"sync"
	"time"

	"github.com/bcgov/vault-plugin-bcgov-jwt/backend/internal/keyring"
)

const (
	// A round in vain is not repeated for so long: what is not registered does not become so by asking more often.
	fallbackPause = 5 * time.Second
	// What is learned of a key is stored at most so often, so that a provider whose nodes disagree does not make Vault
	// write on every read.
	storePause = time.Minute
	// With jwks the active version is tried again after so long: an unknown kid makes Keycloak read the document again, if
	// the last time was more than 10 whole seconds ago.
	jwksPreference = 11 * time.Second
	// A key that worked so lately is known to some node of the provider.
	recently = time.Minute
)

// histories hold what this node learned, by the keys' own ids.
type histories struct {
	mu   sync.Mutex
	byID map[string]*history
}

func (h *histories) of(id string) *history {
	h.mu.Lock()
	defer h.mu.Unlock()
	known := h.byID[id]
	if known == nil {
		known = &history{}
		if h.byID == nil {
			h.byID = map[string]*history{}
		}
		h.byID[id] = known
	}
	return known
}

// Signing is the version that would sign for a key now: the active one, unless another is known to work in its place.
func (e *Exchanger) Signing(key *keyring.Key) *keyring.Version {
	return e.histories.of(key.ID()).choose(key, e.now())
}

// Forget drops what was learned of a key that was deleted.
func (e *Exchanger) Forget(id string) {
	e.histories.mu.Lock()
	defer e.histories.mu.Unlock()
	delete(e.histories.byID, id)
}

// history is what this node learned of one key.
type history struct {
	mu sync.Mutex

	preferred   int       // the version that worked in place of the active one; 0: none
	insteadOf   int       // the version that was active then
	preferredAt time.Time // since when

	acceptedAt  time.Time     // when any version last worked
	fallback    chan struct{} // closed at the end of the round that is under way; nil: none is
	pausedUntil time.Time     // no new round before
	storedAt    time.Time     // when something learned was last stored, or tried to
	storedFor   int           // the highest version that was then about
}

// choose returns the version to sign with: the active one, unless another is known to work in its place.
func (h *history) choose(key *keyring.Key, now time.Time) *keyring.Version {
	h.mu.Lock()
	defer h.mu.Unlock()
	active := key.Active(now)
	if h.preferred == 0 || h.insteadOf != active.Number() {
		return active
	}
	if key.Settings().Registration == keyring.ByJWKS && now.Sub(h.preferredAt) >= jwksPreference {
		return active
	}
	for _, v := range key.Live(now) {
		if v.Number() == h.preferred {
			return v
		}
	}
	return active
}

// accept notes that a version was accepted while another, or the same, was active. Only a refusal of the active one makes
// another one preferred: a preference that renewed itself would never give the active one another try.
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

func (h *history) acceptedRecently(now time.Time) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return !h.acceptedAt.IsZero() && now.Sub(h.acceptedAt) < recently
}

// joinFallback begins a round (leads), or returns the channel that the end of the present one closes. Both are empty where
// a round was in vain just now.
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
	h.fallback = nil
	h.pausedUntil = time.Time{}
	if pause {
		h.pausedUntil = now.Add(fallbackPause)
	}
}

// mayStore says whether to store something learned of a version now, and notes that it is. For a version that nothing was
// stored about yet it is worth it at once: that is a rotation.
func (h *history) mayStore(version int, now time.Time) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if version <= h.storedFor && now.Sub(h.storedAt) < storePause {
		return false
	}
	h.storedAt, h.storedFor = now, max(version, h.storedFor)
	return true
}
