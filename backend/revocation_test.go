package backend

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bcgov/vault-plugin-bcgov-jwt/backend/internal/tokenendpoint"
)

func TestRevoke_TimesOut(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r, begun := newRevocations(time.Now), time.Now()
		err := r.do(t.Context(), keyNamedK(t), func(ctx context.Context) error {
			<-ctx.Done()
			return context.Cause(ctx)
		})
		require.EqualError(t, err, "no response within 5s")
		require.Equal(t, 5*time.Second, time.Since(begun))
	})
}

func TestRevoke_SixteenRunConcurrently(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r, key := newRevocations(time.Now), keyNamedK(t)
		var begun atomic.Int64
		release := make(chan struct{})
		releaseAll := sync.OnceFunc(func() { close(release) })
		defer releaseAll()
		errs := make([]error, 40)
		var all sync.WaitGroup
		for i := range errs {
			all.Go(func() {
				errs[i] = r.do(t.Context(), key, func(context.Context) error {
					begun.Add(1)
					<-release
					return nil
				})
			})
		}
		synctest.Wait()
		require.EqualValues(t, 16, begun.Load())
		time.Sleep(4 * time.Second)
		release <- struct{}{} // one ends, and one that waits begins
		synctest.Wait()
		require.EqualValues(t, 17, begun.Load())
		time.Sleep(time.Second)
		synctest.Wait()
		releaseAll()
		all.Wait()
		failed := 0
		for _, err := range errs {
			if err != nil {
				require.EqualError(t, err, "too many revocations in progress: no response within 5s")
				failed++
			}
		}
		require.Equal(t, 40-17, failed)
		require.EqualValues(t, 17, begun.Load())
		require.NoError(t, r.do(t.Context(), key, func(context.Context) error { return nil }), "every slot is free again")
	})
}

func TestRevoke_OnlyUnreachableProviderPauses(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		err    error
		pauses bool
	}{
		"none":        {nil, false},
		"unavailable": {&tokenendpoint.Error{Reason: tokenendpoint.NetworkFailure}, true},
		"timed out":   {fmt.Errorf("wrapped: %w", &tokenendpoint.Error{Reason: tokenendpoint.Timeout}), true},
		"rejected":    {&tokenendpoint.Error{Reason: tokenendpoint.UnknownKey}, false},
		"blocked":     {&tokenendpoint.Error{Reason: tokenendpoint.HostNotListed}, false},
		"malformed":   {&tokenendpoint.Error{Reason: tokenendpoint.InvalidResponse}, false},
		"canceled":    {&tokenendpoint.Error{Reason: tokenendpoint.Canceled}, false},
		"another":     {errors.New("no endpoint"), false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				r, key, calls := newRevocations(time.Now), keyNamedK(t), 0
				try := func() error {
					return r.do(t.Context(), key, func(context.Context) error {
						calls++
						return test.err
					})
				}
				require.Equal(t, test.err, try())
				time.Sleep(revocationPause - time.Nanosecond)
				err := try()
				if !test.pauses {
					require.Equal(t, test.err, err)
					require.Equal(t, 2, calls)
					return
				}
				require.EqualError(t, err, "skipped: the provider was unreachable less than 10s ago")
				require.Equal(t, 1, calls)
				time.Sleep(time.Nanosecond)
				require.Equal(t, test.err, try())
				require.Equal(t, 2, calls)
			})
		})
	}
}
