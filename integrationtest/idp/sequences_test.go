package idp_test

import (
	"crypto/rand"
	"net/http"
	"net/url"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bcgov/vault-plugin-bcgov-jwt/integrationtest/keycloak"
)

// reloadInterval is how long it takes until Keycloak may load a client's keys again: more than ten
// seconds by a clock of whole seconds.
const reloadInterval = 11 * time.Second

type sequence struct {
	name string
	run  func(*testing.T, *provider)
}

// sequences are the cases that take more than one request.
func sequences() []sequence {
	return []sequence{
		{"jti: forgotten before the assertion dies, where iat lies ahead", testJTIMemory},
		{"JWKS: loaded again for an unknown kid, ten seconds later", testJWKSReload},
		{"JWKS: given up after five seconds", testSlowJWKS},
		{"jti: the same assertion twice", testReuse},
		{"jti: one memory for all realms", testReuseAcrossRealms},
		{"jti: a refused signature does not use it up", testRejectedSignatureKeepsJTI},
		{"jti: a refused scope uses it up", testRejectedScopeUsesJTI},
		{"registration: a new public key counts at once", testNewKey},
		{"registration: disabled and enabled again", testDisable},
		{"revocation", testRevocation},
		{"revocation: client authentication", testRevocationClientAuthentication},
		{"introspection", testIntrospection},
		{"discovery", testDiscovery},
		{"wrong URLs", testWrongURLs},
	}
}

// Keycloak stores a jti for min(exp − now, 60 s), but the assertion is valid until
// min(exp, iat + 60 s). ours is the plugin's by a clock that is 20 s ahead: backdated by 5 s, and
// valid for 45 s.
func testJTIMemory(t *testing.T, p *provider) {
	long, short, ours := p.newClient(t, ""), p.newClient(t, ""), p.newClient(t, "")
	longAssertion := long.sign(t, clock("iat", 12), clock("exp", 12+60))
	shortAssertion := short.sign(t, clock("iat", 12), clock("exp", 12+45))
	ourAssertion := ours.sign(t, clock("iat", 15), clock("nbf", 15), clock("exp", 15+45))
	long.requestToken(t, longAssertion).requireToken(t, long, "")
	short.requestToken(t, shortAssertion).requireToken(t, short, "")
	ours.requestToken(t, ourAssertion).requireToken(t, ours, "")
	p.wait(50 * time.Second)
	long.requestToken(t, longAssertion).requireRejection(t, reused)
	short.requestToken(t, shortAssertion).requireRejection(t, reused)
	ours.requestToken(t, ourAssertion).requireRejection(t, reused)
	p.wait(11 * time.Second)
	again := long.requestToken(t, longAssertion)
	for tries := 0; again.status != http.StatusOK && tries < 9; tries++ {
		p.wait(time.Second) // a busy server stored the jti later than it received it
		again = long.requestToken(t, longAssertion)
	}
	again.requireToken(t, long, "")
	short.requestToken(t, shortAssertion).requireRejection(t, notActive)
	ours.requestToken(t, ourAssertion).requireRejection(t, notActive)
}

func testJWKSReload(t *testing.T, p *provider) {
	oldKey, newKey := testKeys()["rsa"], testKeys()["p256"]
	host, nameless := newJWKSHost(t, oldKey.jwk()), newJWKSHost(t, oldKey.jwk())
	c := p.newClient(t, "", jwksURL(host.URL))
	withoutKID := p.newClient(t, "", jwksURL(nameless.URL))
	withOld, withNew := *c, *c
	withOld.key, withNew.key = oldKey, newKey

	withOld.requestToken(t, withOld.sign(t)).requireToken(t, c, "")
	withoutKID.requestToken(t, withoutKID.sign(t, header("kid", nil))).requireToken(t, withoutKID,
		"")
	host.publish(newKey.jwk())
	p.wait(5 * time.Second)
	withNew.requestToken(t, withNew.sign(t)).requireRejection(t, noKey)
	withOld.requestToken(t, withOld.sign(t)).requireToken(t, c, "")
	withoutKID.requestToken(t, withoutKID.sign(t, header("kid", nil))).requireToken(t, withoutKID,
		"")
	require.EqualValues(t, 1, host.fetches.Load())
	require.EqualValues(t, 1, nameless.fetches.Load())

	p.wait(reloadInterval - 5*time.Second)
	withOld.requestToken(t, withOld.sign(t)).requireToken(t, c, "") // though no longer published
	require.EqualValues(t, 1, host.fetches.Load())
	withNew.requestToken(t, withNew.sign(t)).requireToken(t, c, "")
	require.EqualValues(t, 2, host.fetches.Load())
	withOld.requestToken(t, withOld.sign(t)).requireRejection(t, noKey)
	require.EqualValues(t, 2, host.fetches.Load())
	withoutKID.requestToken(t, withoutKID.sign(t, header("kid", nil))).requireToken(t, withoutKID,
		"")
	// Only a fresh load decides which key is meant.
	require.EqualValues(t, 2, nameless.fetches.Load())
}

