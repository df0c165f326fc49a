package integrationtest

import (
	"crypto/rand"
	"encoding/json"
	"encoding/pem"
	"maps"
	"math/big"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bcgov/vault-plugin-bcgov-jwt/integrationtest/idp"
	"github.com/bcgov/vault-plugin-bcgov-jwt/integrationtest/keycloak"
)

// TestManualRotationFailsNoRead replaces the registered key at Keycloak, back, and forth again, while creds is read all the time. That the old private key is gone
// from storage after retire_after is held in process, with the clock moved: the least retire_after and the minute's background run are too long to wait for here.
func TestManualRotationFailsNoRead(t *testing.T) {
	t.Parallel()
	kc := realKeycloak(t)
	m := newMount(t, kc.config)
	name := "rotated-" + rand.Text() // the server's log is all tests'
	clientID := m.newClient(t, kc, name, nil)
	reads := m.startLoad(t, name)
	first := m.eventuallyAccepted(t, name, 1, 10*time.Second)

	rotated := m.write(t, "keys/"+name+"/rotate", nil)
	require.Equal(t, 2, rotated.number(t, "staged_version"))
	require.Equal(t, 1, rotated.number(t, "active_version"))
	require.NotEqual(t, first.text(t, "public_key"), rotated.text(t, "public_key"))
	pass(t, arbitrary(t, 2*time.Second))
	require.Equal(t, first.text(t, "key_id"), m.read(t, "creds/"+name).text(t, "key_id"), "until the new key is registered")

	m.paste(t, kc, clientID, name, rotated)
	switched := m.eventuallyActive(t, name, 2, 5*time.Second)
	require.Equal(t, "provider", switched.version(t, 2, "activated_by"))
	require.NotEmpty(t, switched.version(t, 2, "accepted_time"))
	require.Equal(t, "retired", switched.version(t, 1, "state"))
	require.NotEmpty(t, switched.version(t, 1, "expire_time"))
	stored := m.mustBeStored(t, "key/"+name)
	pass(t, 2*time.Second)
	require.Equal(t, stored, m.mustBeStored(t, "key/"+name), "stored once")
	lines := shared.Vault.switches(t, name)
	require.Equal(t, []string{"1→2"}, directions(lines))
	require.Equal(t, name, lines[0].role)

	// The old key is pasted again. It is stored at most a minute after the switch before; the reads do not wait for that.
	m.paste(t, kc, clientID, name, first)
	back := m.eventuallyActive(t, name, 1, 70*time.Second)
	require.Equal(t, "staged", back.version(t, 2, "state"), "the refused one is staged again")
	require.Empty(t, back.version(t, 2, "accepted_time"))
	lines = shared.Vault.switches(t, name)
	require.Equal(t, []string{"1→2", "2→1"}, directions(lines))
	require.GreaterOrEqual(t, lines[1].at.Sub(lines[0].at), time.Minute-time.Second)

	m.paste(t, kc, clientID, name, rotated)
	pass(t, time.Second)
	reads.end(t)
}

// paste registers a key at Keycloak, and reads until it signs, which is the very next read as a rule. Under load Keycloak may go on with the old key: a request
// that it was answering when the new one was saved puts the old one back into its cache. Nothing fails then, and saving again helps.
func (m *mount) paste(t *testing.T, kc *provider, clientID, role string, key answer) {
	t.Helper()
	require.Eventually(t, func() bool {
		kc.register(t, clientID, key.text(t, "public_key"))
		return m.read(t, "creds/"+role).text(t, "key_id") == key.text(t, "key_id")
	}, 10*time.Second, 500*time.Millisecond)
}

// arbitrary is a random time up to a limit.
func arbitrary(t *testing.T, limit time.Duration) time.Duration {
	t.Helper()
	n, err := rand.Int(rand.Reader, big.NewInt(int64(limit)))
	require.NoError(t, err)
	return time.Duration(n.Int64())
}

