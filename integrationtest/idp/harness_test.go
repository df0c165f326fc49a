package idp_test

import (
	"cmp"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"maps"
	"math/big"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/hashicorp/go-version"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/bcgov/vault-plugin-bcgov-jwt/integrationtest/idp"
	"github.com/bcgov/vault-plugin-bcgov-jwt/integrationtest/keycloak"
)

// provider is a server under test: the stand-in, or the Keycloak that it stands for.
type provider struct {
	admin             *keycloak.Admin
	version           *version.Version // of Keycloak
	realm, otherRealm string
	now               func() time.Time
	wait              func(time.Duration) // advances the provider's clock
	gateway           http.Handler        // an API that accepts the realm's tokens
}

// standInVersion is the version of Keycloak that the stand-in behaves like.
const standInVersion = "26.5"

// newStandIn starts a stand-in for one test, with its own clock.
func newStandIn(t *testing.T) *provider {
	t.Helper()
	var ahead atomic.Int64
	now := func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
	signingKey := testKeys()["other"].private.(*rsa.PrivateKey)
	server := idp.New(idp.Options{Now: now, SigningKey: signingKey})
	t.Cleanup(server.Close)
	listener := httptest.NewServer(server)
	t.Cleanup(listener.Close)
	admin := keycloak.NewAdmin(listener.URL, "admin", "admin")
	t.Cleanup(admin.Close)
	return newProvider(t, admin, standInVersion, now, func(d time.Duration) { ahead.Add(int64(d)) })
}

// newKeycloak returns a real Keycloak. Which version it is only the server itself knows.
func newKeycloak(t *testing.T) *provider {
	t.Helper()
	admin := keycloak.ForTest(t)
	running, err := admin.Version(t.Context())
	require.NoError(t, err)
	t.Logf("Keycloak %s", running)
	require.Equal(t, cmp.Or(os.Getenv("KEYCLOAK_VERSION"), running), running, "not what was requested")
	return newProvider(t, admin, running, time.Now, time.Sleep)
}

// newProvider creates two realms that are deleted when the test ends.
func newProvider(
	t *testing.T, admin *keycloak.Admin, release string, now func() time.Time,
	wait func(time.Duration),
) *provider {
	t.Helper()
	p := &provider{
		admin: admin, version: must(version.NewVersion(release)), now: now, wait: wait,
		realm: newRealm(t, admin), otherRealm: newRealm(t, admin),
	}
	p.gateway = idp.NewGateway(admin.Issuer(p.realm), http.DefaultClient, now)
	return p
}

func newRealm(t *testing.T, admin *keycloak.Admin) string {
	t.Helper()
	name := "test-" + strings.ToLower(rand.Text())
	require.NoError(t, admin.CreateRealm(t.Context(), name))
	t.Cleanup(func() {
		// Not require, which would end the goroutine before the test's failure is reported.
		assert.NoError(t, admin.DeleteRealm(context.WithoutCancel(t.Context()), name))
	})
	return name
}

// is reports whether the provider's version is one of these, as in "< 26.5".
func (p *provider) is(versions string) bool {
	return must(version.NewConstraint(versions)).Check(p.version)
}

func (p *provider) issuer() string { return p.admin.Issuer(p.realm) }

func (p *provider) endpoint(path string) string {
	return p.issuer() + "/protocol/openid-connect/" + path
}

// inOtherRealm returns the same server with the other realm.
func (p *provider) inOtherRealm() *provider {
	other := *p
	other.realm, other.otherRealm = p.otherRealm, p.realm
	return &other
}

// keyPair is a client's key.
type keyPair struct {
	private crypto.Signer
	alg     jose.SignatureAlgorithm // with which it signs by default
}

