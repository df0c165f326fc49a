package exchange

import (
	"context"
	"errors"
	"time"

	"github.com/bcgov/vault-plugin-bcgov-jwt/backend/internal/keyring"
)

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
