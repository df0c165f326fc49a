package delivery

import (
	"net/http"
	"net/http/httptest"
	"path"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/bcgov/vault-plugin-bcgov-jwt/integrationtest/harness"
)

// gate stands between Vault and a provider. It counts requests, and can be closed.
type gate struct {
	next http.Handler

	mu      sync.Mutex
	arrived map[string][]time.Time // by the last element of the path
	opened  chan struct{}          // closed when the gate opens; nil while it is open
	silent  bool                   // how it is closed
}

func newGate(next http.Handler) *gate {
	return &gate{next: next, arrived: map[string][]time.Time{}}
}

func (g *gate) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	g.mu.Lock()
	endpoint := path.Base(r.URL.Path)
	g.arrived[endpoint] = append(g.arrived[endpoint], time.Now())
	opened, silent := g.opened, g.silent
	g.mu.Unlock()
	if opened != nil && !silent {
		panic(http.ErrAbortHandler)
	}
	if opened != nil {
		select {
		case <-opened:
		case <-r.Context().Done():
			return
		}
	}
	g.next.ServeHTTP(w, r)
}

// cut breaks each connection, as a firewall that resets them does.
func (g *gate) cut() { g.close(false) }

// silence accepts requests, and holds them until the gate opens.
func (g *gate) silence() { g.close(true) }

func (g *gate) close(silent bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.opened, g.silent = make(chan struct{}), silent
}

func (g *gate) open() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.opened != nil {
		close(g.opened)
		g.opened = nil
	}
}

// requests returns the times at which requests to an endpoint arrived, such as token.
func (g *gate) requests(endpoint string) []time.Time {
	g.mu.Lock()
	defer g.mu.Unlock()
	return slices.Clone(g.arrived[endpoint])
}

// gatedKeycloak returns Keycloak behind a gate of this test.
func gatedKeycloak(t *testing.T) (p *harness.Provider, g *gate) {
	t.Helper()
	p = harness.KeycloakBehind(t, func(next http.Handler) http.Handler {
		g = newGate(next)
		return g
	})
	t.Cleanup(g.open) // the server's end waits for the requests that it serves
	return p, g
}

// unobservedProvider returns an embedded provider behind a gate, whose tokens are too many for the
// leak detector.
func unobservedProvider(t *testing.T) (*harness.Provider, *gate, *httptest.Server) {
	t.Helper()
	server := harness.NewEmbeddedServer(t)
	g := newGate(server)
	host := httptest.NewServer(g)
	t.Cleanup(host.Close)
	t.Cleanup(g.open) // host.Close waits for the requests that it serves
	return harness.ProviderAt(host.URL, server), g, host
}