// testKeys returns keys that are created once: only whose key it is matters.
var testKeys = sync.OnceValue(func() map[string]keyPair {
	ec := func(curve elliptic.Curve) *ecdsa.PrivateKey {
		return must(ecdsa.GenerateKey(curve, rand.Reader))
	}
	seed := []byte(rand.Text() + rand.Text())[:ed25519.SeedSize]
	return map[string]keyPair{
		"rsa":     {must(rsa.GenerateKey(rand.Reader, 2048)), jose.RS256},
		"other":   {must(rsa.GenerateKey(rand.Reader, 2048)), jose.RS256},
		"rsa4096": {must(rsa.GenerateKey(rand.Reader, 4096)), jose.RS256},
		"p256":    {ec(elliptic.P256()), jose.ES256},
		"p384":    {ec(elliptic.P384()), jose.ES384},
		"p521":    {ec(elliptic.P521()), jose.ES512},
		"ed25519": {ed25519.NewKeyFromSeed(seed), jose.EdDSA},
	}
})

func must[T any](value T, err error) T {
	if err != nil {
		panic(err)
	}
	return value
}

func (k keyPair) der() []byte { return must(x509.MarshalPKIXPublicKey(k.private.Public())) }

func (k keyPair) pem() string { return encodePEM("PUBLIC KEY", k.der()) }

func (k keyPair) pkcs8() []byte { return must(x509.MarshalPKCS8PrivateKey(k.private)) }

func encodePEM(label string, der []byte) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: label, Bytes: der}))
}

// id returns the key id that Keycloak derives for a pasted key.
func (k keyPair) id() string {
	sum := sha256.Sum256(k.der())
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

func (k keyPair) jwk() jose.JSONWebKey {
	return jose.JSONWebKey{Key: k.private.Public(), KeyID: k.id(), Use: "sig"}
}

func (k keyPair) certificate() string {
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der := must(x509.CreateCertificate(rand.Reader, template, template, k.private.Public(),
		k.private))
	return encodePEM("CERTIFICATE", der)
}

// registeredClient is a registered client and its key.
type registeredClient struct {
	*provider
	client keycloak.Client
	key    keyPair
}

// newClient registers a client for one test, as the portal does, with a key (rsa if none is named).
// adjust changes the registration first.
func (p *provider) newClient(
	t *testing.T, key string, adjust ...registration,
) *registeredClient {
	t.Helper()
	pair := testKeys()[cmp.Or(key, "rsa")]
	c := keycloak.PortalClient("/portal/"+rand.Text(), pair.pem())
	for _, change := range adjust {
		change(t, &c)
	}
	require.NoError(t, p.admin.PutClient(t.Context(), p.realm, c))
	return &registeredClient{provider: p, client: c, key: pair}
}

// update changes the registration.
func (p *registeredClient) update(t *testing.T, changes ...registration) {
	t.Helper()
	p.client.Attributes = maps.Clone(p.client.Attributes)
	for _, change := range changes {
		change(t, &p.client)
	}
	require.NoError(t, p.admin.PutClient(t.Context(), p.realm, p.client))
}

// sign returns a client assertion that is valid but for the changes. A member that a change sets to
// nil is omitted.
func (p *registeredClient) sign(t *testing.T, changes ...mutation) string {
	t.Helper()
	now := p.now().Unix()
	header := map[string]any{"alg": string(p.key.alg), "typ": "JWT", "kid": p.key.id()}
	claims := map[string]any{
		"iss": p.client.ClientID, "sub": p.client.ClientID, "aud": p.issuer(),
		"iat": now, "exp": now + 45, "jti": rand.Text(),
	}
	for _, change := range changes {
		change(p, header, claims)
	}
	for _, members := range []map[string]any{header, claims} {
		maps.DeleteFunc(members, func(_ string, value any) bool { return value == nil })
	}
	return p.key.sign(t, header, claims)
}

func (k keyPair) sign(t *testing.T, header, claims map[string]any) string {
	t.Helper()
	options := &jose.SignerOptions{}
	for name, value := range header {
		if name != "alg" {
			options.WithHeader(jose.HeaderKey(name), value)
		}
	}
	algorithm := jose.SignatureAlgorithm(header["alg"].(string))
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: algorithm, Key: k.private}, options)
	require.NoError(t, err)
	jws, err := signer.Sign(must(json.Marshal(claims)))
	require.NoError(t, err)
	return must(jws.CompactSerialize())
}

