package backend

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/bcgov/vault-plugin-bcgov-jwt/backend/internal/keyring"
	"github.com/bcgov/vault-plugin-bcgov-jwt/backend/internal/tokenendpoint"
)

const (
	// revocationTimeout is how long the end of a lease may wait for the provider.
	revocationTimeout = 5 * time.Second
	// maxRevocations run concurrently.
	maxRevocations = 16
	// revocationPause follows a failure to reach the provider: Vault ends leases one after another
	// when a mount is disabled, and waiting each time for a provider that is down would take hours.
	revocationPause = 10 * time.Second
)

var errPaused = fmt.Errorf("skipped: the provider was unreachable less than %s ago",
	revocationPause)

// revocations limits the requests that ending leases send to the provider, and the wait for them.
type revocations struct {
	now    func() time.Time
	slots  *semaphore.Weighted
	paused sync.Map // until what time.Time, by issuer
}

func newRevocations(now func() time.Time) *revocations {
	return &revocations{now: now, slots: semaphore.NewWeighted(maxRevocations)}
}

// do calls revoke, unless the key's provider was recently unreachable or too many others wait.
func (r *revocations) do(
	ctx context.Context, key *keyring.Key, revoke func(context.Context) error,
) error {
	ctx, cancel := context.WithTimeoutCause(ctx, revocationTimeout,
		fmt.Errorf("no response within %s", revocationTimeout))
	defer cancel()
	issuer := key.Settings().Issuer
	if r.isPaused(issuer) { // checked before waiting behind others of a provider that hangs
		return errPaused
	}
	if r.slots.Acquire(ctx, 1) != nil {
		return fmt.Errorf("too many revocations in progress: %w", context.Cause(ctx))
	}
	defer r.slots.Release(1)
	if r.isPaused(issuer) {
		return errPaused
	}
	err := revoke(ctx)
	r.record(issuer, err)
	return err
}

func (r *revocations) isPaused(issuer string) bool {
	until, paused := r.paused.Load(issuer)
	return paused && r.now().Before(until.(time.Time))
}

func (r *revocations) record(issuer string, err error) {
	if failure, ok := errors.AsType[*tokenendpoint.Error](err); ok {
		switch failure.Reason.Kind() {
		case tokenendpoint.KindUnavailable, tokenendpoint.KindTimedOut:
			r.paused.Store(issuer, r.now().Add(revocationPause))
			return
		}
	}
	r.paused.Delete(issuer)
}
