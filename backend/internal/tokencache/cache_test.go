package tokencache

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bcgov/vault-plugin-bcgov-jwt/backend/internal/exchange"
	"github.com/bcgov/vault-plugin-bcgov-jwt/backend/internal/tokenendpoint"
	"github.com/bcgov/vault-plugin-bcgov-jwt/integrationtest/testlog"
	"github.com/hashicorp/go-hclog"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	// Importing Vault's SDK starts this worker, through a dependency.
	goleak.VerifyTestMain(m,
		goleak.IgnoreTopFunction("go.opencensus.io/stats/view.(*worker).start"))
}

var (
	errProvider = errors.New("the provider is down")
	errLimit    = errors.New("timed out")
	errGone     = errors.New("the client disconnected")
)

// fixture is a cache in virtual time, and the provider behind it.
type fixture struct {
	*Cache[string]
	log testlog.Buffer

	mu      sync.Mutex
	life    time.Duration // of the tokens
	margin  time.Duration
	latency time.Duration
	limit   time.Duration // of a fetch
	failure error
	begun   []time.Time // each fetch
	last    *exchange.Token
	running int
	atOnce  int // the most fetches that ever ran concurrently
}

// newFixture must be called in a synctest bubble, and leaves no goroutine behind at its end.
func newFixture(t *testing.T, life, margin time.Duration) *fixture {
	t.Helper()
	f := &fixture{life: life, margin: margin, limit: 10 * time.Second}
	logger := hclog.New(&hclog.LoggerOptions{Output: &f.log, Level: hclog.Trace})
	f.Cache = New[string](time.Now, logger)
	t.Cleanup(f.Close)
	return f
}

// set changes how the provider behaves.
func (f *fixture) set(change func(*fixture)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change(f)
}

func (f *fixture) source() Source {
	return Source{
		Fetch:  f.fetch,
		Margin: func(time.Duration) time.Duration { return f.margin },
	}
}

func (f *fixture) fetch(ctx context.Context) (*exchange.Token, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, f.limit, errLimit)
	defer cancel()
	f.mu.Lock()
	begun := time.Now()
	f.begun = append(f.begun, begun)
	number, life, latency, failure := len(f.begun), f.life, f.latency, f.failure
	f.running++
	f.atOnce = max(f.atOnce, f.running)
	f.mu.Unlock()
	defer f.set(func(f *fixture) { f.running-- })
	if latency > 0 {
		select {
		case <-time.After(latency):
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
	if failure != nil {
		return nil, failure
	}
	token := &exchange.Token{Token: &tokenendpoint.Token{
		AccessToken: fmt.Sprintf("hunter2-%d", number), RequestedAt: begun, Lifetime: life,
	}}
	f.set(func(f *fixture) { f.last = token })
	return token, nil
}

// fetches returns the number of requests to the provider.
func (f *fixture) fetches() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.begun)
}

// get reads the token once.
func (f *fixture) get(ctx context.Context) (*Shared, error) {
	return f.Token(ctx, "role", "inputs", f.source())
}

// read is a read that must succeed. number is the number of the fetch that the token is from.
func (f *fixture) read(t *testing.T) (shared *Shared, number int) {
	t.Helper()
	shared, err := f.get(t.Context())
	require.NoError(t, err)
	return shared, numberOf(t, shared)
}

func numberOf(t *testing.T, shared *Shared) (number int) {
	t.Helper()
	_, err := fmt.Sscanf(shared.AccessToken, "hunter2-%d", &number)
	require.NoError(t, err)
	return number
}

// readImmediately is a read that must not wait.
func (f *fixture) readImmediately(t *testing.T) (shared *Shared, number int) {
	t.Helper()
	begun := time.Now()
	shared, number = f.read(t)
	require.Zero(t, time.Since(begun), "a reader waited")
	return shared, number
}

func left(shared *Shared) time.Duration {
	return time.Until(shared.RequestedAt.Add(shared.Lifetime))
}

// logged returns how often the log holds a text.
func (f *fixture) logged(text string) int { return strings.Count(f.log.String(), text) }