// authenticated returns a form with the members that authenticate the client.
func (p *registeredClient) authenticated(assertion string) url.Values {
	return url.Values{
		"client_id":             {p.client.ClientID},
		"client_assertion_type": {"urn:ietf:params:oauth:client-assertion-type:jwt-bearer"},
		"client_assertion":      {assertion},
	}
}

// requestToken requests a token with an assertion.
func (p *registeredClient) requestToken(
	t *testing.T, assertion string, changes ...formChange,
) response {
	t.Helper()
	form := p.authenticated(assertion)
	form.Set("grant_type", "client_credentials")
	for _, change := range changes {
		change(form)
	}
	return post(t, p.endpoint("token"), form)
}

// token obtains a token with a new assertion.
func (p *registeredClient) token(t *testing.T) string {
	t.Helper()
	got := p.requestToken(t, p.sign(t))
	got.requireToken(t, p, "")
	return got.json["access_token"].(string)
}

func (p *registeredClient) revoke(t *testing.T, form url.Values, changes ...mutation) response {
	t.Helper()
	maps.Copy(form, p.authenticated(p.sign(t, changes...)))
	return post(t, p.endpoint("revoke"), form)
}

// response is a provider's response.
type response struct {
	status int
	header http.Header
	body   string
	json   map[string]any
}

func post(t *testing.T, endpoint string, form url.Values) response {
	t.Helper()
	body := strings.NewReader(form.Encode())
	return send(t, must(http.NewRequestWithContext(t.Context(), http.MethodPost, endpoint, body)))
}

func get(t *testing.T, endpoint string) response {
	t.Helper()
	return send(t, must(http.NewRequestWithContext(t.Context(), http.MethodGet, endpoint, nil)))
}

