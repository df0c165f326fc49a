package tokencache

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/bcgov/vault-plugin-bcgov-jwt/backend/internal/exchange"
	"github.com/bcgov/vault-plugin-bcgov-jwt/backend/internal/tokenendpoint"
)

func TestMain(m *testing.M) {
	// A dependency of Vault's SDK starts this one when it is imported.
	goleak.VerifyTestMain(m, goleak.IgnoreTopFunction("go.opencensus.io/stats/view.(*worker).start"))
}

var (
	errProvider = errors.New("the provider is down")
	errLimit    = errors.New("out of time")
	errGone     = errors.New("this reader went away")
)

// fixture is a cache in virtual time, and the provider behind it.
type fixture struct {
	*Cache[string]
	log syncBuffer

	mu       sync.Mutex
	life     time.Duration // of the tokens
	margin   time.Duration
	latency  time.Duration
	limit    time.Duration // of a fetch
	failure  error
	begun    []time.Time // each fetch
	last     *exchange.Token
	underWay int
	atOnce   int // the most that ever were under way
}

// newFixture is called in a bubble, whose end it outlives in no goroutine.
func newFixture(t *testing.T, life, margin time.Duration) *fixture {
	t.Helper()
	f := &fixture{life: life, margin: margin, limit: 10 * time.Second}
	f.Cache = New[string](time.Now, hclog.New(&hclog.LoggerOptions{Output: &f.log, Level: hclog.Trace}))
	t.Cleanup(f.Close)
	return f
}

// set changes how the provider is.
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
	f.underWay++
	f.atOnce = max(f.atOnce, f.underWay)
	f.mu.Unlock()
	defer f.set(func(f *fixture) { f.underWay-- })
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
	token := &exchange.Token{Token: &tokenendpoint.Token{AccessToken: fmt.Sprintf("hunter2-%d", number), RequestedAt: begun, Lifetime: life}}
	f.set(func(f *fixture) { f.last = token })
	return token, nil
}

// fetches is how often the provider was asked.
func (f *fixture) fetches() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.begun)
}

// get reads as one reader does.
func (f *fixture) get(ctx context.Context) (*Shared, error) {
	return f.Token(ctx, "role", "basis", f.source())
}

// read is a read that succeeds. number tells which fetch the token is from.
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

// readAtOnce is a read that must not wait.
func (f *fixture) readAtOnce(t *testing.T) (shared *Shared, number int) {
	t.Helper()
	begun := time.Now()
	shared, number = f.read(t)
	require.Zero(t, time.Since(begun), "a reader waited")
	return shared, number
}

func left(shared *Shared) time.Duration {
	return time.Until(shared.RequestedAt.Add(shared.Lifetime))
}

// syncBuffer is a log that may be written to from many goroutines.
type syncBuffer struct {
	mu     sync.Mutex
	buffer bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buffer.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buffer.String()
}

func (b *syncBuffer) count(part string) int { return strings.Count(b.String(), part) }

func TestAThousandFirstReadersCauseOneFetch(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, 5*time.Minute, time.Minute)
		f.latency = 2 * time.Second
		var readers sync.WaitGroup
		for range 1000 {
			readers.Go(func() {
				shared, err := f.get(t.Context())
				if err != nil || shared.AccessToken != "hunter2-1" || shared.TTL != 238*time.Second || shared.Failure != nil {
					t.Errorf("%v, %v", shared, err)
				}
			})
		}
		readers.Wait()
		require.Equal(t, 1, f.fetches())
		require.Empty(t, f.log.String())
	})
}

func TestAThousandFirstReadersShareOneFailure(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, 5*time.Minute, time.Minute)
		f.latency, f.failure = 2*time.Second, errProvider
		var readers sync.WaitGroup
		for range 1000 {
			readers.Go(func() {
				if shared, err := f.get(t.Context()); shared != nil || !errors.Is(err, errProvider) {
					t.Errorf("%v, %v", shared, err)
				}
			})
		}
		readers.Wait()
		require.Equal(t, 1, f.fetches())
		require.Empty(t, f.log.String(), "the readers are told")
	})
}

func TestAReaderThatGoesAwayLeavesTheFetchToTheOthers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, 5*time.Minute, time.Minute)
		f.latency = 4 * time.Second
		ctx, cancel := context.WithTimeoutCause(t.Context(), time.Second, errGone)
		defer cancel()
		begun := time.Now()
		_, err := f.get(ctx) // the first, who started the fetch
		require.Equal(t, errGone, err)
		require.Equal(t, time.Second, time.Since(begun), "its own limit")

		_, number := f.read(t)
		require.Equal(t, 1, number)
		require.Equal(t, 4*time.Second, time.Since(begun))
	})
}