// TestNodesOfTheProviderDisagree has a load balancer before one node that knows the old key, and one that knows the new one.
func TestNodesOfTheProviderDisagree(t *testing.T) {
	t.Parallel()
	balancers := map[string]func(*testing.T) func() int{
		"in turns": func(*testing.T) func() int {
			var requests atomic.Int64
			return func() int { return int(requests.Add(1) % 2) }
		},
		"at random": func(t *testing.T) func() int {
			return func() int { return int(arbitrary(t, 2)) }
		},
	}
	for how, balancer := range balancers {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			p, nodes := twoNodes(t, balancer(t))
			m := newMount(t, p.config)
			name := "torn-" + rand.Text()
			clientID := m.newClient(t, p, name, map[string]any{"type": "ecdsa-p256"})
			reads := m.startLoad(t, name)
			m.eventuallyAccepted(t, name, 1, 10*time.Second)

			rotated := m.write(t, "keys/"+name+"/rotate", nil)
			require.NoError(t, nodes[1].PutClient(testRealm, keycloak.PortalClient(clientID, rotated.text(t, "public_key"))))
			m.eventuallyActive(t, name, 2, 10*time.Second)
			if soaking() {
				pass(t, 3*time.Minute)
			} else {
				pass(t, 25*time.Second)
			}
			reads.end(t)

			lines := shared.Vault.switches(t, name)
			require.NotEmpty(t, lines)
			require.Equal(t, "1→2", directions(lines)[0])
			for i := range lines[1:] {
				require.GreaterOrEqual(t, lines[i+1].at.Sub(lines[i].at), time.Minute-time.Second, "stored switches: %v", directions(lines))
			}
			key := m.read(t, "keys/"+name)
			require.Len(t, key.data["versions"], 2, "nothing that a node accepts is lost")
		})
	}
}

// twoNodes is an embedded provider of two nodes. What is registered there is registered at both.
func twoNodes(t *testing.T, next func() int) (*provider, [2]*idp.Server) {
	t.Helper()
	var nodes [2]*idp.Server
	for i := range nodes {
		nodes[i] = idp.New(idp.Options{})
		t.Cleanup(nodes[i].Close)
		require.NoError(t, nodes[i].AddRealm(testRealm))
	}
	base := serve(t, func(w http.ResponseWriter, r *http.Request) { nodes[next()].ServeHTTP(w, r) })
	p := &provider{issuer: base + "/realms/" + testRealm, config: map[string]any{"allow_insecure_endpoints": true}}
	p.put = registerAtAll(nodes[:]...)
	return p, nodes
}

// TestDestroyedVersionStaysGone destroys the version that a read signed with, while the provider's answer is on its way.
func TestDestroyedVersionStaysGone(t *testing.T) {
	t.Parallel()
	rows := []struct {
		name      string
		activate  bool // version 2, so that version 1 is a retired one
		doomed    int
		remaining int
	}{
		{"the staged one, which the provider knows", false, 2, 1},
		{"the retired one, which the provider knows", true, 1, 2},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			hold := newHold()
			p := heldProvider(t, hold)
			m := newMount(t, p.config)
			name := "destroyed-" + rand.Text()
			clientID := m.newClient(t, p, name, map[string]any{"type": "ecdsa-p256"})
			m.read(t, "creds/"+name)
			rotated := m.write(t, "keys/"+name+"/rotate", nil)
			m.showKeysNow(t)
			if row.activate {
				m.write(t, "keys/"+name+"/activate", map[string]any{"force": true})
			} else {
				p.register(t, clientID, rotated.text(t, "public_key"))
			}

			answers := make(chan answer, 1)
			hold.on()
			go func() {
				got, err := m.request(t.Context(), http.MethodGet, "/v1/"+m.path+"/creds/"+name, nil, nil)
				if err != nil {
					got.errors = append(got.errors, err.Error())
				}
				answers <- got
			}()
			select {
			case <-hold.held:
			case <-time.After(10 * time.Second):
				require.Fail(t, "the provider was not asked for a token that it gives")
			}
			m.write(t, "keys/"+name+"/destroy", map[string]any{"version": row.doomed})
			stored := m.mustBeStored(t, "key/"+name)
			hold.release()
			got := <-answers
			require.Empty(t, got.errors, "the token was good")

			require.Equal(t, stored, m.mustBeStored(t, "key/"+name), "what the read learned was stored")
			key := m.read(t, "keys/"+name)
			require.Equal(t, row.remaining, key.number(t, "active_version"))
			require.Zero(t, key.number(t, "staged_version"))
			require.Len(t, key.data["versions"], 1)
			require.Empty(t, shared.Vault.switches(t, name))
			m.requireVersionsStored(t, name, row.remaining)
			require.Equal(t, http.StatusBadRequest, m.do(t, http.MethodGet, "creds/"+name, nil, nil).status, "the provider knows the destroyed one only")
		})
	}
}