func TestCache_OneFetchForAllReaders(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, 5*time.Minute, time.Minute)
		f.latency = 2 * time.Second
		var readers sync.WaitGroup
		for range 1000 {
			readers.Go(func() {
				shared, err := f.get(t.Context())
				if err != nil || shared.AccessToken != "hunter2-1" ||
					shared.TTL != 238*time.Second || shared.Failure != nil {
					t.Errorf("%v, %v", shared, err)
				}
			})
		}
		readers.Wait()
		require.Equal(t, 1, f.fetches())
		require.Empty(t, f.log.String())
	})
}

func TestCache_OneFailureForAllReaders(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, 5*time.Minute, time.Minute)
		f.latency, f.failure = 2*time.Second, errProvider
		var readers sync.WaitGroup
		for range 1000 {
			readers.Go(func() {
				shared, err := f.get(t.Context())
				if shared != nil || !errors.Is(err, errProvider) {
					t.Errorf("%v, %v", shared, err)
				}
			})
		}
		readers.Wait()
		require.Equal(t, 1, f.fetches())
		require.Empty(t, f.log.String(), "the readers receive the error")
	})
}

func TestCache_CanceledReaderLeavesFetchToOthers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, 5*time.Minute, time.Minute)
		f.latency = 4 * time.Second
		ctx, cancel := context.WithTimeoutCause(t.Context(), time.Second, errGone)
		defer cancel()
		begun := time.Now()
		_, err := f.get(ctx) // the first, which starts the fetch
		require.Equal(t, errGone, err)
		require.Equal(t, time.Second, time.Since(begun), "its own limit")

		_, number := f.read(t)
		require.Equal(t, 1, number)
		require.Equal(t, 4*time.Second, time.Since(begun))
	})
}

func TestCache_KeepsTokenNobodyWaitedFor(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, 5*time.Minute, time.Minute)
		f.latency = 4 * time.Second
		ctx, cancel := context.WithCancelCause(t.Context())
		cancel(errGone)
		_, err := f.get(ctx)
		require.Equal(t, errGone, err)
		time.Sleep(5 * time.Second)
		f.readImmediately(t)
		require.Equal(t, 1, f.fetches())
	})
}

func TestRefresh_InBackgroundBeforeMargin(t *testing.T) {
	t.Parallel()
	for life, stretch := range map[time.Duration]time.Duration{ // margin: a fifth
		time.Hour:        5 * time.Second,
		5 * time.Minute:  5 * time.Second,
		50 * time.Second: 5 * time.Second,
		40 * time.Second: 4 * time.Second,
		10 * time.Second: time.Second,
	} {
		t.Run(life.String(), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				f := newFixture(t, life, life/5)
				f.read(t)
				f.latency = stretch / 2
				time.Sleep(life - f.margin - stretch - time.Nanosecond)
				f.readImmediately(t)
				synctest.Wait()
				require.Equal(t, 1, f.fetches(), "too early")

				time.Sleep(time.Nanosecond)
				for range 100 {
					shared, number := f.readImmediately(t)
					require.Equal(t, 1, number, "the old one, while the new one is fetched")
					require.Equal(t, max(stretch.Truncate(time.Second), time.Second), shared.TTL)
					synctest.Wait()
					require.Equal(t, 2, f.fetches())
				}
				time.Sleep(stretch / 2)
				synctest.Wait()
				shared, number := f.readImmediately(t)
				require.Equal(t, 2, number)
				require.Equal(t, (life - stretch/2 - f.margin).Truncate(time.Second), shared.TTL,
					"counted from the request")
				require.Equal(t, 2, f.fetches())
			})
		})
	}
}

func TestSoleReader_ReceivesNewTokenWithinASecond(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		latency, waits time.Duration
		number         int
	}{
		"immediately":        {0, 0, 2},
		"in time":            {990 * time.Millisecond, 990 * time.Millisecond, 2},
		"too late":           {1010 * time.Millisecond, time.Second, 1},
		"as long as a fetch": {10 * time.Second, time.Second, 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				f := newFixture(t, 5*time.Minute, time.Minute)
				f.read(t)
				f.latency = test.latency
				time.Sleep(270 * time.Second) // half of the margin is left
				begun := time.Now()
				shared, number := f.read(t)
				require.Equal(t, test.waits, time.Since(begun))
				require.Equal(t, test.number, number)
				if number == 1 {
					require.Equal(t, 10*time.Second, shared.TTL,
						"the provider is slow: readers must not stampede")
				} else {
					want := 240*time.Second - test.waits
					require.Equal(t, want.Truncate(time.Second), shared.TTL)
				}
			})
		})
	}
}

