package exchange

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bcgov/vault-plugin-bcgov-jwt/backend/internal/keyring"
	"github.com/bcgov/vault-plugin-bcgov-jwt/backend/internal/tokenendpoint"
	"github.com/bcgov/vault-plugin-bcgov-jwt/integrationtest/idp"
	"github.com/bcgov/vault-plugin-bcgov-jwt/integrationtest/keycloak"
	"github.com/bcgov/vault-plugin-bcgov-jwt/integrationtest/testlog"
	"github.com/go-jose/go-jose/v4"
	"github.com/hashicorp/go-hclog"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	// Importing Vault's SDK starts this worker, through a dependency.
	goleak.VerifyTestMain(m,
		goleak.IgnoreTopFunction("go.opencensus.io/stats/view.(*worker).start"))
}

const (
	realmPath      = "/realms/apigw"
	discoveryPath  = realmPath + "/.well-known/openid-configuration"
	tokenPath      = realmPath + "/protocol/openid-connect/token"
	revocationPath = realmPath + "/protocol/openid-connect/revoke"
)

// providerKey signs the tokens of all tests.
var providerKey = sync.OnceValue(func() *rsa.PrivateKey {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	return key
})

// provider is the embedded provider and the requests it received.
type provider struct {
	*httptest.Server
	idp *idp.Server

	mu        sync.Mutex
	forms     map[string][]url.Values // by path
	responses map[string]string       // JSON by path, in place of the provider's
	refuse    int                     // how many token requests fail with 503 first
}

func newProvider(t *testing.T) *provider {
	t.Helper()
	p := &provider{
		idp:       idp.New(idp.Options{SigningKey: providerKey()}),
		forms:     map[string][]url.Values{},
		responses: map[string]string{},
	}
	require.NoError(t, p.idp.AddRealm("apigw"))
	p.Server = httptest.NewUnstartedServer(http.HandlerFunc(p.serve))
	p.Config.ErrorLog = log.New(io.Discard, "", 0)
	p.Start()
	t.Cleanup(func() {
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
	p.forms[r.URL.Path] = append(p.forms[r.URL.Path], form)
	response := p.responses[r.URL.Path]
	refused := r.URL.Path == tokenPath && p.refuse > 0
	if refused {
		p.refuse--
	}
	p.mu.Unlock()
	switch {
	case refused:
		w.WriteHeader(http.StatusServiceUnavailable)
	case response != "":
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, response)
	default:
		p.idp.ServeHTTP(w, r)
	}
}

func (p *provider) issuer() string { return p.URL + realmPath }

func (p *provider) received(path string) []url.Values {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.forms[path]
}

// fixture is a registered key with all it takes to obtain a token.
type fixture struct {
	*Exchanger
	provider *provider
	client   *tokenendpoint.Client
	key      *keyring.Key
	observed *observed
}

// observed records what an Exchanger reports.
type observed struct {
	mu     sync.Mutex
	events []string
}

func (o *observed) add(event string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.events = append(o.events, event)
}

// of returns the events that begin so.
func (o *observed) of(kind string) []string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(o.events), func(event string) bool { return !strings.HasPrefix(event, kind) })
}

func (o *observed) Exchanged(_ *keyring.Key, _ time.Time, _ time.Duration, err error) {
	o.add(fmt.Sprintf("exchanged: %v", err))
}

func (o *observed) FellBack(*keyring.Key) { o.add("fell back") }

func (o *observed) Switched(*keyring.Key) { o.add("switched") }

func generate(t testing.TB) *keyring.Material {
	t.Helper()
	material, err := keyring.Generate(keyring.ED25519)
	require.NoError(t, err)
	return material
}

func newFixture(t *testing.T, changes ...func(*keyring.Settings)) *fixture {
	t.Helper()
	p := newProvider(t)
	settings := keyring.Settings{
		CommonName: "myapi", ClientID: "my-client", Issuer: p.issuer(), Algorithm: jose.EdDSA,
		AssertionTTL: 45 * time.Second, SendKeyID: true,
	}
	for _, change := range changes {
		change(&settings)
	}
	key, err := keyring.New(generate(t), "myapi", settings, time.Now())
	require.NoError(t, err)
	client := keycloak.PortalClient("my-client", key.Active(time.Now()).PublicKeyPEM())
	client.OptionalClientScopes = []string{"read", "write"}
	require.NoError(t, p.idp.PutClient("apigw", client))
	seen := &observed{}
	return &fixture{New(time.Now, hclog.NewNullLogger(), seen), p, newClient(t, 1), key, seen}
}

func newClient(t *testing.T, retries int) *tokenendpoint.Client {
	t.Helper()
	client, err := tokenendpoint.New(tokenendpoint.Config{
		AllowInsecure: true, RequestTimeout: 10 * time.Second, MaxRetries: retries,
	}, tokenendpoint.Options{UserAgent: "test/1"})
	require.NoError(t, err)
	t.Cleanup(client.Close)
	return client
}

func (f *fixture) request(scopes ...string) Request {
	return Request{Key: f.key, Scopes: scopes}
}

func (f *fixture) token(t *testing.T, request Request) *Token {
	t.Helper()
	token, err := f.Token(t.Context(), f.client, request)
	require.NoError(t, err)
	return token
}

const (
	opaqueToken    = `{"access_token":"opaque","token_type":"Bearer","expires_in":300}`
	keycloakPrefix = "Client authentication with signed JWT failed: "
)

// refusal returns the body of an invalid_client error.
func refusal(description string) string {
	return `{"error":"invalid_client","error_description":"` + description + `"}`
}