// requireVersionsStored looks at the storage itself.
func (m *mount) requireVersionsStored(t *testing.T, name string, numbers ...int) {
	t.Helper()
	var entry struct {
		Versions []struct {
			Number int `json:"number"`
		} `json:"versions"`
	}
	require.NoError(t, json.Unmarshal([]byte(m.mustBeStored(t, "key/"+name)), &entry))
	var stored []int
	for _, version := range entry.Versions {
		stored = append(stored, version.Number)
	}
	require.Equal(t, numbers, stored)
}

// hold keeps the provider's answers back while it is on.
type hold struct {
	held chan struct{} // has one element when an answer is kept back

	mu   sync.Mutex
	gate chan struct{} // nil: off
}

func newHold() *hold { return &hold{held: make(chan struct{}, 1)} }

func (h *hold) on() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.gate = make(chan struct{})
}

func (h *hold) release() {
	h.mu.Lock()
	defer h.mu.Unlock()
	close(h.gate)
	h.gate = nil
}

// tokens passes requests on, and keeps back the answers that give a token.
func (h *hold) tokens(next http.Handler) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		recorded := httptest.NewRecorder()
		next.ServeHTTP(recorded, r)
		h.mu.Lock()
		gate := h.gate
		h.mu.Unlock()
		if gate != nil && recorded.Code == http.StatusOK && strings.HasSuffix(r.URL.Path, "/token") {
			h.held <- struct{}{}
			select {
			case <-gate:
			case <-r.Context().Done():
			}
		}
		maps.Copy(w.Header(), recorded.Header())
		w.WriteHeader(recorded.Code)
		_, _ = w.Write(recorded.Body.Bytes())
	}
}

// heldProvider is an embedded provider whose tokens can be kept back.
func heldProvider(t *testing.T, h *hold) *provider {
	t.Helper()
	server := idp.New(idp.Options{})
	t.Cleanup(server.Close)
	require.NoError(t, server.AddRealm(testRealm))
	base := serve(t, h.tokens(server))
	return &provider{issuer: base + "/realms/" + testRealm, config: map[string]any{"allow_insecure_endpoints": true}, put: registerAtAll(server)}
}

// TestVersionsAreCountedOn: eleven rotations need a destruction, and no number comes again.
func TestVersionsAreCountedOn(t *testing.T) {
	t.Parallel()
	m := newMount(t, nil)
	m.write(t, "keys/myapi", map[string]any{"type": "ed25519"})
	seen := map[string]bool{}
	for version := 2; version <= 10; version++ {
		rotated := m.write(t, "keys/myapi/rotate", nil)
		require.Equal(t, version, rotated.number(t, "staged_version"))
		again := m.write(t, "keys/myapi/rotate", nil)
		require.Equal(t, rotated.text(t, "public_key"), again.text(t, "public_key"), "one staged already")
		requireNames(t, strings.Join(again.warnings, " "), "Version "+strconv.Itoa(version)+" was staged already")
		require.False(t, seen[rotated.text(t, "key_id")])
		seen[rotated.text(t, "key_id")] = true
		m.write(t, "keys/myapi/activate", map[string]any{"force": true})
	}
	m.showKeysNow(t)
	m.refuses(t, "destroy", "write", "-f", "{mount}/keys/myapi/rotate")
	m.refuses(t, "active", "write", "{mount}/keys/myapi/destroy", "version=10")
	m.succeeds(t, "write", "{mount}/keys/myapi/destroy", "version=3")
	require.Equal(t, 11, m.write(t, "keys/myapi/rotate", nil).number(t, "staged_version"))
	m.showKeysNow(t)
	m.succeeds(t, "write", "{mount}/keys/myapi/destroy", "version=11")
	require.Equal(t, 12, m.write(t, "keys/myapi/rotate", nil).number(t, "staged_version"))
	shown := m.read(t, "keys/myapi").text(t, "public_key")
	block, _ := pem.Decode([]byte(shown))
	require.NotNil(t, block)
	require.NotEqual(t, shown, m.succeeds(t, "read", "-field=public_key", "{mount}/keys/myapi", "version=10"))
}