func TestSoleReader_DoesNotWaitWithMarginLeft(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, 5*time.Minute, time.Minute)
		f.read(t)
		f.latency = 500 * time.Millisecond
		time.Sleep(240 * time.Second)
		_, number := f.readImmediately(t)
		require.Equal(t, 1, number, "exactly the margin is left")
	})
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, 5*time.Minute, time.Minute)
		f.read(t)
		f.latency = 500 * time.Millisecond
		time.Sleep(240*time.Second + time.Nanosecond)
		_, number := f.read(t)
		require.Equal(t, 2, number, "less than the margin is left")
	})
}

func TestSoleReader_CanceledReceivesOldToken(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, 5*time.Minute, time.Minute)
		f.read(t)
		f.latency = 5 * time.Second
		time.Sleep(270 * time.Second)
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		defer cancel()
		begun := time.Now()
		shared, err := f.get(ctx)
		require.NoError(t, err)
		require.Equal(t, 1, numberOf(t, shared))
		require.Equal(t, 300*time.Millisecond, time.Since(begun))
	})
}

func TestSoleReader_ReceivesOldTokenIfRefreshFails(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, 5*time.Minute, time.Minute)
		f.read(t)
		f.latency, f.failure = 500*time.Millisecond, errProvider
		time.Sleep(270 * time.Second)
		begun := time.Now()
		shared, number := f.read(t)
		require.Equal(t, 1, number)
		require.Equal(t, 500*time.Millisecond, time.Since(begun), "no longer than the refresh")
		require.Equal(t, errProvider, shared.Failure)
		require.Equal(t, 10*time.Second, shared.TTL)

		time.Sleep(time.Second)
		f.readImmediately(t) // while refreshes fail, nobody waits for one
	})
}

// TestOutage_TokenIsServedUntilItExpires reads every 100 ms.
func TestOutage_TokenIsServedUntilItExpires(t *testing.T) {
	t.Parallel()
	for life, cutOff := range map[time.Duration]time.Duration{
		5 * time.Minute:  5 * time.Second,
		50 * time.Second: 5 * time.Second,
		20 * time.Second: 2 * time.Second,
		10 * time.Second: time.Second,
		5 * time.Second:  500 * time.Millisecond,
	} {
		t.Run(life.String(), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				f := newFixture(t, life, life/5)
				f.read(t)
				expiry := time.Now().Add(life)
				f.failure = errProvider
				for remaining := life; remaining > cutOff; remaining = time.Until(expiry) {
					shared, number := f.readImmediately(t)
					require.Equal(t, 1, number)
					if shared.Failure != nil {
						require.Equal(t, errProvider, shared.Failure)
						require.Equal(t, outageTTL(remaining), shared.TTL, "%s left", remaining)
					} else {
						require.GreaterOrEqual(t, remaining, f.margin, "the refresh is no earlier")
					}
					time.Sleep(100 * time.Millisecond)
					synctest.Wait()
				}
				require.Equal(t, cutOff, time.Until(expiry))
				shared, err := f.get(t.Context())
				require.Nil(t, shared)
				require.Equal(t, errProvider, err, "too little of its lifetime is left")
				f.requirePauses(t)
				require.Equal(t, 1, f.logged("[WARN]"))
				require.Zero(t, f.logged("[INFO]"))

				f.set(func(f *fixture) { f.failure = nil })
				_, number := f.read(t)
				require.Equal(t, f.fetches(), number, "recovered")
				require.Equal(t, 1, f.logged("[WARN]"))
				require.Equal(t, 1, f.logged("[INFO]"))
				require.NotContains(t, f.log.String(), "hunter2")
			})
		})
	}
}

