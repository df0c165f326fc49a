package backend

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bcgov/vault-plugin-bcgov-jwt/integrationtest/idp"
	"github.com/bcgov/vault-plugin-bcgov-jwt/integrationtest/keycloak"
	"github.com/stretchr/testify/require"
)

// provider is the identity provider of a test. It records requests.
type provider struct {
	*httptest.Server
	idp         *idp.Server
	clock       *clock
	tb          testing.TB
	connections atomic.Int64 // ever opened
	open        atomic.Int64

	mu        sync.Mutex
	received  []received
	intercept http.HandlerFunc // answers in the provider's place if it writes a header
}

// received is a recorded request.
type received struct {
	method string
	path   string // behind the issuer
	form   url.Values
}

const realmPath = "/realms/apigw"

// providerKey signs the tokens of all tests.
var providerKey = sync.OnceValue(func() *rsa.PrivateKey {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	return key
})

func newProvider(tb testing.TB, options idp.Options) *provider {
	tb.Helper()
	clock := &clock{}
	options.SigningKey, options.Now = providerKey(), clock.now
	p := &provider{tb: tb, idp: idp.New(options), clock: clock}
	require.NoError(tb, p.idp.AddRealm("apigw"))
	p.Server = httptest.NewUnstartedServer(http.HandlerFunc(p.serve))
	p.Config.ErrorLog = log.New(io.Discard, "", 0)
	p.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		switch state {
		case http.StateNew:
			p.connections.Add(1)
			p.open.Add(1)
		case http.StateClosed:
			p.open.Add(-1)
		}
	}
	p.Start()
	tb.Cleanup(func() {
		p.CloseClientConnections() // a request may still wait for its answer
		p.Close()
		p.idp.Close()
	})
	return p
}

func (p *provider) serve(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body) // the provider rejects what cannot be read
	r.Body = io.NopCloser(bytes.NewReader(body))
	form, _ := url.ParseQuery(string(body))
	p.mu.Lock()
	p.received = append(p.received, received{r.Method, strings.TrimPrefix(r.URL.Path, realmPath), form})
	intercept := p.intercept
	p.mu.Unlock()
	if intercept != nil {
		tracked := &trackedWriter{ResponseWriter: w}
		if intercept(tracked, r); tracked.wrote {
			return
		}
	}
	p.idp.ServeHTTP(w, r)
}

// trackedWriter records whether a handler has answered.
type trackedWriter struct {
	http.ResponseWriter
	wrote bool
}

func (w *trackedWriter) WriteHeader(status int) {
	w.wrote = true
	w.ResponseWriter.WriteHeader(status)
}

func (p *provider) interceptWith(handler http.HandlerFunc) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.intercept = handler
}

// answerWith sets the response of a path behind the issuer.
func (p *provider) answerWith(path string, status int, contentType, body string) {
	p.interceptWith(func(w http.ResponseWriter, r *http.Request) {
		if strings.TrimPrefix(r.URL.Path, realmPath) != path {
			return
		}
		w.Header().Set("Content-Type", contentType)
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	})
}

// requests returns those to a path behind the issuer; to any path for "".
func (p *provider) requests(path string) []received {
	p.mu.Lock()
	defer p.mu.Unlock()
	var found []received
	for _, r := range p.received {
		if path == "" || r.path == path {
			found = append(found, r)
		}
	}
	return found
}

const (
	tokenPath      = "/protocol/openid-connect/token"
	revocationPath = "/protocol/openid-connect/revoke"
	discoveryPath  = "/.well-known/openid-configuration"
)

func (p *provider) issuer() string { return p.URL + realmPath }

// otherIssuer returns an issuer at whose discovery document the provider names issuer.
func (p *provider) otherIssuer() string {
	return strings.Replace(p.issuer(), "/apigw", "/%61pigw", 1)
}

// register registers the key at the provider, as the portal does, with changes of the client.
func (p *provider) register(m *mount, key, clientID string, changes ...func(*keycloak.Client)) {
	p.tb.Helper()
	client := keycloak.PortalClient(clientID, m.read("keys/" + key).Data["public_key"].(string))
	for _, change := range changes {
		change(&client)
	}
	require.NoError(p.tb, p.idp.PutClient("apigw", client))
}

// registerVersion registers one version of the key "myapi", as the portal does when its public key is pasted.
func (p *provider) registerVersion(m *mount, version int) {
	p.tb.Helper()
	publicKey := m.publicKey("myapi", version)
	require.NoError(p.tb, p.idp.PutClient("apigw", keycloak.PortalClient("my-client", publicKey)))
}

// holdToken holds the n-th token request from now on, until release is called.
func (p *provider) holdToken(n int64) (arrived <-chan struct{}, release func()) {
	came, released := make(chan struct{}), make(chan struct{})
	var seen atomic.Int64
	p.interceptWith(func(_ http.ResponseWriter, r *http.Request) {
		if strings.TrimPrefix(r.URL.Path, realmPath) == tokenPath && seen.Add(1) == n {
			close(came)
			<-released
		}
	})
	release = sync.OnceFunc(func() { close(released) })
	p.tb.Cleanup(release)
	return came, release
}

// active asks the provider whether a token is valid.
func (p *provider) active(token string) bool {
	p.tb.Helper()
	require.NoError(p.tb, p.idp.PutClient("apigw", keycloak.SecretClient("inspector", "secret")))
	form := url.Values{"client_id": {"inspector"}, "client_secret": {"secret"}, "token": {token}}
	r := httptest.NewRequest(http.MethodPost, p.issuer()+"/protocol/openid-connect/token/introspect", strings.NewReader(form.Encode()))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	w := httptest.NewRecorder()
	p.idp.ServeHTTP(w, r)
	require.Equal(p.tb, http.StatusOK, w.Code)
	var answer struct {
		Active bool `json:"active"`
	}
	require.NoError(p.tb, json.Unmarshal(w.Body.Bytes(), &answer))
	return answer.Active
}

// pass advances the clocks, here and at the provider.
func pass(m *mount, p *provider, d time.Duration) {
	m.clock.advance(d)
	p.clock.advance(d)
}
