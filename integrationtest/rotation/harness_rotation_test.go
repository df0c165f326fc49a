package rotation

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"maps"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bcgov/vault-plugin-bcgov-jwt/integrationtest/harness"
	"github.com/bcgov/vault-plugin-bcgov-jwt/integrationtest/idp"
)

// activation is a line of the server's log about a version that became active because the provider
// accepts it.
type activation struct {
	at             time.Time
	from, to, role string
}

// activationsOf returns the lines of that kind about a key, whose name no other test may use.
func activationsOf(t *testing.T, key string) []activation {
	t.Helper()
	log, err := os.ReadFile(harness.Vault().LogFile())
	require.NoError(t, err)
	pair := regexp.MustCompile(`(\w+)=(\S+)`)
	var found []activation
	for line := range strings.Lines(string(log)) {
		before, after, isActivation := strings.Cut(line, "active version changed by provider acceptance")
		// The plugin's logger passes its fields without an order.
		fields := map[string]string{}
		for _, match := range pair.FindAllStringSubmatch(after, -1) {
			fields[match[1]] = match[2]
		}
		if !isActivation || fields["key"] != key {
			continue
		}
		stamp, level, _ := strings.Cut(before, " ")
		require.True(t, strings.HasPrefix(level, "[INFO]"), line)
		at, err := time.Parse("2006-01-02T15:04:05.000Z0700", stamp)
		require.NoError(t, err)
		require.NotEmpty(t, fields["request_id"])
		found = append(found, activation{at, fields["from"], fields["to"], fields["role"]})
	}
	return found
}

// directions returns activations as from→to.
func directions(activations []activation) []string {
	var all []string
	for _, a := range activations {
		all = append(all, a.from+"→"+a.to)
	}
	return all
}

// keyIDOf returns the kid of a public key, which Keycloak derives in the same way.
func keyIDOf(publicKey string) (string, error) {
	block, _ := pem.Decode([]byte(publicKey))
	if block == nil {
		return "", errors.New("not PEM")
	}
	digest := sha256.Sum256(block.Bytes)
	return base64.RawURLEncoding.EncodeToString(digest[:]), nil
}

// newMount returns a mount that waits for a Keycloak on a busy machine.
func newMount(t *testing.T, kc *harness.Provider) *harness.Mount {
	t.Helper()
	m := harness.NewMount(t, kc.Config)
	m.Write(t, "config", map[string]any{"request_timeout": "45s"})
	return m
}

// promptly is how long what happens at the next read may take on a busy machine: if it cannot be
// stored within five seconds, it is a minute later.
const promptly = 75 * time.Second

// betweenSwitches is the least time between the log lines of two stored switches: a minute, less
// what storing takes at most, which a line follows.
const betweenSwitches = 55 * time.Second

// paste registers a key with Keycloak, and reads until it signs, which is normally the very next
// read. Under load Keycloak may continue with the old key: a request that it was serving when the
// new one was saved puts the old one back into its cache. Nothing fails then, and saving again
// helps.
func paste(
	t *testing.T, m *harness.Mount, kc *harness.Provider, clientID, role string,
	key harness.Response,
) {
	t.Helper()
	require.Eventually(t, func() bool {
		kc.Register(t, clientID, key.Text(t, "public_key"))
		return m.Read(t, "creds/"+role).Text(t, "key_id") == key.Text(t, "key_id")
	}, promptly, 500*time.Millisecond)
}

// randomDuration returns a random duration below a limit.
func randomDuration(t *testing.T, limit time.Duration) time.Duration {
	t.Helper()
	n, err := rand.Int(rand.Reader, big.NewInt(int64(limit)))
	require.NoError(t, err)
	return time.Duration(n.Int64())
}

// twoNodes returns an embedded provider of two nodes, behind a load balancer that picks the next
// one. A client is registered at both.
func twoNodes(t *testing.T, next func() int) (*harness.Provider, [2]*idp.Server) {
	t.Helper()
	nodes := [2]*idp.Server{harness.NewEmbeddedServer(t), harness.NewEmbeddedServer(t)}
	baseURL := harness.Serve(t, func(w http.ResponseWriter, r *http.Request) {
		nodes[next()].ServeHTTP(w, r)
	})
	return harness.ProviderAt(baseURL, nodes[:]...), nodes
}

// requireVersionsStored reads the storage itself.
func requireVersionsStored(t *testing.T, m *harness.Mount, name string, numbers ...int) {
	t.Helper()
	var entry struct {
		Versions []struct {
			Number int `json:"number"`
		} `json:"versions"`
	}
	require.NoError(t, json.Unmarshal([]byte(m.Stored(t, "key/"+name)), &entry))
	var stored []int
	for _, version := range entry.Versions {
		stored = append(stored, version.Number)
	}
	require.Equal(t, numbers, stored)
}

// tokenHold holds the provider's responses between begin and release.
type tokenHold struct {
	held chan struct{} // has one element while a response is held

	mu       sync.Mutex
	released chan struct{} // nil outside begin and release
}

func newTokenHold() *tokenHold { return &tokenHold{held: make(chan struct{}, 1)} }

func (h *tokenHold) begin() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.released = make(chan struct{})
}

func (h *tokenHold) release() {
	h.mu.Lock()
	defer h.mu.Unlock()
	close(h.released)
	h.released = nil
}

// tokens passes requests on, and holds the responses that issue a token.
func (h *tokenHold) tokens(next http.Handler) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		recorded := httptest.NewRecorder()
		next.ServeHTTP(recorded, r)
		h.mu.Lock()
		released := h.released
		h.mu.Unlock()
		if released != nil && recorded.Code == http.StatusOK && strings.HasSuffix(r.URL.Path,
			"/token") {
			h.held <- struct{}{}
			select {
			case <-released:
			case <-r.Context().Done():
			}
		}
		maps.Copy(w.Header(), recorded.Header())
		w.WriteHeader(recorded.Code)
		_, _ = w.Write(recorded.Body.Bytes())
	}
}

// heldProvider returns an embedded provider whose tokens can be held.
func heldProvider(t *testing.T, h *tokenHold) *harness.Provider {
	t.Helper()
	server := harness.NewEmbeddedServer(t)
	return harness.ProviderAt(harness.Serve(t, h.tokens(server)), server)
}