// requirePauses requires at most one fetch at a time, and at most one a second.
func (f *fixture) requirePauses(t *testing.T) {
	t.Helper()
	f.mu.Lock()
	defer f.mu.Unlock()
	require.LessOrEqual(t, f.atOnce, 1)
	for i := 1; i < len(f.begun); i++ {
		require.GreaterOrEqual(t, f.begun[i].Sub(f.begun[i-1]), time.Second, "fetch %d", i+1)
	}
}

func TestOutage_RecoveryBeforeExpiryAffectsNoReader(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, 5*time.Minute, time.Minute)
		f.read(t)
		f.failure = errProvider
		time.Sleep(236 * time.Second)
		f.readImmediately(t)
		synctest.Wait()
		shared, _ := f.readImmediately(t)
		require.Equal(t, errProvider, shared.Failure)
		f.set(func(f *fixture) { f.failure = nil })
		time.Sleep(time.Second)
		f.readImmediately(t)
		synctest.Wait()
		shared, number := f.readImmediately(t)
		require.Equal(t, 3, number)
		require.NoError(t, shared.Failure)
		require.Equal(t, 240*time.Second, shared.TTL)

		require.Equal(t, 1, f.logged("[WARN]"))
		require.Equal(t, 1, f.logged("[INFO]"))
		require.Equal(t, 2, f.logged("role=role"))
		require.Contains(t, f.log.String(), "the provider is down")

		// The next outage is logged again.
		f.set(func(f *fixture) { f.failure = errProvider })
		time.Sleep(236 * time.Second)
		f.readImmediately(t)
		synctest.Wait()
		require.Equal(t, 2, f.logged("[WARN]"))
	})
}

func TestOutage_OneAttemptASecondWithoutToken(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, 5*time.Minute, time.Minute)
		f.failure, f.latency = errProvider, 30*time.Millisecond
		begun := time.Now()
		_, err := f.get(t.Context())
		require.Equal(t, errProvider, err)
		require.Equal(t, 30*time.Millisecond, time.Since(begun), "without a pause")
		for range 100 { // each reads as soon as the one before failed
			_, err := f.get(t.Context())
			require.Equal(t, errProvider, err)
		}
		require.Equal(t, 100*time.Second+30*time.Millisecond, time.Since(begun))
		require.Equal(t, 101, f.fetches())
		f.requirePauses(t)

		f.set(func(f *fixture) { f.failure = nil })
		_, number := f.read(t)
		require.Equal(t, 102, number, "the next attempt")
		require.Zero(t, f.logged("[WARN]"), "the readers received the errors")
	})
}

func TestFetch_EndsAtItsLimit(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, 5*time.Minute, time.Minute)
		f.latency = time.Hour
		begun := time.Now()
		_, err := f.get(t.Context())
		require.Equal(t, errLimit, err)
		require.Equal(t, f.limit, time.Since(begun))
	})
}

// TestFetch_ReachesSlowProviderAfterFailure uses the shortest limit that can be configured.
func TestFetch_ReachesSlowProviderAfterFailure(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, 5*time.Minute, time.Minute)
		f.limit, f.latency, f.failure = time.Second, 10*time.Millisecond, errProvider
		_, err := f.get(t.Context())
		require.Equal(t, errProvider, err)
		f.set(func(f *fixture) { f.failure, f.latency = nil, 200*time.Millisecond })
		_, number := f.read(t)
		require.Equal(t, 2, number, "the pause does not shorten the fetch")
	})
}

// ttl returns the TTL that a reader should receive while nothing is wrong.
func ttl(left, margin time.Duration) time.Duration {
	if left < margin {
		return outageTTL(left)
	}
	return max((left - margin).Truncate(time.Second), time.Second)
}

// outageTTL returns the TTL while the provider is down or slow.
func outageTTL(left time.Duration) time.Duration {
	return max(min(10*time.Second, left/2).Truncate(time.Second), time.Second)
}

