package exchange

import (
	"context"
	"time"

	"github.com/bcgov/vault-plugin-bcgov-jwt/backend/internal/keyring"
)

// storeTimeout limits the storing of what was learned. The token is there already, and the reader waits.
const storeTimeout = 5 * time.Second

// recordAcceptance notes which version the provider accepted: on this node at once, and in storage where it is worth it.
func (e *Exchanger) recordAcceptance(ctx context.Context, h *history, request Request, accepted *keyring.Version, afterRefusal bool) {
	now := e.now()
	active := request.Key.Active(now)
	h.accept(accepted.Number(), active.Number(), afterRefusal, now)
	if !afterRefusal && accepted.Number() != active.Number() && request.Key.Settings().Registration == keyring.ByJWKS {
		return // it was preferred, which says nothing of the active one, whose time may have come meanwhile
	}
	update := keyUpdate(request.Key, accepted, active, now)
	if update == nil || request.Change == nil || !h.mayStore(accepted.Number(), now) {
		return
	}
	// A reader that went away does not unlearn what was learned.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), storeTimeout)
	defer cancel()
	changed := false
	err := request.Change(ctx, func(current *keyring.Key) *keyring.Key {
		edited := e.applyIfUnchanged(current, request.Key, active, accepted, update)
		changed = edited != nil
		return edited
	})
	switch {
	case err != nil:
		e.logger.Warn("what the provider accepted could not be stored; it is kept in memory",
			"key", request.Key.Name(), "version", accepted.Number(), "request_id", request.RequestID, "error", err)
	case changed && accepted.Number() != active.Number() && request.Key.Settings().Registration != keyring.ByJWKS:
		e.logger.Info("the provider accepts another version of the key, which is the active one now",
			"key", request.Key.Name(), "from", active.Number(), "to", accepted.Number(), "role", request.Role, "request_id", request.RequestID)
	}
}

// keyUpdate is what an acceptance changes in the key; nil: nothing.
func keyUpdate(key *keyring.Key, accepted, active *keyring.Version, now time.Time) func(*keyring.Key) *keyring.Key {
	switch {
	case accepted.Number() == active.Number():
		if !active.AcceptedTime().IsZero() {
			return nil
		}
		return func(current *keyring.Key) *keyring.Key { return current.Accept(accepted.Number(), now) }
	case key.Settings().Registration == keyring.ByJWKS: // the schedule stays
		if active.AcceptedTime().IsZero() {
			return nil
		}
		return func(current *keyring.Key) *keyring.Key { return current.Refuse(active.Number()) }
	default:
		return func(current *keyring.Key) *keyring.Key {
			return current.Activate(accepted.Number(), keyring.ByProvider, now).Accept(accepted.Number(), now)
		}
	}
}

// applyIfUnchanged applies the update unless what it rested on has changed while the request was on the network: the key was
// deleted or made anew, another version became active, or the accepted one was destroyed.
func (e *Exchanger) applyIfUnchanged(current, before *keyring.Key, active, accepted *keyring.Version, update func(*keyring.Key) *keyring.Key) *keyring.Key {
	if current == nil || current.ID() != before.ID() || current.Version(accepted.Number()) == nil {
		return nil
	}
	if current.Settings() != before.Settings() { // another client may have been accepted, or in another way
		return nil
	}
	if now := current.Active(e.now()); now.Number() != active.Number() || now.AcceptedTime() != active.AcceptedTime() {
		return nil
	}
	return update(current)
}
