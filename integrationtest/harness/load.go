package harness

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// readsPerSecond is how often a load reads, however long a read takes.
const readsPerSecond = 20

// Load reads creds of a role continuously, without retries, and keeps the failures.
type Load struct {
	role string
	stop context.CancelFunc
	done chan struct{}

	mu       sync.Mutex
	reads    int
	failures []string
}

// StartLoad reads until End is called, at the latest until the test ends.
func (m *Mount) StartLoad(t *testing.T, role string) *Load {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	l := &Load{role: role, stop: stop, done: make(chan struct{})}
	go l.run(ctx, m)
	t.Cleanup(func() {
		stop()
		<-l.done
	})
	return l
}

func (l *Load) run(ctx context.Context, m *Mount) {
	defer close(l.done)
	var reads sync.WaitGroup
	defer reads.Wait()
	tick := time.NewTicker(time.Second / readsPerSecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			// A read that has begun is completed: only then does it count.
			reads.Go(func() { l.read(context.WithoutCancel(ctx), m) })
		}
	}
}

func (l *Load) read(ctx context.Context, m *Mount) {
	begun := time.Now()
	response, err := m.Request(ctx, http.MethodGet, "creds/"+l.role, nil)
	if err == nil && response.Status != http.StatusOK {
		err = fmt.Errorf("%d %s", response.Status, response.ErrorText())
	}
	if token, _ := response.Data["access_token"].(string); err == nil && token == "" {
		err = errors.New("no access token")
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.reads++
	if err != nil {
		l.failures = append(l.failures, fmt.Sprintf("%s after %s: %v",
			begun.Format(time.TimeOnly), time.Since(begun).Round(time.Millisecond), err))
	}
}

// End stops the load, and requires a number of reads that is a load, each of them successful.
func (l *Load) End(t *testing.T) {
	t.Helper()
	l.EndWith(t, 0)
}

// EndWith is End for a load of which a share may fail.
func (l *Load) EndWith(t *testing.T, share float64) {
	t.Helper()
	require.Eventually(t, func() bool {
		l.mu.Lock()
		defer l.mu.Unlock()
		return l.reads > readsPerSecond
	}, 30*time.Second, 50*time.Millisecond, "what it accompanied may have taken no time")
	l.stop()
	<-l.done
	l.mu.Lock()
	defer l.mu.Unlock()
	t.Logf("%d reads, %d failed", l.reads, len(l.failures))
	require.LessOrEqual(t, float64(len(l.failures)), share*float64(l.reads),
		"%d of %d reads failed, such as %v", len(l.failures), l.reads,
		l.failures[:min(3, len(l.failures))])
}

// EventuallyActive waits until a version of a key is active, and returns the key.
func (m *Mount) EventuallyActive(
	t *testing.T, name string, version int, within time.Duration,
) Response {
	t.Helper()
	what := fmt.Sprintf("version %d active", version)
	return m.eventually(t, name, within, what, func(key Response) bool {
		return key.Data["active_version"] == float64(version)
	})
}

// EventuallyAccepted waits until the provider has accepted a version of a key, and returns the key.
func (m *Mount) EventuallyAccepted(
	t *testing.T, name string, version int, within time.Duration,
) Response {
	t.Helper()
	what := fmt.Sprintf("version %d accepted", version)
	return m.eventually(t, name, within, what, func(Response) bool {
		return m.Versions(t, name).Version(t, version, "accepted_time") != ""
	})
}

func (m *Mount) eventually(
	t *testing.T, name string, within time.Duration, what string, holds func(key Response) bool,
) (key Response) {
	t.Helper()
	require.Eventually(t, func() bool {
		key = m.Read(t, "keys/"+name)
		return holds(key)
	}, within, 100*time.Millisecond, what)
	return key
}

// Sleep pauses the test, at the latest until it is canceled.
func Sleep(t *testing.T, d time.Duration) {
	t.Helper()
	select {
	case <-time.After(d):
	case <-t.Context().Done():
	}
}

// Slow reports whether the longer forms of the tests are requested.
func Slow() bool { return os.Getenv("SLOW") == "true" }