func TestTTL_EndsAtMarginAtEveryInstant(t *testing.T) {
	t.Parallel()
	for _, seconds := range []time.Duration{1, 2, 10, 300} {
		life := seconds * time.Second
		for _, margin := range []time.Duration{life / 5, life / 2, life - time.Second, life} {
			t.Run(fmt.Sprintf("%s, %s", life, margin), func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					f := newFixture(t, life, margin)
					f.latency = 20 * time.Millisecond
					for end := time.Now().Add(2 * life); time.Now().Before(end); {
						shared, _ := f.read(t)
						remaining := left(shared)
						require.Equal(t, ttl(remaining, margin), shared.TTL, "%s left", remaining)
						require.Positive(t, left(shared))
						require.NoError(t, shared.Failure)
						time.Sleep(life / 77)
					}
				})
			})
		}
	}
}

func TestRefresh_OneRequestPerLifetime(t *testing.T) {
	t.Parallel()
	// An interval is a lifetime less the margin and the stretch before it.
	for name, test := range map[string]struct{ life, margin, interval time.Duration }{
		"5 min":           {5 * time.Minute, time.Minute, 235 * time.Second},
		"1 min":           {time.Minute, 12 * time.Second, 43 * time.Second},
		"20 s":            {20 * time.Second, 10 * time.Second, 8 * time.Second},
		"long margin":     {5 * time.Minute, 280 * time.Second, 15 * time.Second},
		"hardly a margin": {5 * time.Minute, time.Second, 294 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				f := newFixture(t, test.life, test.margin)
				f.latency = 70 * time.Millisecond
				f.read(t)
				begun := f.begun[0]
				for n := 1; time.Since(begun) < 10*test.interval; n++ {
					shared, _ := f.readImmediately(t)
					require.GreaterOrEqual(t, left(shared), test.margin)
					time.Sleep(time.Until(begun.Add(time.Duration(n) * 100 * time.Millisecond)))
				}
				require.Equal(t, 10, f.fetches())
			})
		})
	}
}

func TestRefresh_OnceASecondIfNoTokenKeepsMargin(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct{ life, margin time.Duration }{
		"1 s tokens":            {time.Second, time.Second},
		"the whole lifetime":    {5 * time.Minute, 5 * time.Minute},
		"a second less":         {5 * time.Minute, 299 * time.Second},
		"the stretch before it": {5 * time.Minute, 295 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				f := newFixture(t, test.life, test.margin)
				f.latency = 20 * time.Millisecond
				var readers sync.WaitGroup
				for i := range 20 {
					readers.Go(func() {
						time.Sleep(time.Duration(i) * 7 * time.Millisecond)
						for end := time.Now().Add(time.Minute); time.Now().Before(end); {
							shared, err := f.get(t.Context())
							if err != nil || left(shared) <= 0 || shared.TTL < time.Second {
								t.Errorf("%v, %v", shared, err)
							}
							time.Sleep(50 * time.Millisecond)
						}
					})
				}
				readers.Wait()
				f.requirePauses(t)
				require.LessOrEqual(t, f.fetches(), 63)
			})
		})
	}
}

// TestSoleReader_NeverReceivesExpiredToken uses lifetimes that are short compared with the wait.
func TestSoleReader_NeverReceivesExpiredToken(t *testing.T) {
	t.Parallel()
	for _, seconds := range []time.Duration{1, 2, 3, 5, 9} {
		life := seconds * time.Second
		t.Run(life.String(), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				f := newFixture(t, life, max(life/2, time.Second))
				f.read(t)
				f.latency = min(1500*time.Millisecond, life*3/4)
				time.Sleep(life - life/10 - time.Millisecond) // just enough left to be served
				shared, _ := f.read(t)
				require.Positive(t, left(shared), "an expired token")
			})
		})
	}
}

func TestCache_DifferentInputsHaveDifferentTokens(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, 5*time.Minute, time.Minute)
		f.latency = 2 * time.Second
		_, number := f.read(t)
		require.Equal(t, 1, number)
		begun := time.Now()
		shared, err := f.Token(t.Context(), "role", "changed", f.source())
		require.NoError(t, err)
		require.Equal(t, 2, numberOf(t, shared))
		require.Equal(t, 2*time.Second, time.Since(begun), "no pause before it")
		shared, err = f.Token(t.Context(), "role", "changed", f.source())
		require.NoError(t, err)
		require.Equal(t, 2, numberOf(t, shared))
		require.Equal(t, 1, f.Len(), "the old one was dropped")
	})
}