func send(t *testing.T, req *http.Request) response {
	t.Helper()
	if req.Method == http.MethodPost {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	resp, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	got := response{status: resp.StatusCode, header: resp.Header, body: string(body)}
	got.header.Del("Content-Length")
	if got.header.Get("Content-Type") == "application/json" {
		require.NoError(t, json.Unmarshal(body, &got.json))
	}
	return got
}

// requireRejection checks status, error and description, written as one string: "400
// invalid_client: Token is not active". A final "…" matches anything.
func (r response) requireRejection(t *testing.T, want string) {
	t.Helper()
	require.NotContains(t, r.json, "access_token")
	got := fmt.Sprint(r.status, " ", r.json["error"])
	if description, present := r.json["error_description"]; present {
		got += fmt.Sprint(": ", description)
	}
	if prefix, found := strings.CutSuffix(want, "…"); found {
		require.Truef(t, strings.HasPrefix(got, prefix), "want %q…, got %q", prefix, got)
		return
	}
	require.Equal(t, want, got)
}

// requireToken checks every member of a token response and of its token, and that the gateway
// accepts the token.
func (r response) requireToken(t *testing.T, p *registeredClient, scope string) {
	t.Helper()
	lifespan := cmp.Or(p.client.Attributes[keycloak.AttributeTokenLifespan], "300")
	require.Equal(t, http.StatusOK, r.status, r.json["error_description"])
	members := []string{
		"access_token", "expires_in", "refresh_expires_in", "token_type", "not-before-policy", "scope",
	}
	if strings.Contains(scope, "openid") {
		members = append(members, "id_token")
	}
	require.ElementsMatch(t, members, slices.Collect(maps.Keys(r.json)))
	require.Equal(t, "Bearer", r.json["token_type"])
	require.EqualValues(t, 0, r.json["refresh_expires_in"])
	require.EqualValues(t, 0, r.json["not-before-policy"])
	require.ElementsMatch(t, strings.Fields(scope), strings.Fields(r.json["scope"].(string)))

	header, claims := open(t, r.json["access_token"].(string))
	require.ElementsMatch(t, []string{"alg", "typ", "kid"}, slices.Collect(maps.Keys(header)))
	require.Equal(t, "RS256", header["alg"])
	require.Equal(t, "JWT", header["typ"])
	require.ElementsMatch(t, []string{
		"exp", "iat", "jti", "iss", "sub", "typ", "azp", "scope", "clientHost", "clientAddress",
		"client_id",
	}, withoutPersonal(claims))
	// Keycloak reads its clock twice for a token's exp and iat. expires_in is what remains when it
	// responds, which may be slow.
	seconds := must(strconv.Atoi(lifespan))
	require.InDelta(t, seconds, claims["exp"].(float64)-claims["iat"].(float64), 1)
	require.InDelta(t, seconds, r.json["expires_in"], 2)
	require.Equal(t, r.json["scope"], claims["scope"])
	require.Equal(t, p.issuer(), claims["iss"])
	require.Equal(t, "Bearer", claims["typ"])
	require.Equal(t, p.client.ClientID, claims["azp"])
	require.Equal(t, p.client.ClientID, claims["client_id"])
	require.Regexp(t, `^trrtcc:[0-9a-f-]{36}$`, claims["jti"])
	require.Regexp(t, `^[0-9a-f-]{36}$`, claims["sub"])
	require.Equal(t, http.StatusOK, p.callAPI(r.json["access_token"].(string)))

	if identity, present := r.json["id_token"]; present {
		_, claims := open(t, identity.(string))
		require.ElementsMatch(t, []string{
			"exp", "iat", "jti", "iss", "aud", "sub", "typ", "azp", "at_hash", "clientHost",
			"clientAddress", "client_id",
		}, withoutPersonal(claims))
		require.Equal(t, p.client.ClientID, claims["aud"])
		require.Equal(t, "ID", claims["typ"])
	}
}

// withoutPersonal returns the claims' names, except those that the scopes profile, email, address
// (up to Keycloak 26.4) and phone add for the service account, which the stand-in omits.
func withoutPersonal(claims map[string]any) []string {
	return slices.DeleteFunc(slices.Collect(maps.Keys(claims)), func(name string) bool {
		return name == "email_verified" || name == "preferred_username" || name == "address"
	})
}

// callAPI calls the API behind the gateway.
func (p *provider) callAPI(token string) (status int) {
	req := httptest.NewRequest(http.MethodGet, "/headers", nil)
	req.Header.Set("Authorization", "Bearer "+token)
	recorder := httptest.NewRecorder()
	p.gateway.ServeHTTP(recorder, req)
	return recorder.Code
}

func open(t *testing.T, token string) (header, claims map[string]any) {
	t.Helper()
	parts := strings.Split(token, ".")
	require.Len(t, parts, 3)
	decode := base64.RawURLEncoding.DecodeString
	require.NoError(t, json.Unmarshal(must(decode(parts[0])), &header))
	require.NoError(t, json.Unmarshal(must(decode(parts[1])), &claims))
	return header, claims
}

// requireHeader checks all headers of a provider's response: those given, and those that Keycloak
// sets in every response. Date is not among them.
func (r response) requireHeader(t *testing.T, p *provider, namesAndValues ...string) {
	t.Helper()
	want := http.Header{
		"Referrer-Policy":           {"no-referrer"},
		"Strict-Transport-Security": {"max-age=31536000; includeSubDomains"},
		"X-Content-Type-Options":    {"nosniff"},
		"X-Frame-Options":           {"SAMEORIGIN"},
	}
	for i := 0; i < len(namesAndValues); i += 2 {
		want.Set(namesAndValues[i], namesAndValues[i+1])
	}
	if p.is(">= 26.5") || want.Get("Content-Type") != "application/json" {
		want.Set("X-Robots-Tag", "none")
	}
	require.Equal(t, want, r.header)
}

// jwksHost publishes keys at its URL.
type jwksHost struct {
	*httptest.Server
	fetches  atomic.Int64
	document atomic.Pointer[jose.JSONWebKeySet]
}

func newJWKSHost(t *testing.T, keys ...jose.JSONWebKey) *jwksHost {
	t.Helper()
	h := &jwksHost{}
	h.publish(keys...)
	h.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		h.fetches.Add(1)
		_ = json.NewEncoder(w).Encode(h.document.Load())
	}))
	t.Cleanup(h.Close)
	return h
}

func (h *jwksHost) publish(keys ...jose.JSONWebKey) {
	h.document.Store(&jose.JSONWebKeySet{Keys: append([]jose.JSONWebKey{}, keys...)})
}