func TestATokenIsKeptThoughNobodyWaitedForIt(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, 5*time.Minute, time.Minute)
		f.latency = 4 * time.Second
		ctx, cancel := context.WithCancelCause(t.Context())
		cancel(errGone)
		_, err := f.get(ctx)
		require.Equal(t, errGone, err)
		time.Sleep(5 * time.Second)
		f.readAtOnce(t)
		require.Equal(t, 1, f.fetches())
	})
}

func TestTheLastStretchBeforeTheMarginRefreshesInTheBackground(t *testing.T) {
	t.Parallel()
	for life, stretch := range map[time.Duration]time.Duration{ // margin: a fifth
		time.Hour: 5 * time.Second, 5 * time.Minute: 5 * time.Second, 50 * time.Second: 5 * time.Second, 40 * time.Second: 4 * time.Second, 10 * time.Second: time.Second,
	} {
		t.Run(life.String(), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				f := newFixture(t, life, life/5)
				f.read(t)
				f.latency = stretch / 2
				time.Sleep(life - f.margin - stretch - time.Nanosecond)
				f.readAtOnce(t)
				synctest.Wait()
				require.Equal(t, 1, f.fetches(), "too early")

				time.Sleep(time.Nanosecond)
				for range 100 {
					shared, number := f.readAtOnce(t)
					require.Equal(t, 1, number, "the old one, while the new one is fetched")
					require.Equal(t, max(stretch.Truncate(time.Second), time.Second), shared.TTL)
					synctest.Wait()
					require.Equal(t, 2, f.fetches())
				}
				time.Sleep(stretch / 2)
				synctest.Wait()
				shared, number := f.readAtOnce(t)
				require.Equal(t, 2, number)
				require.Equal(t, (life - stretch/2 - f.margin).Truncate(time.Second), shared.TTL, "counted from when it was asked for")
				require.Equal(t, 2, f.fetches())
			})
		})
	}
}

func TestASparseReaderGetsTheNewTokenIfItComesWithinASecond(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		latency, waits time.Duration
		number         int
	}{
		"at once":            {0, 0, 2},
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
					require.Equal(t, 10*time.Second, shared.TTL, "the provider is slow: readers must not stampede")
				} else {
					require.Equal(t, (240*time.Second - test.waits).Truncate(time.Second), shared.TTL)
				}
			})
		})
	}
}

func TestASparseReaderWithTheMarginLeftDoesNotWait(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, 5*time.Minute, time.Minute)
		f.read(t)
		f.latency = 500 * time.Millisecond
		time.Sleep(240 * time.Second)
		_, number := f.readAtOnce(t)
		require.Equal(t, 1, number, "just the margin is left")
	})
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, 5*time.Minute, time.Minute)
		f.read(t)
		f.latency = 500 * time.Millisecond
		time.Sleep(240*time.Second + time.Nanosecond)
		_, number := f.read(t)
		require.Equal(t, 2, number, "less than it was")
	})
}

func TestASparseReaderThatGoesAwayHasTheOldToken(t *testing.T) {
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

func TestASparseReaderWhoseRefreshFailsHasTheOldToken(t *testing.T) {
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
		f.readAtOnce(t) // while refreshes fail, nobody waits for one
	})
}

// TestInAnOutageTheTokenIsServedToItsEnd has a reader each 100 ms.
func TestInAnOutageTheTokenIsServedToItsEnd(t *testing.T) {
	t.Parallel()
	for life, cutOff := range map[time.Duration]time.Duration{
		5 * time.Minute: 5 * time.Second, 50 * time.Second: 5 * time.Second, 20 * time.Second: 2 * time.Second, 10 * time.Second: time.Second, 5 * time.Second: 500 * time.Millisecond,
	} {
		t.Run(life.String(), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				f := newFixture(t, life, life/5)
				f.read(t)
				expiry := time.Now().Add(life)
				f.failure = errProvider
				for remaining := life; remaining > cutOff; remaining = time.Until(expiry) {
					shared, number := f.readAtOnce(t)
					require.Equal(t, 1, number)
					if shared.Failure != nil {
						require.Equal(t, errProvider, shared.Failure)
						require.Equal(t, max(min(10*time.Second, remaining/2).Truncate(time.Second), time.Second), shared.TTL, "%s before the end", remaining)
					} else {
						require.GreaterOrEqual(t, remaining, f.margin, "the first refresh came no earlier than that")
					}
					time.Sleep(100 * time.Millisecond)
					synctest.Wait()
				}
				require.Equal(t, cutOff, time.Until(expiry))
				shared, err := f.get(t.Context())
				require.Nil(t, shared)
				require.Equal(t, errProvider, err, "too little life is left in it")
				f.requirePauses(t)
				require.Equal(t, 1, f.log.count("[WARN]"))
				require.Zero(t, f.log.count("[INFO]"))

				f.set(func(f *fixture) { f.failure = nil })
				_, number := f.read(t)
				require.Equal(t, f.fetches(), number, "recovered")
				require.Equal(t, 1, f.log.count("[WARN]"))
				require.Equal(t, 1, f.log.count("[INFO]"))
				require.NotContains(t, f.log.String(), "hunter2")
			})
		})
	}
}