func TestCache_DifferentNamesHaveDifferentTokens(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, 5*time.Minute, time.Minute)
		f.read(t)
		shared, err := f.Token(t.Context(), "other", "inputs", f.source())
		require.NoError(t, err)
		require.Equal(t, 2, numberOf(t, shared))
		_, number := f.readImmediately(t)
		require.Equal(t, 1, number)
	})
}

func TestCache_OvertakenFetchIsNotShared(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*fixture) string{ // returns the inputs after it
		"other inputs": func(*fixture) string { return "changed" },
		"dropped": func(f *fixture) string {
			f.Drop("role")
			return "inputs"
		},
		"dropped by its inputs": func(f *fixture) string {
			f.DropIf(func(inputs string) bool { return inputs == "inputs" })
			return "inputs"
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				f := newFixture(t, 5*time.Minute, time.Minute)
				f.latency = 5 * time.Second
				var readers sync.WaitGroup
				readers.Go(func() {
					shared, err := f.get(t.Context())
					if err != nil || shared.AccessToken != "hunter2-1" {
						t.Errorf("the reader before the change: %v, %v", shared, err)
					}
				})
				time.Sleep(time.Second)
				inputs := change(f)
				shared, err := f.Token(t.Context(), "role", inputs, f.source())
				require.NoError(t, err)
				require.Equal(t, 2, numberOf(t, shared))
				readers.Wait()
				time.Sleep(time.Second)
				shared, err = f.Token(t.Context(), "role", inputs, f.source())
				require.NoError(t, err)
				require.Equal(t, 2, numberOf(t, shared), "the overtaken token is not kept")
				require.Equal(t, 1, f.Len())
			})
		})
	}
}

func TestDrop_OneName(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, 5*time.Minute, time.Minute)
		f.read(t)
		_, err := f.Token(t.Context(), "other", "inputs", f.source())
		require.NoError(t, err)
		require.Equal(t, 2, f.Len())
		f.Drop("role")
		f.Drop("none")
		require.Equal(t, 1, f.Len())
		_, number := f.readImmediately(t) // without a pause: it is another entry
		require.Equal(t, 3, number)
		shared, err := f.Token(t.Context(), "other", "inputs", f.source())
		require.NoError(t, err)
		require.Equal(t, 2, numberOf(t, shared))
	})
}

func TestDropIf_MatchingInputs(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, 5*time.Minute, time.Minute)
		for _, name := range []string{"a", "b", "c"} {
			_, err := f.Token(t.Context(), name, "of "+name, f.source())
			require.NoError(t, err)
		}
		f.DropIf(func(inputs string) bool { return inputs != "of b" })
		require.Equal(t, 1, f.Len())
		_, err := f.Token(t.Context(), "b", "of b", f.source())
		require.NoError(t, err)
		require.Equal(t, 3, f.fetches())
	})
}

func TestLen_CountsUnexpiredTokens(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, 5*time.Minute, time.Minute)
		require.Zero(t, f.Len())
		f.failure = errProvider
		_, err := f.get(t.Context())
		require.Error(t, err)
		require.Zero(t, f.Len(), "a name without a token")
		f.failure = nil
		f.read(t)
		require.Equal(t, 1, f.Len())
		time.Sleep(299 * time.Second)
		require.Equal(t, 1, f.Len())
		time.Sleep(time.Second)
		require.Zero(t, f.Len())
	})
}

func TestClose_CancelsRunningFetch(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, 5*time.Minute, time.Minute)
		f.limit, f.latency = time.Hour, time.Hour
		var readers sync.WaitGroup
		for range 10 {
			readers.Go(func() {
				if _, err := f.get(t.Context()); err == nil {
					t.Error("a token after Close")
				}
			})
		}
		time.Sleep(time.Second)
		begun := time.Now()
		f.Close()
		require.Zero(t, f.running, "Close waits for the fetch")
		readers.Wait()
		require.Zero(t, time.Since(begun))
		f.Close() // again
	})
}