// assertionKeyID returns the kid in the header of a request's client assertion.
func assertionKeyID(r *http.Request) (string, error) {
	assertion := r.PostFormValue("client_assertion")
	signed, err := jose.ParseSignedCompact(assertion, []jose.SignatureAlgorithm{jose.EdDSA})
	if err != nil {
		return "", err
	}
	return signed.Signatures[0].Protected.KeyID, nil
}

// keyProvider accepts the keys with these IDs and rejects others as Keycloak does.
type keyProvider struct {
	mu       sync.Mutex
	accepted map[string]bool
	requests []string // the kids received
	hold     func()   // called within each request, if set
	answer   http.HandlerFunc
}

func (p *keyProvider) accept(versions ...*keyring.Version) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.accepted = map[string]bool{}
	for _, v := range versions {
		p.accepted[v.KeyID()] = true
	}
}

func (p *keyProvider) seen() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	seen := p.requests
	p.requests = nil
	return seen
}

func (p *keyProvider) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	kid, err := assertionKeyID(r)
	if err != nil {
		http.Error(w, "", http.StatusInternalServerError)
		return
	}
	p.mu.Lock()
	p.requests = append(p.requests, kid)
	accepted, hold, answer := p.accepted[kid], p.hold, p.answer
	p.mu.Unlock()
	if hold != nil {
		hold()
	}
	w.Header().Set("Content-Type", "application/json")
	switch {
	case answer != nil:
		answer(w, r)
	case accepted:
		_, _ = io.WriteString(w, opaqueToken)
	default:
		w.WriteHeader(http.StatusBadRequest)
		_, _ = io.WriteString(w, refusal(keycloakPrefix+"Unable to load public key"))
	}
}

// world is an Exchanger, its provider, and one key in its own storage.
type world struct {
	t        testing.TB
	provider *keyProvider
	client   *tokenendpoint.Client
	exchange *Exchanger
	log      testlog.Buffer
	offset   atomic.Int64 // of the clock

	mu         sync.Mutex
	key        *keyring.Key
	writes     int
	storageErr error
}

func newWorld(t testing.TB, registration keyring.Registration) *world {
	t.Helper()
	provider := &keyProvider{}
	server := httptest.NewServer(provider)
	t.Cleanup(server.Close)
	return newWorldAt(t, provider, server.URL, registration)
}

// inVirtualTime runs a test in a synctest bubble. The server is outside and keeps no connection:
// time passes only while no goroutine of the bubble waits for the network.
func inVirtualTime(t *testing.T, test func(t *testing.T, w *world)) {
	t.Helper()
	provider := &keyProvider{}
	server := httptest.NewUnstartedServer(provider)
	server.Config.SetKeepAlivesEnabled(false)
	server.Start()
	t.Cleanup(server.Close)
	synctest.Test(t, func(t *testing.T) {
		test(t, newWorldAt(t, provider, server.URL, keyring.Manual))
	})
}

func newWorldAt(
	t testing.TB, provider *keyProvider, issuer string, registration keyring.Registration,
) *world {
	t.Helper()
	w := &world{t: t, provider: provider}
	client, err := tokenendpoint.New(tokenendpoint.Config{
		RequestTimeout: 10 * time.Second, AllowInsecure: true,
	}, tokenendpoint.Options{Now: w.now})
	require.NoError(t, err)
	t.Cleanup(client.Close)
	w.client = client
	w.exchange = New(w.now, hclog.New(&hclog.LoggerOptions{Output: &w.log}), &observed{})
	w.key, err = keyring.New(generate(t), "myapi", keyring.Settings{
		CommonName: "myapi", Algorithm: jose.EdDSA, SendKeyID: true, AssertionTTL: 45 * time.Second,
		ClientID: "c", Issuer: issuer, TokenEndpoint: issuer + "/token",
		Registration: registration, OverlapPeriod: time.Hour,
	}, w.now())
	require.NoError(t, err)
	w.provider.accept(w.key.Version(1))
	return w
}

func (w *world) now() time.Time { return time.Now().Add(time.Duration(w.offset.Load())) }

func (w *world) advance(d time.Duration) { w.offset.Add(int64(d)) }

func (w *world) current() *keyring.Key {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.key
}

func (w *world) change(edit func(*keyring.Key) *keyring.Key) {
	require.NoError(w.t, w.Change(context.Background(), edit))
	w.mu.Lock()
	w.writes--
	w.mu.Unlock()
}

// delayActivation makes the next version a staged one.
func (w *world) delayActivation(delay time.Duration) {
	w.t.Helper()
	w.change(func(current *keyring.Key) *keyring.Key {
		settings := current.Settings()
		settings.PrepublishPeriod = delay
		delayed, err := current.WithSettings(settings)
		require.NoError(w.t, err)
		return delayed
	})
}

func (w *world) rotate() {
	w.change(func(key *keyring.Key) *keyring.Key {
		rotated, err := key.Rotate(generate(w.t), w.now())
		require.NoError(w.t, err)
		return rotated
	})
}

// Change is the storage: a ChangeFunc.
func (w *world) Change(_ context.Context, edit func(*keyring.Key) *keyring.Key) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.storageErr != nil {
		return w.storageErr
	}
	if edited := edit(w.key); edited != nil {
		w.key = edited
		w.writes++
	}
	return nil
}

func (w *world) read() (*Token, error) { return w.readWith(w.current()) }

func (w *world) readWith(key *keyring.Key) (*Token, error) {
	return w.exchange.Token(w.t.Context(), w.client, Request{
		Key: key, Change: w.Change, Role: "r", RequestID: "id",
	})
}

func (w *world) mustRead(version int) {
	w.t.Helper()
	token, err := w.read()
	require.NoError(w.t, err)
	require.Equal(w.t, w.current().Version(version).KeyID(), token.KeyID)
}

func (w *world) active() int { return w.current().Active(w.now()).Number() }

func (w *world) stored() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.writes
}