// requirePauses holds that there was at most one fetch at a time and at most one a second.
func (f *fixture) requirePauses(t *testing.T) {
	t.Helper()
	f.mu.Lock()
	defer f.mu.Unlock()
	require.LessOrEqual(t, f.atOnce, 1)
	for i := 1; i < len(f.begun); i++ {
		require.GreaterOrEqual(t, f.begun[i].Sub(f.begun[i-1]), time.Second, "fetch %d", i+1)
	}
}

func TestARecoveryBeforeTheEndIsNoticedByNoReader(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, 5*time.Minute, time.Minute)
		f.read(t)
		f.failure = errProvider
		time.Sleep(236 * time.Second)
		f.readAtOnce(t)
		synctest.Wait()
		shared, _ := f.readAtOnce(t)
		require.Equal(t, errProvider, shared.Failure)
		f.set(func(f *fixture) { f.failure = nil })
		time.Sleep(time.Second)
		f.readAtOnce(t)
		synctest.Wait()
		shared, number := f.readAtOnce(t)
		require.Equal(t, 3, number)
		require.NoError(t, shared.Failure)
		require.Equal(t, 240*time.Second, shared.TTL)

		require.Equal(t, 1, f.log.count("[WARN]"))
		require.Equal(t, 1, f.log.count("[INFO]"))
		require.Equal(t, 2, f.log.count("role=role"))
		require.Contains(t, f.log.String(), "the provider is down")

		// The next outage is another.
		f.set(func(f *fixture) { f.failure = errProvider })
		time.Sleep(236 * time.Second)
		f.readAtOnce(t)
		synctest.Wait()
		require.Equal(t, 2, f.log.count("[WARN]"))
	})
}

func TestWithoutATokenThereIsOneAttemptASecond(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, 5*time.Minute, time.Minute)
		f.failure, f.latency = errProvider, 30*time.Millisecond
		begun := time.Now()
		_, err := f.get(t.Context())
		require.Equal(t, errProvider, err)
		require.Equal(t, 30*time.Millisecond, time.Since(begun), "the first is told at once")
		for range 100 { // each comes as the one before is told
			_, err := f.get(t.Context())
			require.Equal(t, errProvider, err)
		}
		require.Equal(t, 100*time.Second+30*time.Millisecond, time.Since(begun))
		require.Equal(t, 101, f.fetches())
		f.requirePauses(t)

		f.set(func(f *fixture) { f.failure = nil })
		_, number := f.read(t)
		require.Equal(t, 102, number, "the next attempt")
		require.Zero(t, f.log.count("[WARN]"), "the readers were told")
	})
}

func TestAFetchEndsAtItsLimit(t *testing.T) {
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

// TestASlowerProviderIsReachedAfterAFailure has the shortest limit that can be configured.
func TestASlowerProviderIsReachedAfterAFailure(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, 5*time.Minute, time.Minute)
		f.limit, f.latency, f.failure = time.Second, 10*time.Millisecond, errProvider
		_, err := f.get(t.Context())
		require.Equal(t, errProvider, err)
		f.set(func(f *fixture) { f.failure, f.latency = nil, 200*time.Millisecond })
		_, number := f.read(t)
		require.Equal(t, 2, number, "the pause takes no time away from the fetch")
	})
}

// ttl is what a reader should get while nothing is wrong.
func ttl(left, margin time.Duration) time.Duration {
	period := left - margin
	if period < 0 {
		period = min(10*time.Second, left/2)
	}
	return max(period.Truncate(time.Second), time.Second)
}