func TestClose_WaitsForSlowFetch(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, 5*time.Minute, time.Minute)
		source, ended := f.source(), false
		source.Fetch = func(ctx context.Context) (*exchange.Token, error) {
			<-ctx.Done()
			time.Sleep(time.Second)
			ended = true
			return nil, ctx.Err()
		}
		go func() { _, _ = f.Token(t.Context(), "role", "inputs", source) }()
		synctest.Wait()
		f.Close()
		require.True(t, ended)
	})
}

func TestClose_EndsPause(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, 5*time.Minute, time.Minute)
		f.failure = errProvider
		_, err := f.get(t.Context())
		require.Error(t, err)
		go func() { _, _ = f.get(t.Context()) }()
		synctest.Wait()
		begun := time.Now()
		f.Close()
		require.Zero(t, time.Since(begun))
	})
}

func TestClose_NoTokenAfterward(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, 5*time.Minute, time.Minute)
		f.read(t)
		f.Close()
		require.Zero(t, f.Len())
		for range 2 {
			_, err := f.get(t.Context())
			require.Equal(t, ErrClosed, err)
		}
		require.Equal(t, 1, f.fetches())
	})
}

func TestClose_IsNoOutage(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, 5*time.Minute, time.Minute)
		f.read(t)
		f.latency = 5 * time.Second
		time.Sleep(236 * time.Second)
		f.readImmediately(t)
		synctest.Wait()
		f.Close()
		require.Equal(t, 2, f.fetches())
		require.Empty(t, f.log.String())
	})
}

// TestCache_RandomReaders tests what holds whenever readers come and however the provider behaves.
func TestCache_RandomReaders(t *testing.T) {
	t.Parallel()
	for seed := range uint64(60) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) { testRandomReaders(t, seed) })
		})
	}
}

func FuzzCache_RandomReaders(f *testing.F) {
	f.Add(uint64(1000))
	f.Fuzz(func(t *testing.T, seed uint64) {
		synctest.Test(t, func(t *testing.T) { testRandomReaders(t, seed) })
	})
}

func testRandomReaders(t *testing.T, seed uint64) {
	t.Helper()
	random := rand.New(rand.NewPCG(seed, 0))
	upTo := func(limit time.Duration) time.Duration {
		return time.Duration(random.Int64N(int64(limit)))
	}
	life := time.Second + upTo(100*time.Second).Truncate(time.Second)
	margin := max(life/time.Duration(2+random.IntN(8)), time.Second).Truncate(time.Second)
	f := newFixture(t, life, margin)
	healthy := seed%3 == 0 && life > 10*time.Second // no fetch fails and none is slow
	f.limit = time.Second + upTo(5*time.Second)

	var readers sync.WaitGroup
	for range 300 {
		f.set(func(f *fixture) {
			f.failure, f.latency = nil, upTo(900*time.Millisecond)
			if !healthy {
				f.latency = min(f.latency*time.Duration(random.IntN(8)), life*3/4)
				if random.IntN(3) == 0 {
					f.failure = errProvider
				}
			}
		})
		readers.Go(func() { f.readAndCheck(t, healthy) })
		time.Sleep(upTo(life / time.Duration(1+random.IntN(100))))
	}
	readers.Wait()
	f.requirePauses(t)
}

// readAndCheck reads once.
func (f *fixture) readAndCheck(t *testing.T, healthy bool) {
	came := time.Now()
	f.mu.Lock()
	last := f.last
	f.mu.Unlock()
	shared, err := f.get(t.Context())
	waited := time.Since(came)
	if err != nil {
		usable := func(token *exchange.Token) bool {
			reserve := min(5*time.Second, token.Lifetime/10)
			return came.Before(token.RequestedAt.Add(token.Lifetime - reserve))
		}
		if healthy || last != nil && usable(last) {
			t.Errorf("no token, after %s: %v", waited, err)
		}
		return
	}
	switch {
	case left(shared) <= 0:
		t.Errorf("an expired token of %s, after %s", f.life, waited)
	// A reader that came with hardly more than the reserve left could not wait.
	case healthy && left(shared) < f.margin && left(shared) > min(5*time.Second, f.life/10):
		t.Errorf("%s left, which is less than the margin of %s", left(shared), f.margin)
	case shared.Failure == nil && shared.TTL != ttl(left(shared), f.margin):
		t.Errorf("a ttl of %s with %s left and a margin of %s", shared.TTL, left(shared), f.margin)
	case shared.Failure != nil && shared.TTL != outageTTL(left(shared)):
		t.Errorf("a ttl of %s with %s left in an outage", shared.TTL, left(shared))
	}
}