func testSlowJWKS(t *testing.T, p *provider) {
	c := p.newClient(t, "", jwksSlow())
	start := time.Now()
	c.requestToken(t, c.sign(t)).requireRejection(t,
		loading+"java.net.SocketTimeoutException: Read timed out")
	require.InDelta(t, 5, time.Since(start).Seconds(), 3)
}

func testReuse(t *testing.T, p *provider) {
	c := p.newClient(t, "")
	assertion := c.sign(t)
	c.requestToken(t, assertion).requireToken(t, c, "")
	c.requestToken(t, assertion).requireRejection(t, reused)
}

func testReuseAcrossRealms(t *testing.T, p *provider) {
	here, there := p.newClient(t, ""), p.inOtherRealm().newClient(t, "other")
	jti := claim("jti", rand.Text())
	here.requestToken(t, here.sign(t, jti)).requireToken(t, here, "")
	there.requestToken(t, there.sign(t, jti)).requireRejection(t, reused)
}

func testRejectedSignatureKeepsJTI(t *testing.T, p *provider) {
	c := p.newClient(t, "")
	jti := claim("jti", rand.Text())
	forger := *c
	forger.key = testKeys()["other"]
	c.requestToken(t, forger.sign(t, jti, header("kid", c.key.id()))).requireRejection(t,
		badSignature)
	c.requestToken(t, c.sign(t, jti)).requireToken(t, c, "")
}

func testRejectedScopeUsesJTI(t *testing.T, p *provider) {
	c := p.newClient(t, "")
	assertion := c.sign(t)
	got := c.requestToken(t, assertion, with("scope", "nope"))
	got.requireRejection(t, "400 invalid_scope: Invalid scopes: nope")
	c.requestToken(t, assertion).requireRejection(t, reused)
}

func testNewKey(t *testing.T, p *provider) {
	c := p.newClient(t, "")
	c.token(t)
	old := *c
	c.key = testKeys()["ed25519"]
	c.update(t, pasted(c.key.pem()))
	c.token(t)
	old.requestToken(t, old.sign(t)).requireRejection(t, noKey)
}

func testDisable(t *testing.T, p *provider) {
	c, introspector := p.newClient(t, ""), p.newIntrospector(t)
	token := c.token(t)
	c.update(t, registered(func(c *keycloak.Client) { c.Enabled = false }))
	c.requestToken(t, c.sign(t)).requireRejection(t, unknownClient)
	require.Equal(t, map[string]any{"active": false}, introspector(token))
	c.update(t, registered(func(c *keycloak.Client) { c.Enabled = true }))
	c.token(t)
}

// newIntrospector registers a confidential client and returns a function that introspects a token.
func (p *provider) newIntrospector(t *testing.T) func(token string) map[string]any {
	t.Helper()
	c := keycloak.SecretClient("introspector-"+rand.Text(), "s3cret")
	require.NoError(t, p.admin.PutClient(t.Context(), p.realm, c))
	return func(token string) map[string]any {
		claims, err := p.admin.Introspect(t.Context(), p.realm, c.ClientID, c.Secret, token)
		require.NoError(t, err)
		return claims
	}
}

func testRevocation(t *testing.T, p *provider) {
	c, other, introspect := p.newClient(t, ""), p.newClient(t, ""), p.newIntrospector(t)
	token := c.token(t)

	rejectedForOther := other.revoke(t, url.Values{"token": {token}})
	rejectedForOther.requireRejection(t, "400 invalid_request: Unmatching clients")
	rejectedForOther.requireHeader(t, p, "Content-Type", "application/json")
	require.Equal(t, true, introspect(token)["active"])

	for range 2 {
		revoked := c.revoke(t, url.Values{"token": {token}})
		require.Equal(t, http.StatusOK, revoked.status)
		require.Empty(t, revoked.body)
		revoked.requireHeader(t, p, "Content-Security-Policy",
			"frame-src 'self'; frame-ancestors 'self'; object-src 'none';")
	}
	require.Equal(t, map[string]any{"active": false}, introspect(token))
	require.Equal(t, http.StatusOK, p.callAPI(token), "a gateway that checks offline")

	c.revoke(t, url.Values{"token": {"unknown"}}).requireRejection(t,
		"200 invalid_token: Invalid token")
	c.revoke(t, url.Values{}).requireRejection(t, "400 invalid_request: Token not provided")
	c.revoke(t, url.Values{"token": {token, token}}).requireRejection(t, duplicated)
}

func testRevocationClientAuthentication(t *testing.T, p *provider) {
	c := p.newClient(t, "")
	token := c.token(t)
	wrongAudience := audience("/protocol/openid-connect/revoke")
	revoked := c.revoke(t, url.Values{"token": {token}}, wrongAudience)
	revoked.requireRejection(t, invalidAudience)
	c.revoke(t, url.Values{"token": {token}}, header("kid", "x")).requireRejection(t, noKey)
	post(t, p.endpoint("revoke"), url.Values{"token": {token}}).requireRejection(t, unknownClient)
}

