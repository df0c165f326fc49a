package exchange

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"errors"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/hashicorp/go-hclog"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/bcgov/vault-plugin-bcgov-jwt/backend/internal/clientauth"
	"github.com/bcgov/vault-plugin-bcgov-jwt/backend/internal/keyring"
	"github.com/bcgov/vault-plugin-bcgov-jwt/backend/internal/tokenendpoint"
	"github.com/bcgov/vault-plugin-bcgov-jwt/integrationtest/idp"
	"github.com/bcgov/vault-plugin-bcgov-jwt/integrationtest/keycloak"
)

func TestMain(m *testing.M) {
	// A dependency of Vault's SDK starts this one when it is imported.
	goleak.VerifyTestMain(m, goleak.IgnoreTopFunction("go.opencensus.io/stats/view.(*worker).start"))
}

const (
	realmPath      = "/realms/apigw"
	discoveryPath  = realmPath + "/.well-known/openid-configuration"
	tokenPath      = realmPath + "/protocol/openid-connect/token"
	revocationPath = realmPath + "/protocol/openid-connect/revoke"
)

// providerKey signs every test's tokens: it is made once for all.
var providerKey = sync.OnceValue(func() *rsa.PrivateKey {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	return key
})

// provider is the embedded provider and what it received.
type provider struct {
	*httptest.Server
	idp *idp.Server

	mu        sync.Mutex
	forms     map[string][]url.Values // by path
	responses map[string]string       // JSON that a path answers in place of the provider
	refuse    int                     // so many token requests get a 503 first
}

func newProvider(t *testing.T) *provider {
	t.Helper()
	p := &provider{idp: idp.New(idp.Options{SigningKey: providerKey()}), forms: map[string][]url.Values{}, responses: map[string]string{}}
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
	body, _ := io.ReadAll(r.Body) // what cannot be read is refused by the provider
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

// fixture is a registered key and what is needed to get a token with it.
type fixture struct {
	*Exchanger
	provider *provider
	client   *tokenendpoint.Client
	key      *keyring.Key
}

func newFixture(t *testing.T, changes ...func(*keyring.Settings)) *fixture {
	t.Helper()
	p := newProvider(t)
	settings := keyring.Settings{
		CommonName: "myapi", ClientID: "my-client", Issuer: p.issuer(), Algorithm: jose.EdDSA, AssertionTTL: 45 * time.Second, SendKeyID: true,
	}
	for _, change := range changes {
		change(&settings)
	}
	key, err := keyring.New("myapi", keyring.ED25519, settings, time.Now())
	require.NoError(t, err)
	client := keycloak.PortalClient("my-client", key.Active(time.Now()).PublicKeyPEM())
	client.OptionalClientScopes = []string{"read", "write"}
	require.NoError(t, p.idp.PutClient("apigw", client))
	return &fixture{New(time.Now, hclog.NewNullLogger()), p, newClient(t, 1), key}
}

func newClient(t *testing.T, retries int) *tokenendpoint.Client {
	t.Helper()
	client, err := tokenendpoint.New(
		tokenendpoint.Config{AllowInsecure: true, RequestTimeout: 10 * time.Second, MaxRetries: retries}, tokenendpoint.Options{UserAgent: "test/1"})
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

func TestTheFormHoldsWhatWasAskedForAndNothingElse(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	request := f.request("read", "write")
	request.Parameters = url.Values{"resource": {"https://a.example/?x=1&y=2"}, "audience": {"a b+c"}}
	token := f.token(t, request)
	require.Equal(t, "read write", token.Scope)
	require.Empty(t, token.MissingScopes)
	require.Equal(t, f.key.Active(time.Now()).KeyID(), token.KeyID)
	require.Equal(t, 300*time.Second, token.Lifetime)

	form := f.provider.received(tokenPath)[0]
	require.NotEmpty(t, form.Get("client_assertion"))
	form.Del("client_assertion")
	require.Equal(t, url.Values{
		"grant_type": {"client_credentials"}, "client_id": {"my-client"}, "client_assertion_type": {clientauth.AssertionType},
		"scope": {"read write"}, "resource": {"https://a.example/?x=1&y=2"}, "audience": {"a b+c"},
	}, form)
}

func TestAParameterMayBeSentMoreThanOnce(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.provider.responses[tokenPath] = `{"access_token":"opaque","token_type":"Bearer","expires_in":60}`
	request := f.request()
	request.Parameters = url.Values{"resource": {"https://a.example", "https://b.example"}}
	f.token(t, request)
	require.Equal(t, []string{"https://a.example", "https://b.example"}, f.provider.received(tokenPath)[0]["resource"])
	require.Equal(t, url.Values{"resource": {"https://a.example", "https://b.example"}}, request.Parameters, "the request is not changed")
}

func TestWithoutScopesTheParameterIsLeftOut(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.token(t, f.request())
	require.NotContains(t, f.provider.received(tokenPath)[0], "scope")
}

func TestTheEndpointIsDiscoveredUnlessTheKeyNamesIt(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		set       bool
		discovers int
	}{"discovered": {false, 1}, "set": {true, 0}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t, func(s *keyring.Settings) {
				if test.set {
					s.TokenEndpoint = s.Issuer + strings.TrimPrefix(tokenPath, realmPath)
				}
			})
			for range 3 {
				f.token(t, f.request())
			}
			require.Len(t, f.provider.received(discoveryPath), test.discovers, "kept in memory")
			require.Len(t, f.provider.received(tokenPath), 3)
			endpoint, err := TokenEndpoint(t.Context(), f.client, f.key)
			require.NoError(t, err)
			require.Equal(t, f.provider.URL+tokenPath, endpoint)
		})
	}
}