func entryOf(life, margin time.Duration) *entry[string] {
	token := &tokenendpoint.Token{RequestedAt: time.Unix(0, 0), Lifetime: life}
	return &entry[string]{token: &exchange.Token{Token: token}, margin: margin}
}

func TestEntry_WithoutTokenIsDueAndNotUsable(t *testing.T) {
	t.Parallel()
	empty := &entry[string]{}
	require.True(t, empty.due(time.Now()))
	require.False(t, empty.usable(time.Now()))
}

func TestEntry_DueAndUsableTimes(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ life, margin, due, unusable time.Duration }{
		{24 * time.Hour, time.Minute, 24*time.Hour - 65*time.Second, 24*time.Hour - 5*time.Second},
		{5 * time.Minute, time.Minute, 235 * time.Second, 295 * time.Second},
		{50 * time.Second, 10 * time.Second, 35 * time.Second, 45 * time.Second},
		{49 * time.Second, 10 * time.Second, 34100 * time.Millisecond, 44100 * time.Millisecond},
		{10 * time.Second, 5 * time.Second, 4 * time.Second, 9 * time.Second},
		{time.Second, time.Second, 0, 900 * time.Millisecond},
	} {
		e := entryOf(test.life, test.margin)
		at := func(age time.Duration) time.Time { return time.Unix(0, 0).Add(age) }
		if test.due > 0 {
			require.False(t, e.due(at(test.due-1)), "%+v", test)
		}
		require.True(t, e.due(at(test.due)), "%+v", test)
		require.True(t, e.usable(at(test.unusable-1)), "%+v", test)
		require.False(t, e.usable(at(test.unusable)), "%+v", test)
	}
}

func TestEntry_SharedTTL(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		age    time.Duration
		failed bool
		ttl    time.Duration
	}{
		{0, false, 240 * time.Second},
		{time.Millisecond, false, 239 * time.Second},
		{235 * time.Second, false, 5 * time.Second},
		{240 * time.Second, false, time.Second},
		{299 * time.Second, false, time.Second},
		{235 * time.Second, true, 10 * time.Second},
		{280 * time.Second, true, 10 * time.Second},
		{280*time.Second + 1, true, 9 * time.Second},
		{290 * time.Second, true, 5 * time.Second},
		{297 * time.Second, true, time.Second},
		{299 * time.Second, true, time.Second},
	} {
		e := entryOf(5*time.Minute, time.Minute)
		if test.failed {
			e.failure = errProvider
		}
		shared := e.share(time.Unix(0, 0).Add(test.age))
		require.Equal(t, test.ttl, shared.TTL, "%+v", test)
		require.Equal(t, e.failure, shared.Failure)
	}
}

func TestEntry_FinishNotifiesAllWaitingReaders(t *testing.T) {
	t.Parallel()
	e := entryOf(5*time.Minute, time.Minute)
	half := func(life time.Duration) time.Duration { return life / 2 }
	old := e.token
	failed := &refresh{done: make(chan struct{})}
	e.refresh = failed
	e.finish(nil, errProvider, half)
	<-failed.done
	require.Equal(t, errProvider, failed.err)
	require.Equal(t, errProvider, e.failure)
	require.Same(t, old, e.token, "kept")
	require.Equal(t, time.Minute, e.margin)
	require.Nil(t, e.refresh)

	succeeded := &refresh{done: make(chan struct{})}
	e.refresh = succeeded
	e.finish(entryOf(time.Minute, 0).token, nil, half)
	<-succeeded.done
	require.NoError(t, succeeded.err)
	require.NoError(t, e.failure)
	require.NotSame(t, old, e.token)
	require.Equal(t, 30*time.Second, e.margin, "the new token's")
}
