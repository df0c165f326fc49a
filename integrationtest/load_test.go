package integrationtest

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// readsPerSecond is how often a load reads, however long a read takes.
const readsPerSecond = 20

// load reads creds of a role all the time, each read once, and keeps what failed.
type load struct {
	role string
	stop context.CancelFunc
	done chan struct{}

	mu       sync.Mutex
	reads    int
	failures []string
	slowest  time.Duration
}

// startLoad reads until the load is ended, at the latest with the test.
func (m *mount) startLoad(t *testing.T, role string) *load {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	l := &load{role: role, stop: stop, done: make(chan struct{})}
	go l.run(ctx, m)
	t.Cleanup(func() {
		stop()
		<-l.done
	})
	return l
}

func (l *load) run(ctx context.Context, m *mount) {
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
			// A read that was begun is ended: only so does it count.
			reads.Go(func() { l.read(context.WithoutCancel(ctx), m) })
		}
	}
}

func (l *load) read(ctx context.Context, m *mount) {
	begun := time.Now()
	got, err := m.request(ctx, http.MethodGet, "/v1/"+m.path+"/creds/"+l.role, nil, nil)
	if err == nil && got.status != http.StatusOK {
		err = fmt.Errorf("%d %s", got.status, got.errorText())
	}
	if token, _ := got.data["access_token"].(string); err == nil && token == "" {
		err = errors.New("no access token")
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.reads++
	l.slowest = max(l.slowest, time.Since(begun))
	if err != nil {
		l.failures = append(l.failures, fmt.Sprintf("%s after %s: %v", begun.Format(time.TimeOnly), time.Since(begun).Round(time.Millisecond), err))
	}
}

// end stops the load, and wants it to have been one, and each of its reads a success.
func (l *load) end(t *testing.T) {
	t.Helper()
	require.Eventually(t, func() bool {
		l.mu.Lock()
		defer l.mu.Unlock()
		return l.reads > readsPerSecond
	}, 30*time.Second, 50*time.Millisecond, "what it went along with may have been over in a moment")
	l.stop()
	<-l.done
	l.mu.Lock()
	defer l.mu.Unlock()
	require.Empty(t, l.failures[:min(3, len(l.failures))], "%d of %d reads failed", len(l.failures), l.reads)
}

// pass lets the load run on for a while.
func pass(t *testing.T, d time.Duration) {
	t.Helper()
	select {
	case <-time.After(d):
	case <-t.Context().Done():
	}
}

// soaking says whether the longer forms of the tests are asked for.
func soaking() bool { return os.Getenv("SOAKTIME") != "" }

// version is a field of one version in a key's answer.
func (a answer) version(t *testing.T, number int, field string) string {
	t.Helper()
	versions, ok := a.data["versions"].(map[string]any)
	require.True(t, ok, "versions is no map")
	version, ok := versions[fmt.Sprint(number)].(map[string]any)
	require.True(t, ok, "there is no version %d", number)
	text, ok := version[field].(string)
	require.True(t, ok, "%s of version %d is no string", field, number)
	return text
}

// number is a field of an answer that is a whole number.
func (a answer) number(t *testing.T, field string) int {
	t.Helper()
	number, ok := a.data[field].(float64)
	require.True(t, ok, "%s is no number", field)
	return int(number)
}

// eventually reads a key until what is wanted holds of it.
func (m *mount) eventually(t *testing.T, name string, within time.Duration, what string, holds func(answer) bool) answer {
	t.Helper()
	var got answer
	require.Eventually(t, func() bool {
		got = m.read(t, "keys/"+name)
		return holds(got)
	}, within, 100*time.Millisecond, what)
	return got
}

func (m *mount) eventuallyActive(t *testing.T, name string, version int, within time.Duration) answer {
	t.Helper()
	return m.eventually(t, name, within, fmt.Sprintf("version %d active", version), func(key answer) bool {
		return key.data["active_version"] == float64(version)
	})
}

func (m *mount) eventuallyAccepted(t *testing.T, name string, version int, within time.Duration) answer {
	t.Helper()
	return m.eventually(t, name, within, fmt.Sprintf("version %d accepted", version), func(key answer) bool {
		return key.version(t, version, "accepted_time") != ""
	})
}

// storedSwitch is a line of the server's log about a version that became active because the provider accepts it.
type storedSwitch struct {
	at                        time.Time
	from, to, role, requestID string
}

// switches are the lines of that kind about a key. Its name must be no other test's.
func (v *vaultServer) switches(t *testing.T, key string) []storedSwitch {
	t.Helper()
	log, err := os.ReadFile(v.logFile())
	require.NoError(t, err)
	pair := regexp.MustCompile(`(\w+)=(\S+)`)
	var found []storedSwitch
	for line := range strings.Lines(string(log)) {
		before, after, isSwitch := strings.Cut(line, "active version changed by provider acceptance")
		// The plugin's logger hands its fields over without an order.
		fields := map[string]string{}
		for _, match := range pair.FindAllStringSubmatch(after, -1) {
			fields[match[1]] = match[2]
		}
		if !isSwitch || fields["key"] != key {
			continue
		}
		stamp, level, _ := strings.Cut(before, " ")
		require.True(t, strings.HasPrefix(level, "[INFO]"), line)
		at, err := time.Parse("2006-01-02T15:04:05.000Z0700", stamp)
		require.NoError(t, err)
		require.NotEmpty(t, fields["request_id"])
		found = append(found, storedSwitch{at, fields["from"], fields["to"], fields["role"], fields["request_id"]})
	}
	return found
}

// directions are the switches as from→to.
func directions(switches []storedSwitch) []string {
	var all []string
	for _, s := range switches {
		all = append(all, s.from+"→"+s.to)
	}
	return all
}