func TestGrantedScopesAreComparedWithThoseAskedFor(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		member  string
		scope   string
		missing []string
	}{
		"absent: as asked":     {``, "read write", nil},
		"as asked":             {`,"scope":"read write"`, "read write", nil},
		"wider, another order": {`,"scope":"email write read"`, "email write read", nil},
		"narrower":             {`,"scope":"write"`, "write", []string{"read"}},
		"none":                 {`,"scope":""`, "", []string{"read", "write"}},
		"part of a name":       {`,"scope":"read:all writer"`, "read:all writer", []string{"read", "write"}},
		"another letter case":  {`,"scope":"Read write"`, "Read write", []string{"read"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t)
			f.provider.responses[tokenPath] = `{"access_token":"opaque","token_type":"Bearer","expires_in":60` + test.member + `}`
			token := f.token(t, f.request("read", "write"))
			require.Equal(t, test.scope, token.Scope)
			require.Equal(t, test.missing, token.MissingScopes)
		})
	}
}

func TestEachAttemptHasAnAssertionOfItsOwn(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.provider.refuse = 1
	f.token(t, f.request())
	sent := f.provider.received(tokenPath)
	require.Len(t, sent, 2)
	require.NotEqual(t, sent[0].Get("client_assertion"), sent[1].Get("client_assertion"))
	require.Equal(t, int64(1), f.Statistics().Exchanges, "one exchange, whatever its attempts")
}

func TestTheAssertionFollowsTheKeysSettings(t *testing.T) {
	t.Parallel()
	f := newFixture(t, func(s *keyring.Settings) { s.SendKeyID, s.AssertionTTL = false, 2*time.Minute })
	f.provider.responses[tokenPath] = `{"access_token":"opaque","token_type":"Bearer","expires_in":60}`
	f.token(t, f.request())
	jws, err := jose.ParseSignedCompact(f.provider.received(tokenPath)[0].Get("client_assertion"), []jose.SignatureAlgorithm{jose.EdDSA})
	require.NoError(t, err)
	require.Empty(t, jws.Signatures[0].Header.KeyID)
	payload := string(jws.UnsafePayloadWithoutVerification())
	require.Contains(t, payload, `"aud":"`+f.provider.issuer()+`"`)
	require.Contains(t, payload, `"iss":"my-client","sub":"my-client"`)
}

func TestStatisticsCountWhatExchangesCameTo(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)
	e := New(func() time.Time { return at }, hclog.NewNullLogger())
	require.Equal(t, Statistics{}, e.Statistics())

	e.statistics.count(nil, at)
	require.Equal(t, Statistics{Exchanges: 1}, e.Statistics())
	for kind, name := range map[tokenendpoint.Kind]string{
		tokenendpoint.Refused: "refused", tokenendpoint.Blocked: "blocked", tokenendpoint.Unavailable: "unavailable",
		tokenendpoint.Malformed: "malformed", tokenendpoint.TimedOut: "timed out",
	} {
		before := e.Statistics()
		at = at.Add(time.Second)
		e.statistics.count(&tokenendpoint.Error{Kind: kind}, at)
		require.Equal(t, Statistics{before.Exchanges + 1, before.Failures + 1, at, name}, e.Statistics())
	}
	before := e.Statistics()
	e.statistics.count(&tokenendpoint.Error{Kind: tokenendpoint.Canceled}, at)
	require.Equal(t, before, e.Statistics(), "a reader that went away says nothing of the provider")
	e.statistics.count(errors.New("a fault of this program"), at)
	require.Equal(t, "internal", e.Statistics().LastFailureKind)
}

