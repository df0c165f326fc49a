package backend

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/bcgov/vault-plugin-bcgov-jwt/backend/internal/keyring"
	"github.com/bcgov/vault-plugin-bcgov-jwt/backend/internal/tokenendpoint"
)

const (
	// revocationTimeout is how long the end of a lease may wait for the provider.
	revocationTimeout = 5 * time.Second
	// maxRevocations go on at a time.
	maxRevocations = 16
	// revocationPause follows a failure to reach the provider: Vault ends leases one after the other when a mount is disabled,
	// and to wait for a provider that is down each time would take hours.
	revocationPause = 10 * time.Second
)

var errPaused = fmt.Errorf("not tried, as the provider was not reached less than %s ago", revocationPause)

// revocations bounds what the ends of leases ask of the provider, and how long they wait for it.
type revocations struct {
	now   func() time.Time
	slots chan struct{}

	mu     sync.Mutex
	paused map[string]time.Time // until when, by the issuer
}

func newRevocations(now func() time.Time) *revocations {
	return &revocations{now: now, slots: make(chan struct{}, maxRevocations), paused: map[string]time.Time{}}
}

// do revokes with a key, unless its provider was not reached a short while ago or it takes too long.
func (r *revocations) do(ctx context.Context, key *keyring.Key, revoke func(context.Context) error) error {
	ctx, cancel := context.WithTimeoutCause(ctx, revocationTimeout, fmt.Errorf("no answer within %s", revocationTimeout))
	defer cancel()
	issuer := key.Settings().Issuer
	if r.isPaused(issuer) { // before it waits behind others of a provider that hangs
		return errPaused
	}
	select {
	case r.slots <- struct{}{}:
		defer func() { <-r.slots }()
	case <-ctx.Done():
		return fmt.Errorf("too many revocations wait: %w", context.Cause(ctx))
	}
	if r.isPaused(issuer) {
		return errPaused
	}
	err := revoke(ctx)
	r.note(issuer, err)
	return err
}

func (r *revocations) isPaused(issuer string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.now().Before(r.paused[issuer])
}

func (r *revocations) note(issuer string, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.paused, issuer)
	failure, ok := errors.AsType[*tokenendpoint.Error](err)
	if ok && unreached(failure.Reason.Kind()) {
		r.paused[issuer] = r.now().Add(revocationPause)
	}
}

func unreached(kind tokenendpoint.Kind) bool {
	return kind == tokenendpoint.KindUnavailable || kind == tokenendpoint.KindTimedOut
}
