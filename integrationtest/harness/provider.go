package harness

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"
	"github.com/stretchr/testify/require"

	"github.com/bcgov/vault-plugin-bcgov-jwt/integrationtest/idp"
	"github.com/bcgov/vault-plugin-bcgov-jwt/integrationtest/keycloak"
	"github.com/bcgov/vault-plugin-bcgov-jwt/integrationtest/program"
)

// Realm is the one realm of every embedded provider.
const Realm = "apigw"

// keycloakRealm returns the one realm of Keycloak that the tests of a package use. Each test has
// its own clients there. Packages that run concurrently on one Keycloak have different realms: the
// name of the test binary, such as engine.test, is its package's.
func keycloakRealm() string {
	return Realm + "-" + strings.TrimSuffix(filepath.Base(os.Args[0]), ".test")
}

// A confidential client that may introspect tokens, as an API does.
const (
	apiClientID = "api"
	apiSecret   = "the secret of the API"
)

// Provider is an identity provider as a test uses it: behind a proxy that shows the leak detector
// the assertions and tokens that pass.
type Provider struct {
	Issuer string
	// Put registers a client, or changes it.
	Put func(context.Context, keycloak.Client) error
	// Config is the configuration with which a mount reaches it.
	Config map[string]any
	Close  func()

	admin *keycloak.Admin // nil for an embedded provider
}

// TokenEndpoint returns the URL of the token endpoint.
func (p *Provider) TokenEndpoint() string { return p.Issuer + "/protocol/openid-connect/token" }

// prepareRealm creates what newKeycloakProvider expects; all of it may exist already.
func prepareRealm(ctx context.Context, admin *keycloak.Admin) error {
	defer admin.Close()
	if err := admin.CreateRealm(ctx, keycloakRealm()); err != nil {
		return err
	}
	return admin.PutClient(ctx, keycloakRealm(), keycloak.SecretClient(apiClientID, apiSecret))
}

// newKeycloakProvider puts a proxy in front of a Keycloak.
func newKeycloakProvider(baseURL string, detector *LeakDetector) (*Provider, error) {
	proxy, err := keycloakProxy(baseURL)
	if err != nil {
		return nil, err
	}
	server := httptest.NewServer(detector.Observe(proxy))
	p := keycloakAt(server.URL)
	p.Close = func() {
		p.admin.Close()
		server.Close()
	}
	return p, nil
}

// keycloakProxy passes requests to a Keycloak.
func keycloakProxy(baseURL string) (http.Handler, error) {
	target, err := url.Parse(baseURL)
	return program.Proxy(func() *url.URL { return target }), err
}

func keycloakAt(baseURL string) *Provider {
	admin := keycloak.NewAdmin(baseURL, "admin", "admin")
	return &Provider{
		Issuer: admin.Issuer(keycloakRealm()),
		Put: func(ctx context.Context, client keycloak.Client) error {
			return admin.PutClient(ctx, keycloakRealm(), client)
		},
		admin:  admin,
		Config: map[string]any{"allow_insecure_endpoints": true},
	}
}

// Keycloak returns the Keycloak that the tests of a package share, or skips the test if it is not
// available.
func Keycloak(t *testing.T) *Provider {
	t.Helper()
	if shared.keycloak == nil {
		keycloak.ForTest(t) // skips, and says what is missing
		t.Fatal("Keycloak is available, but was not started")
	}
	return shared.keycloak
}

// KeycloakBehind returns the shared Keycloak at an address for one test alone, where a handler
// stands in front of it. Clients are registered past the handler.
func KeycloakBehind(t *testing.T, wrap func(next http.Handler) http.Handler) *Provider {
	t.Helper()
	direct := Keycloak(t)
	proxy, err := keycloakProxy(KeycloakURL())
	require.NoError(t, err)
	p := keycloakAt(Serve(t, wrap(proxy).ServeHTTP))
	t.Cleanup(p.admin.Close)
	p.Put = direct.Put
	return p
}

// AnyProvider returns the real Keycloak if available.
func AnyProvider(t *testing.T) *Provider {
	t.Helper()
	if shared.keycloak != nil {
		return shared.keycloak
	}
	return EmbeddedProvider(t)
}

// EmbeddedProvider starts the embedded provider behind https, as a provider with a private
// authority: its host must be allowed and its authority trusted.
func EmbeddedProvider(t *testing.T) *Provider {
	t.Helper()
	server := idp.New(idp.Options{SendDate: true})
	require.NoError(t, server.AddRealm(Realm))
	host := httptest.NewTLSServer(Detector().Observe(server))
	certificate := &pem.Block{Type: "CERTIFICATE", Bytes: host.Certificate().Raw}
	p := ProviderAt(host.URL, server)
	p.Config = map[string]any{
		"allowed_hosts": host.Listener.Addr().String(),
		"ca_cert":       string(pem.EncodeToMemory(certificate)),
	}
	p.Close = sync.OnceFunc(func() {
		host.Close()
		server.Close()
	})
	t.Cleanup(p.Close)
	return p
}