func testIntrospection(t *testing.T, p *provider) {
	c := p.newClient(t, "", scopes("email", ""), attribute(keycloak.AttributeTokenLifespan, "30"),
		attribute(keycloak.AttributeIntrospectAny, "true"))
	introspect := p.newIntrospector(t)
	got := c.requestToken(t, c.sign(t))
	got.requireToken(t, c, "email")
	token := got.json["access_token"].(string)
	_, claims := open(t, token)

	introspected := introspect(token)
	for _, name := range []string{
		"exp", "iat", "jti", "iss", "sub", "typ", "azp", "client_id", "scope",
	} {
		require.Equal(t, claims[name], introspected[name], name)
	}
	require.Equal(t, true, introspected["active"])
	require.Equal(t, "Bearer", introspected["token_type"])
	require.Contains(t, introspected["username"], "service-account-/portal/")
	require.Equal(t, map[string]any{"active": false}, introspect("unknown"))
	require.Equal(t, map[string]any{"active": false}, p.inOtherRealm().newIntrospector(t)(token))

	send := func(values url.Values) response {
		form := c.authenticated(c.sign(t))
		for name := range values {
			form[name] = values[name]
		}
		return post(t, p.endpoint("token/introspect"), form)
	}
	itself := send(url.Values{"token": {token}})
	require.Equal(t, true, itself.json["active"])
	itself.requireHeader(t, p, "Content-Type", "application/json", "Cache-Control", "no-cache")
	c.update(t, attribute(keycloak.AttributeIntrospectAny, "false"))
	itself = send(url.Values{"token": {token}})
	require.Equal(t, p.is("< 26.7"), itself.json["active"], "the token has no audience")
	send(nil).requireRejection(t, "400 invalid_request: Token not provided.")
	send(url.Values{"token": {token, token}}).requireRejection(t, duplicated)
	rejected := send(url.Values{"token": {token}, "client_assertion": {"x"}})
	if p.is(">= 26.7") {
		rejected.requireRejection(t, noJWT)
		return
	}
	rejected.requireRejection(t, "401 invalid_request: Authentication failed.")
}

func testDiscovery(t *testing.T, p *provider) {
	got := get(t, p.issuer()+"/.well-known/openid-configuration")
	require.Equal(t, http.StatusOK, got.status)
	got.requireHeader(t, p, "Content-Type", "application/json",
		"Cache-Control", "no-cache, must-revalidate, no-transform, no-store")
	require.Equal(t, p.issuer(), got.json["issuer"])
	for member, path := range map[string]string{
		"token_endpoint": "token", "introspection_endpoint": "token/introspect",
		"revocation_endpoint": "revoke", "jwks_uri": "certs",
	} {
		require.Equal(t, p.endpoint(path), got.json[member])
	}
	require.Contains(t, got.json["grant_types_supported"], "client_credentials")
	for _, method := range []string{
		"private_key_jwt", "client_secret_basic", "client_secret_post",
	} {
		require.Contains(t, got.json["token_endpoint_auth_methods_supported"], method)
	}
	algorithms := got.json["token_endpoint_auth_signing_alg_values_supported"]
	for _, key := range testKeys() {
		require.Contains(t, algorithms, string(key.alg))
	}

	certs := get(t, p.endpoint("certs"))
	certs.requireHeader(t, p, "Content-Type", "application/json", "Cache-Control", "no-cache")
	tokenHeader, _ := open(t, p.newClient(t, "").token(t))
	var found bool
	for _, key := range certs.json["keys"].([]any) {
		key := key.(map[string]any)
		if key["kid"] == tokenHeader["kid"] {
			require.Equal(t, "sig", key["use"])
			require.Equal(t, "RS256", key["alg"])
			require.Equal(t, "RSA", key["kty"])
			found = true
		}
	}
	require.True(t, found)
}

func testWrongURLs(t *testing.T, p *provider) {
	unknown := p.admin.Issuer("unknown")
	for _, got := range []response{
		get(t, unknown+"/.well-known/openid-configuration"),
		post(t, unknown+"/protocol/openid-connect/token", nil),
		post(t, unknown+"/protocol/openid-connect/revoke", nil),
	} {
		got.requireRejection(t, "404 Realm does not exist")
		got.requireHeader(t, p, "Content-Type", "application/json")
	}
	const notAllowed = "405 HTTP 405 Method Not Allowed"
	post(t, p.issuer(), nil).requireRejection(t, notAllowed) // the issuer for the token endpoint
	get(t, p.endpoint("token")).requireRejection(t, notAllowed)
	get(t, p.endpoint("revoke")).requireRejection(t, notAllowed)
	post(t, p.issuer()+"/token", nil).requireRejection(t, "404 HTTP 404 Not Found")
}