func TestFailuresAreCountedAsTheyHappen(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	_, err := f.Token(t.Context(), f.client, f.request("nope"))
	var failure *tokenendpoint.Error
	require.ErrorAs(t, err, &failure)
	require.Equal(t, tokenendpoint.Refused, failure.Kind)
	require.Equal(t, "invalid_scope", failure.Code)
	require.Equal(t, "refused", f.Statistics().LastFailureKind)
	require.Equal(t, int64(1), f.Statistics().Failures)

	gone, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = f.Token(gone, f.client, f.request())
	require.ErrorIs(t, err, context.Canceled)
	require.Equal(t, int64(1), f.Statistics().Exchanges)
}

func TestADiscoveryFailureSendsNoAssertion(t *testing.T) {
	t.Parallel()
	f := newFixture(t, func(s *keyring.Settings) { s.Issuer += "/" }) // the document names another issuer
	_, err := f.Token(t.Context(), f.client, f.request())
	require.ErrorContains(t, err, "another issuer")
	require.Empty(t, f.provider.received(tokenPath))
	_, err = f.Revoke(t.Context(), f.client, f.key, f.key.Active(time.Now()), "token")
	require.ErrorContains(t, err, "another issuer")
	require.Empty(t, f.provider.received(revocationPath))
}

func TestRevoke(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		set       bool
		discovers int
	}{"discovered": {false, 1}, "set": {true, 0}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t, func(s *keyring.Settings) {
				if test.set {
					s.TokenEndpoint = s.Issuer + strings.TrimPrefix(tokenPath, realmPath)
					s.RevocationEndpoint = s.Issuer + strings.TrimPrefix(revocationPath, realmPath)
				}
			})
			token := f.token(t, f.request())
			for range 2 { // a revoked token may be revoked again
				revoked, err := f.Revoke(t.Context(), f.client, f.key, f.key.Active(time.Now()), token.AccessToken)
				require.NoError(t, err)
				require.True(t, revoked)
			}
			sent := f.provider.received(revocationPath)
			require.Equal(t, token.AccessToken, sent[0].Get("token"))
			require.Equal(t, "access_token", sent[0].Get("token_type_hint"))
			require.Equal(t, "my-client", sent[0].Get("client_id"))
			require.NotContains(t, sent[0], "grant_type")
			require.Len(t, f.provider.received(discoveryPath), test.discovers)
		})
	}
}

func TestRevokeWithoutAnEndpointDoesNothing(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.provider.responses[discoveryPath] = `{"issuer":"` + f.provider.issuer() + `","token_endpoint":"` + f.provider.URL + tokenPath + `"}`
	revoked, err := f.Revoke(t.Context(), f.client, f.key, f.key.Active(time.Now()), "token")
	require.NoError(t, err)
	require.False(t, revoked)
	require.Empty(t, f.provider.received(revocationPath))
}

func TestRevokeReportsARefusal(t *testing.T) {
	t.Parallel()
	f := newFixture(t, func(s *keyring.Settings) { s.ClientID = "unknown" })
	revoked, err := f.Revoke(t.Context(), f.client, f.key, f.key.Active(time.Now()), "hunter2")
	require.ErrorContains(t, err, "HTTP 401")
	require.NotContains(t, err.Error(), "hunter2")
	require.False(t, revoked)
	require.Zero(t, f.Statistics(), "a revocation is no exchange")
}

func TestTokensArePrintedByNobody(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	token := f.token(t, f.request())
	require.NotContains(t, token.String(), token.AccessToken)
	require.NotContains(t, token.GoString(), token.AccessToken)
}

func TestConcurrentExchanges(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.provider.responses[tokenPath] = `{"access_token":"opaque","token_type":"Bearer","expires_in":60}`
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			if _, err := f.Token(context.Background(), f.client, f.request("read")); err != nil {
				t.Error(err)
			}
			f.Statistics()
		})
	}
	wg.Wait()
	require.Equal(t, int64(50), f.Statistics().Exchanges)
	require.Len(t, f.provider.received(discoveryPath), 1, "one discovery for all")
}