// NewEmbeddedServer returns an embedded provider that the test itself serves.
func NewEmbeddedServer(t *testing.T) *idp.Server {
	t.Helper()
	server := idp.New(idp.Options{})
	t.Cleanup(server.Close)
	require.NoError(t, server.AddRealm(Realm))
	return server
}

// ProviderAt returns the provider whose nodes are served at a base URL. Clients are registered at
// all of them.
func ProviderAt(baseURL string, nodes ...*idp.Server) *Provider {
	return &Provider{
		Issuer: baseURL + "/realms/" + Realm,
		Put: func(_ context.Context, client keycloak.Client) error {
			var errs []error
			for _, node := range nodes {
				errs = append(errs, node.PutClient(Realm, client))
			}
			return errors.Join(errs...)
		},
		Config: map[string]any{"allow_insecure_endpoints": true},
	}
}

// Serve serves a test's own provider and returns its base URL. The leak detector observes it.
func Serve(t *testing.T, handler http.HandlerFunc) (baseURL string) {
	t.Helper()
	server := httptest.NewServer(Detector().Observe(handler))
	t.Cleanup(server.Close)
	return server.URL
}

// NewClientID returns a client id that no other test uses.
func NewClientID() string { return "client-" + rand.Text() }

// Register does what the portal does once its user has pasted the public key and the API's owner
// has approved.
func (p *Provider) Register(t *testing.T, clientID, publicKey string) {
	t.Helper()
	require.NoError(t, p.Put(t.Context(), keycloak.PortalClient(clientID, publicKey)))
}

// RegisterUnapproved is Register before the owner has approved.
func (p *Provider) RegisterUnapproved(t *testing.T, clientID, publicKey string) {
	t.Helper()
	client := keycloak.PortalClient(clientID, publicKey)
	client.Enabled = false
	require.NoError(t, p.Put(t.Context(), client))
}

// RegisterWithAlgorithm is Register for a client that may use one algorithm only.
func (p *Provider) RegisterWithAlgorithm(t *testing.T, clientID, publicKey, algorithm string) {
	t.Helper()
	p.registerWithAttribute(t, clientID, publicKey, keycloak.AttributeAlgorithm, algorithm)
}

// RegisterWithTokenLifetime is Register for a client whose access tokens live this long.
func (p *Provider) RegisterWithTokenLifetime(
	t *testing.T, clientID, publicKey string, lifetime time.Duration,
) {
	t.Helper()
	seconds := strconv.Itoa(int(lifetime.Seconds()))
	p.registerWithAttribute(t, clientID, publicKey, keycloak.AttributeTokenLifespan, seconds)
}

func (p *Provider) registerWithAttribute(
	t *testing.T, clientID, publicKey, attribute, value string,
) {
	t.Helper()
	client := keycloak.PortalClient(clientID, publicKey)
	client.Attributes[attribute] = value
	require.NoError(t, p.Put(t.Context(), client))
}

// Introspect returns what Keycloak's introspection (RFC 7662) returns for a token.
func (p *Provider) Introspect(t *testing.T, token string) (claims map[string]any) {
	t.Helper()
	claims, err := p.admin.Introspect(t.Context(), keycloakRealm(), apiClientID, apiSecret, token)
	require.NoError(t, err)
	return claims
}

// IsActive reports whether Keycloak considers the token of these creds valid.
func (p *Provider) IsActive(t *testing.T, creds *api.Secret) bool {
	t.Helper()
	active, ok := p.Introspect(t, creds.Data["access_token"].(string))["active"].(bool)
	require.True(t, ok)
	return active
}

// HTTPClient returns a client that trusts the provider's certificate.
func (p *Provider) HTTPClient(t *testing.T) *http.Client {
	t.Helper()
	authority, isPrivate := p.Config["ca_cert"].(string)
	if !isPrivate {
		return http.DefaultClient
	}
	roots := x509.NewCertPool()
	require.True(t, roots.AppendCertsFromPEM([]byte(authority)))
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

// PostAssertion requests a token with an assertion, without Vault.
func (p *Provider) PostAssertion(t *testing.T, clientID, assertion string) *http.Response {
	t.Helper()
	form := url.Values{
		"grant_type": {"client_credentials"}, "client_id": {clientID}, "client_assertion": {assertion},
		"client_assertion_type": {"urn:ietf:params:oauth:client-assertion-type:jwt-bearer"},
	}
	body := strings.NewReader(form.Encode())
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, p.TokenEndpoint(), body)
	require.NoError(t, err)
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	resp, err := p.HTTPClient(t).Do(req)
	require.NoError(t, err)
	return resp
}
