package integrationtest

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"encoding/pem"
	"errors"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bcgov/vault-plugin-bcgov-jwt/integrationtest/idp"
	"github.com/bcgov/vault-plugin-bcgov-jwt/integrationtest/keycloak"
)

// testRealm is the one realm of every provider. A client of its own for each test keeps the tests apart.
const testRealm = "apigw"

// A confidential client that may ask for introspection, as an API would be.
const (
	apiClientID = "api"
	apiSecret   = "the secret of the API"
)

// provider is an identity provider as a test uses it: behind a proxy that tells the witness which assertions and tokens passed.
type provider struct {
	issuer string
	put    func(context.Context, keycloak.Client) error
	admin  *keycloak.Admin
	// config is what a mount must be told to reach it.
	config map[string]any
	close  func()
}

func (p *provider) tokenEndpoint() string { return p.issuer + "/protocol/openid-connect/token" }

// prepareRealm makes the realm in which newKeycloakProvider's tests work.
func prepareRealm(ctx context.Context, admin *keycloak.Admin) error {
	defer admin.Close()
	if err := admin.CreateRealm(ctx, testRealm); err != nil {
		return err
	}
	return admin.PutClient(ctx, testRealm, keycloak.SecretClient(apiClientID, apiSecret))
}

// newKeycloakProvider puts a proxy before a Keycloak. Keycloak takes its own address from the request, and so is at the proxy's.
func newKeycloakProvider(baseURL string, w *witness) (*provider, error) {
	target, err := url.Parse(baseURL)
	if err != nil {
		return nil, err
	}
	proxy := httptest.NewServer(w.observe(&httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(target)
			r.Out.Host = r.In.Host
		},
		ErrorLog: log.New(io.Discard, "", 0), // a test may end, and its mount, while a token is refreshed
	}))
	admin := keycloak.NewAdmin(proxy.URL, "admin", "admin")
	return &provider{
		issuer: admin.Issuer(testRealm),
		put: func(ctx context.Context, client keycloak.Client) error {
			return admin.PutClient(ctx, testRealm, client)
		},
		admin:  admin,
		config: map[string]any{"allow_insecure_endpoints": true},
		close: func() {
			admin.Close()
			proxy.Close()
		},
	}, nil
}

// realKeycloak returns the Keycloak of the suite, or skips the test where there is none.
func realKeycloak(t *testing.T) *provider {
	t.Helper()
	if shared.keycloak == nil {
		keycloak.ForTest(t) // skips, and says what is missing
		t.Fatal("a Keycloak can be had, but the suite has none")
	}
	return shared.keycloak
}

// embeddedProvider starts the embedded provider behind https, as a provider with a private authority: its host must be allowed and its authority trusted.
func embeddedProvider(t *testing.T) *provider {
	t.Helper()
	server := idp.New(idp.Options{SendDate: true})
	require.NoError(t, server.AddRealm(testRealm))
	host := httptest.NewTLSServer(shared.witness.observe(server))
	stop := sync.OnceFunc(func() {
		host.Close()
		server.Close()
	})
	t.Cleanup(stop)
	return &provider{
		close:  stop,
		issuer: host.URL + "/realms/" + testRealm,
		put:    func(_ context.Context, client keycloak.Client) error { return server.PutClient(testRealm, client) },
		config: map[string]any{
			"allowed_hosts": host.Listener.Addr().String(),
			"ca_cert":       string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: host.Certificate().Raw})),
		},
	}
}

// newClientID is a name that no other test uses.
func newClientID() string { return "client-" + rand.Text() }

// register does what the portal does once its user has pasted the public key and the API's owner has approved.
func (p *provider) register(t *testing.T, clientID, publicKey string) {
	t.Helper()
	require.NoError(t, p.put(t.Context(), keycloak.PortalClient(clientID, publicKey)))
}

// registerUnapproved is register before the owner has approved.
func (p *provider) registerUnapproved(t *testing.T, clientID, publicKey string) {
	t.Helper()
	client := keycloak.PortalClient(clientID, publicKey)
	client.Enabled = false
	require.NoError(t, p.put(t.Context(), client))
}

// pinAlgorithm is register for a client that may use one algorithm only.
func (p *provider) pinAlgorithm(t *testing.T, clientID, publicKey, algorithm string) {
	t.Helper()
	client := keycloak.PortalClient(clientID, publicKey)
	client.Attributes[keycloak.AttributeAlgorithm] = algorithm
	require.NoError(t, p.put(t.Context(), client))
}

// serve starts a provider of the test's own and returns its base URL. What passes there is told to the witness too.
func serve(t *testing.T, handler http.HandlerFunc) string {
	t.Helper()
	server := httptest.NewServer(shared.witness.observe(handler))
	t.Cleanup(server.Close)
	return server.URL
}

// protectedAPI starts an API behind a gateway that takes the provider's tokens.
func (p *provider) protectedAPI(t *testing.T) string {
	t.Helper()
	api := httptest.NewServer(idp.NewGateway(p.issuer, http.DefaultClient, time.Now))
	t.Cleanup(api.Close)
	return api.URL
}

// observe passes requests on, and tells the witness which assertions came in and which access tokens went out.
func (w *witness) observe(next http.Handler) http.Handler {
	return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			http.Error(rw, "", http.StatusBadRequest)
			return
		}
		w.sawForm(body)
		r.Body = io.NopCloser(bytes.NewReader(body))
		next.ServeHTTP(&observedAnswer{ResponseWriter: rw, witness: w}, r)
	})
}

func (w *witness) sawForm(body []byte) {
	form, err := url.ParseQuery(string(body))
	if err != nil {
		return
	}
	for _, assertion := range form["client_assertion"] {
		w.addToken(assertionPart, assertion)
	}
}

// observedAnswer looks at an answer before it is sent. A token's answer is small and written at once.
type observedAnswer struct {
	http.ResponseWriter
	witness *witness
}

func (o *observedAnswer) Write(body []byte) (int, error) {
	var answer struct {
		AccessToken string `json:"access_token"`
	}
	if json.Unmarshal(body, &answer) == nil && answer.AccessToken != "" {
		o.witness.addToken(tokenPart, answer.AccessToken)
	}
	return o.ResponseWriter.Write(body)
}

// Unwrap lets http.ResponseController reach the connection.
func (o *observedAnswer) Unwrap() http.ResponseWriter { return o.ResponseWriter }

// registerAtAll registers a client at each of these servers.
func registerAtAll(servers ...*idp.Server) func(context.Context, keycloak.Client) error {
	return func(_ context.Context, client keycloak.Client) error {
		var errs []error
		for _, server := range servers {
			errs = append(errs, server.PutClient(testRealm, client))
		}
		return errors.Join(errs...)
	}
}