func TestTheTTLIsWhatIsLeftBeforeTheMarginAtEveryInstant(t *testing.T) {
	t.Parallel()
	for _, life := range []time.Duration{time.Second, 2 * time.Second, 10 * time.Second, 300 * time.Second} {
		for _, margin := range []time.Duration{life / 5, life / 2, life - time.Second, life} {
			t.Run(fmt.Sprintf("%s, %s", life, margin), func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					f := newFixture(t, life, margin)
					f.latency = 20 * time.Millisecond
					for end := time.Now().Add(2 * life); time.Now().Before(end); time.Sleep(life / 77) {
						shared, _ := f.read(t)
						require.Equal(t, ttl(left(shared), margin), shared.TTL, "%s before the end", left(shared))
						require.Positive(t, left(shared))
						require.NoError(t, shared.Failure)
					}
				})
			})
		}
	}
}

func TestOneRequestPerLife(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct{ life, margin, period time.Duration }{ // a period is a life without the margin and the stretch before it
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
				for n := 1; time.Since(begun) < 10*test.period; n++ {
					shared, _ := f.readAtOnce(t)
					require.GreaterOrEqual(t, left(shared), test.margin)
					time.Sleep(time.Until(begun.Add(time.Duration(n) * 100 * time.Millisecond)))
				}
				require.Equal(t, 10, f.fetches())
			})
		})
	}
}

func TestAMarginThatNoTokenKeepsAsksOnceASecond(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct{ life, margin time.Duration }{
		"1 s tokens":            {time.Second, time.Second},
		"the whole life":        {5 * time.Minute, 5 * time.Minute},
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
						for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
							shared, err := f.get(t.Context())
							if err != nil || left(shared) <= 0 || shared.TTL < time.Second {
								t.Errorf("%v, %v", shared, err)
							}
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

// TestATokenThatEndsWhileAReaderWaitsIsNotServed has lives in which a reader's patience is much.
func TestATokenThatEndsWhileAReaderWaitsIsNotServed(t *testing.T) {
	t.Parallel()
	for _, life := range []time.Duration{time.Second, 2 * time.Second, 3 * time.Second, 5 * time.Second, 9 * time.Second} {
		t.Run(life.String(), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				f := newFixture(t, life, max(life/2, time.Second))
				f.read(t)
				f.latency = min(1500*time.Millisecond, life*3/4)
				time.Sleep(life - life/10 - time.Millisecond) // some life to be used in is left
				shared, _ := f.read(t)
				require.Positive(t, left(shared), "an expired token")
			})
		})
	}
}

func TestAnotherBasisIsAnotherToken(t *testing.T) {
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
		require.Equal(t, 1, f.Len(), "the old one is forgotten")
	})
}

func TestAnotherNameIsAnotherToken(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, 5*time.Minute, time.Minute)
		f.read(t)
		shared, err := f.Token(t.Context(), "other", "basis", f.source())
		require.NoError(t, err)
		require.Equal(t, 2, numberOf(t, shared))
		_, number := f.readAtOnce(t)
		require.Equal(t, 1, number)
	})
}

func TestAFetchThatAChangeOvertookIsNotShared(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*fixture) string{ // returns the basis after it
		"another basis": func(*fixture) string { return "changed" },
		"dropped": func(f *fixture) string {
			f.Drop("role")
			return "basis"
		},
		"dropped by its basis": func(f *fixture) string {
			f.DropIf(func(basis string) bool { return basis == "basis" })
			return "basis"
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				f := newFixture(t, 5*time.Minute, time.Minute)
				f.latency = 5 * time.Second
				var readers sync.WaitGroup
				readers.Go(func() {
					if shared, err := f.get(t.Context()); err != nil || shared.AccessToken != "hunter2-1" {
						t.Errorf("who came before the change: %v, %v", shared, err)
					}
				})
				time.Sleep(time.Second)
				basis := change(f)
				shared, err := f.Token(t.Context(), "role", basis, f.source())
				require.NoError(t, err)
				require.Equal(t, 2, numberOf(t, shared))
				readers.Wait()
				time.Sleep(time.Second)
				shared, err = f.Token(t.Context(), "role", basis, f.source())
				require.NoError(t, err)
				require.Equal(t, 2, numberOf(t, shared), "the overtaken one is not kept")
				require.Equal(t, 1, f.Len())
			})
		})
	}
}

func TestDropForgetsOneName(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, 5*time.Minute, time.Minute)
		f.read(t)
		_, err := f.Token(t.Context(), "other", "basis", f.source())
		require.NoError(t, err)
		require.Equal(t, 2, f.Len())
		f.Drop("role")
		f.Drop("none")
		require.Equal(t, 1, f.Len())
		_, number := f.readAtOnce(t) // without a pause: it is another entry
		require.Equal(t, 3, number)
		shared, err := f.Token(t.Context(), "other", "basis", f.source())
		require.NoError(t, err)
		require.Equal(t, 2, numberOf(t, shared))
	})
}

