package cluster

import (
	"net/http"
	"path"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/bcgov/vault-plugin-bcgov-jwt/integrationtest/harness"
)

// seenWithin is how long another node may take to see a write: OpenBao's standbys read their own
// storage.
const seenWithin = 10 * time.Second

// standbysServe reports whether the host's standbys answer reads themselves.
func standbysServe() bool { return harness.Vault().Host == harness.OpenBao }

// engine is one mount of a cluster, as a client of each node uses it.
type engine struct {
	cluster harness.Cluster
	on      []*harness.Mount // in the order of the nodes
}

// newEngine mounts the plugin and waits until each node has it and its configuration.
func newEngine(t *testing.T, c harness.Cluster, path string, config map[string]any) engine {
	t.Helper()
	return newEngineIn(t, c, "", path, config)
}

// newEngineIn is newEngine for a namespace.
func newEngineIn(
	t *testing.T, c harness.Cluster, namespace, path string, config map[string]any,
) engine {
	t.Helper()
	m := c.Active(t).NewMountIn(t, namespace, path)
	m.Write(t, "config", config)
	e := engine{cluster: c}
	for _, v := range c {
		e.on = append(e.on, m.On(t, v))
	}
	e.awaitSame(t, seenWithin, "config")
	return e
}

// through returns the mount as a client of a node uses it.
func (e engine) through(v *harness.RaftVault) *harness.Mount {
	for i, node := range e.cluster {
		if node == v {
			return e.on[i]
		}
	}
	panic("not a node of the cluster")
}

// eventually waits until a read of a path through each node is as it should be.
func (e engine) eventually(
	t *testing.T, within time.Duration, path string, holds func(got harness.Response) bool,
) {
	t.Helper()
	for i, m := range e.on {
		require.Eventually(t, func() bool { return holds(m.Do(t, http.MethodGet, path, nil, nil)) },
			within, 20*time.Millisecond, "%s through %s", path, e.cluster[i].Name)
	}
}

// awaitSame waits until each node returns the same: what the active node does.
func (e engine) awaitSame(t *testing.T, within time.Duration, paths ...string) {
	t.Helper()
	for _, path := range paths {
		require.Eventually(t, func() bool {
			want := e.on[0].Do(t, http.MethodGet, path, nil, nil)
			return !slices.ContainsFunc(e.on, func(m *harness.Mount) bool {
				got := m.Do(t, http.MethodGet, path, nil, nil)
				return got.Status != http.StatusOK || !assert.ObjectsAreEqual(want.Data, got.Data)
			})
		}, within, 20*time.Millisecond, "%s is the same on each node", path)
	}
}

// counter passes requests to a provider and counts them by the last element of their path.
type counter struct {
	next http.Handler

	mu     sync.Mutex
	counts map[string]int
}

func (c *counter) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c.mu.Lock()
	c.counts[path.Base(r.URL.Path)]++
	c.mu.Unlock()
	c.next.ServeHTTP(w, r)
}

// count returns how often an endpoint was called, such as token.
func (c *counter) count(endpoint string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.counts[endpoint]
}

// countedProvider returns an embedded provider of this test alone.
func countedProvider(t *testing.T) (*harness.Provider, *counter) {
	t.Helper()
	server := harness.NewEmbeddedServer(t)
	requests := &counter{next: server, counts: map[string]int{}}
	return harness.ProviderAt(harness.Serve(t, requests.ServeHTTP), server), requests
}