func TestDropIfForgetsWhatMatches(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, 5*time.Minute, time.Minute)
		for _, name := range []string{"a", "b", "c"} {
			_, err := f.Token(t.Context(), name, "of "+name, f.source())
			require.NoError(t, err)
		}
		f.DropIf(func(basis string) bool { return basis != "of b" })
		require.Equal(t, 1, f.Len())
		_, err := f.Token(t.Context(), "b", "of b", f.source())
		require.NoError(t, err)
		require.Equal(t, 3, f.fetches())
	})
}

func TestLenCountsTokensThatHaveNotExpired(t *testing.T) {
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

func TestCloseEndsWhatIsUnderWay(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, 5*time.Minute, time.Minute)
		f.limit, f.latency = time.Hour, time.Hour
		var readers sync.WaitGroup
		for range 10 {
			readers.Go(func() {
				if _, err := f.get(t.Context()); err == nil {
					t.Error("there is no token")
				}
			})
		}
		time.Sleep(time.Second)
		begun := time.Now()
		f.Close()
		require.Zero(t, f.underWay, "it waited for the fetch")
		readers.Wait()
		require.Zero(t, time.Since(begun))
		f.Close() // again
	})
}

func TestCloseWaitsForAFetchThatTakesItsTime(t *testing.T) {
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
		go func() { _, _ = f.Token(t.Context(), "role", "basis", source) }()
		synctest.Wait()
		f.Close()
		require.True(t, ended)
	})
}

func TestCloseEndsAPause(t *testing.T) {
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

func TestAfterCloseThereIsNoToken(t *testing.T) {
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

func TestAnEndByCloseIsNoOutage(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, 5*time.Minute, time.Minute)
		f.read(t)
		f.latency = 5 * time.Second
		time.Sleep(236 * time.Second)
		f.readAtOnce(t)
		synctest.Wait()
		f.Close()
		require.Equal(t, 2, f.fetches())
		require.Empty(t, f.log.String())
	})
}

// TestReadersAtRandom holds what must be so whenever readers come and however the provider is.
func TestReadersAtRandom(t *testing.T) {
	t.Parallel()
	for seed := range uint64(60) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) { readAtRandom(t, seed) })
		})
	}
}

func FuzzReadersAtRandom(f *testing.F) {
	f.Add(uint64(1000))
	f.Fuzz(func(t *testing.T, seed uint64) {
		synctest.Test(t, func(t *testing.T) { readAtRandom(t, seed) })
	})
}

func readAtRandom(t *testing.T, seed uint64) {
	t.Helper()
	random := rand.New(rand.NewPCG(seed, 0))
	upTo := func(most time.Duration) time.Duration { return time.Duration(random.Int64N(int64(most))) }
	life := time.Second + upTo(100*time.Second).Truncate(time.Second)
	f := newFixture(t, life, max(life/time.Duration(2+random.IntN(8)), time.Second).Truncate(time.Second))
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
		readers.Go(func() { f.readAndJudge(t, healthy) })
		time.Sleep(upTo(life / time.Duration(1+random.IntN(100))))
	}
	readers.Wait()
	f.requirePauses(t)
}

// readAndJudge reads once.
func (f *fixture) readAndJudge(t *testing.T, healthy bool) {
	came := time.Now()
	f.mu.Lock()
	last := f.last
	f.mu.Unlock()
	shared, err := f.get(t.Context())
	waited := time.Since(came)
	if err != nil {
		if healthy || last != nil && came.Before(last.RequestedAt.Add(last.Lifetime-min(5*time.Second, last.Lifetime/10))) {
			t.Errorf("no token, after %s: %v", waited, err)
		}
		return
	}
	switch {
	case left(shared) <= 0:
		t.Errorf("an expired token of %s, after %s", f.life, waited)
	case healthy && left(shared) < f.margin && left(shared) > min(5*time.Second, f.life/10): // with so little left a reader that came with hardly more could not wait
		t.Errorf("%s left, which is less than the margin of %s", left(shared), f.margin)
	case shared.Failure == nil && shared.TTL != ttl(left(shared), f.margin):
		t.Errorf("a ttl of %s with %s left and a margin of %s", shared.TTL, left(shared), f.margin)
	case shared.Failure != nil && shared.TTL != max(min(10*time.Second, left(shared)/2).Truncate(time.Second), time.Second):
		t.Errorf("a ttl of %s with %s left in an outage", shared.TTL, left(shared))
	}
}
