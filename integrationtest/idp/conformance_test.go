package idp_test

import (
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/go-jose/go-jose/v4"

	"github.com/bcgov/vault-plugin-bcgov-jwt/integrationtest/keycloak"
)

// TestEmbedded_MatchesTable checks the stand-in against the table.
func TestEmbedded_MatchesTable(t *testing.T) {
	t.Parallel()
	testConformance(t, newStandIn)
}

// TestKeycloak_MatchesTable checks the table against a real Keycloak, so that the stand-in cannot
// drift from it.
func TestKeycloak_MatchesTable(t *testing.T) {
	t.Parallel()
	p := newKeycloak(t)
	testConformance(t, func(*testing.T) *provider { return p })
}

func testConformance(t *testing.T, newProvider func(*testing.T) *provider) {
	t.Helper()
	for _, sequence := range sequences() { // first, because some of them wait long
		t.Run(sequence.name, func(t *testing.T) {
			t.Parallel()
			sequence.run(t, newProvider(t))
		})
	}
	for _, c := range cases() {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			p := newProvider(t).newClient(t, c.key, c.client...)
			got := p.requestToken(t, p.sign(t, c.assertion...), c.form...)
			got.requireHeader(t, p.provider,
				"Content-Type", "application/json", "Cache-Control", "no-store", "Pragma", "no-cache")
			if rejection := c.rejectionBy(p.provider); rejection != "" {
				got.requireRejection(t, rejection)
				return
			}
			got.requireToken(t, p, c.scope)
		})
	}
}

// conformanceCase is one token request that differs in one way from a valid one, and its response:
// a token with the scope, or the rejection. Unlike versions of Keycloak have a rejection of their
// own, or none.
type conformanceCase struct {
	name      string
	key       string
	client    []registration
	assertion []mutation
	form      []formChange
	rejection string
	unlike    in
	scope     string
}

// in maps versions of Keycloak, as in "< 26.5", to what they respond.
type in map[string]string

func (c conformanceCase) rejectionBy(p *provider) string {
	for versions, rejection := range c.unlike {
		if p.is(versions) {
			return rejection
		}
	}
	return c.rejection
}

// What a case changes: the registration, the assertion, the form that carries it.
type (
	registration func(*testing.T, *keycloak.Client)
	mutation     func(p *registeredClient, header, claims map[string]any)
	formChange   func(url.Values)
)

func attribute(name, value string) registration {
	return func(_ *testing.T, c *keycloak.Client) { c.Attributes[name] = value }
}

func registered(change func(*keycloak.Client)) registration {
	return func(_ *testing.T, c *keycloak.Client) { change(c) }
}

func scopes(byDefault, optional string) registration {
	return registered(func(c *keycloak.Client) {
		c.DefaultClientScopes = strings.Fields(byDefault)
		c.OptionalClientScopes = strings.Fields(optional)
	})
}

// pasted registers a text in place of the public key.
func pasted(text string) registration { return attribute(keycloak.AttributePublicKey, text) }

// jwksURL registers a JWKS URL in place of the public key.
func jwksURL(target string) registration {
	return func(_ *testing.T, c *keycloak.Client) {
		c.Attributes = map[string]string{
			keycloak.AttributeUseJWKSURL: "true", keycloak.AttributeJWKSURL: target,
		}
	}
}

// jwks registers the URL of a document with these keys.
func jwks(keys ...jose.JSONWebKey) registration {
	return func(t *testing.T, c *keycloak.Client) { jwksURL(newJWKSHost(t, keys...).URL)(t, c) }
}

// jwksHandler registers a JWKS URL that a handler serves.
func jwksHandler(handler http.Handler) registration {
	return func(t *testing.T, c *keycloak.Client) {
		server := httptest.NewServer(handler)
		t.Cleanup(server.Close)
		jwksURL(server.URL)(t, c)
	}
}

func jwksBody(body string) registration {
	return jwksHandler(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, body)
	}))
}

// jwksSlow registers a JWKS URL that never responds.
func jwksSlow() registration {
	return jwksHandler(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		<-r.Context().Done()
	}))
}

func jwksRedirect(keys ...jose.JSONWebKey) registration {
	return func(t *testing.T, c *keycloak.Client) {
		jwksHandler(http.RedirectHandler(newJWKSHost(t, keys...).URL, http.StatusFound))(t, c)
	}
}

func header(name string, value any) mutation {
	return func(_ *registeredClient, header, _ map[string]any) { header[name] = value }
}

func claim(name string, value any) mutation {
	return func(_ *registeredClient, _, claims map[string]any) { claims[name] = value }
}

// clock sets a time claim to so many seconds from now.
func clock(name string, offset int64) mutation {
	return func(p *registeredClient, _, claims map[string]any) {
		claims[name] = p.now().Unix() + offset
	}
}

// audience sets aud to the realm's issuer with a suffix.
func audience(suffix string) mutation {
	return func(p *registeredClient, _, claims map[string]any) {
		claims["aud"] = p.issuer() + suffix
	}
}

// audiences sets aud to a list of the realm's issuer and more.
func audiences(more ...string) mutation {
	return func(p *registeredClient, _, claims map[string]any) {
		claims["aud"] = append([]string{p.issuer()}, more...)
	}
}

func with(name string, values ...string) formChange {
	return func(form url.Values) { form[name] = values }
}

func without(names ...string) formChange {
	return func(form url.Values) {
		for _, name := range names {
			form.Del(name)
		}
	}
}

// forged puts another header in front of the signed assertion.
func forged(header string) formChange {
	return func(form url.Values) {
		_, rest, _ := strings.Cut(form.Get("client_assertion"), ".")
		encoded := base64.RawURLEncoding.EncodeToString([]byte(header))
		form.Set("client_assertion", encoded+"."+rest)
	}
}

const (
	unknownClient    = "401 invalid_client: Invalid client or Invalid client credentials"
	unexpected       = "400 unauthorized_client: Unexpected error when authenticating client"
	invalidAlgorithm = "400 invalid_client: Invalid signature algorithm"
	noKey            = "400 invalid_client: Unable to load public key"
	signedJWTFailed  = "400 invalid_client: Client authentication with signed JWT failed: "
	noJWT            = signedJWTFailed + "java.lang.IllegalArgumentException: Parsing error"
	badSignature     = signedJWTFailed + "Signature on JWT token failed validation"
	loading          = signedJWTFailed + "Error when loading public keys: "
	notOK            = loading + "org.apache.http.client.HttpResponseException: status code: "
	badKeySpec       = loading + "java.lang.RuntimeException: " +
		"org.keycloak.common.util.PemException: java.security.spec.InvalidKeySpecException: " +
		"encoded key spec not recognized: "
	invalidAudience = "400 invalid_client: Invalid token audience"
	notActive       = "400 invalid_client: Token is not active"
	reused          = "400 invalid_client: Token reuse detected"
	noSubject       = "400 invalid_client: Token sub claim is required"
	duplicated      = "400 invalid_request: duplicated parameter"
)

// These keep the rows of the table short.
type (
	clients []registration
	signed  []mutation
	forms   []formChange
)

func cases() []conformanceCase {
	return slices.Concat(requestCases(), audienceCases(), timeCases(), clientCases(),
		algorithmCases(), pastedKeyCases(), jwksCases())
}

// What is requested and granted.
func requestCases() []conformanceCase {
	two := scopes("profile email", "address phone")
	return []conformanceCase{
		{name: "client like the portal's: no scope"},
		{name: "token lifespan of the client", client: clients{attribute(keycloak.AttributeTokenLifespan, "77")}},
		{name: "scopes: the default ones are granted unasked", client: clients{two}, scope: "profile email"},
		{name: "scopes: an optional one comes on top", client: clients{two}, form: forms{with("scope", "address")}, scope: "profile email address"},
		{name: "scopes: a default one may be requested", client: clients{two}, form: forms{with("scope", "email")}, scope: "profile email"},
		{name: "scopes: openid brings an id_token", form: forms{with("scope", "openid")}, scope: "openid"},
		{name: "scopes: openid with others", client: clients{two}, form: forms{with("scope", "openid phone")}, scope: "openid profile email phone"},
		{name: "scopes: unknown", form: forms{with("scope", "nope")}, rejection: "400 invalid_scope: Invalid scopes: nope"},
		{name: "scopes: unknown with known", client: clients{two}, form: forms{with("scope", "email nope")}, rejection: "400 invalid_scope: Invalid scopes: email nope"},
		{name: "scopes: the parameter scopes is ignored", form: forms{with("scopes", "openid")}},
		{name: "grant_type: absent", form: forms{without("grant_type")}, rejection: "400 invalid_request: Missing form parameter: grant_type"},
		{name: "grant_type: unknown, told before the client", form: forms{with("grant_type", "x"), with("client_id", "x")}, rejection: "400 unsupported_grant_type: Unsupported grant_type"},
		{name: "a parameter twice", form: forms{with("scope", "", "")}, rejection: duplicated},
		{name: "a parameter twice, told after the client", form: forms{with("scope", "", "")}, assertion: signed{claim("aud", "x")}, rejection: invalidAudience},
		{name: "a parameter that Keycloak does not know", form: forms{with("resource", "https://example.com")}},
	}
}

func audienceCases() []conformanceCase {
	return []conformanceCase{
		{name: "aud: token endpoint", assertion: signed{audience("/protocol/openid-connect/token")}},
		{name: "aud: introspection endpoint", assertion: signed{audience("/protocol/openid-connect/token/introspect")}},
		{name: "aud: PAR endpoint", assertion: signed{audience("/protocol/openid-connect/ext/par/request")}},
		{name: "aud: CIBA endpoint", assertion: signed{audience("/protocol/openid-connect/ext/ciba/auth")}},
		{name: "aud: revocation endpoint", assertion: signed{audience("/protocol/openid-connect/revoke")}, rejection: invalidAudience},
		{name: "aud: list of one", assertion: signed{audiences()}},
		{name: "aud: list of two", assertion: signed{audiences("https://example.com")}, rejection: "400 invalid_client: Multiple audiences not allowed"},
		{name: "aud: list of two others", assertion: signed{claim("aud", []string{"a", "b"})}, rejection: invalidAudience},
		{name: "aud: trailing slash", assertion: signed{audience("/")}, rejection: invalidAudience},
		{name: "aud: absent", assertion: signed{claim("aud", nil)}, rejection: invalidAudience},
		{name: "aud is checked before exp", assertion: signed{claim("aud", "x"), claim("exp", nil)}, rejection: invalidAudience},
	}
}

// The times keep two seconds from each limit, so that a slow machine does not matter.
func timeCases() []conformanceCase {
	return []conformanceCase{
		{name: "exp: 5 min after iat", assertion: signed{clock("exp", 300)}},
		{name: "exp: absent", assertion: signed{claim("exp", nil)}, rejection: "400 invalid_client: Token exp claim is required"},
		{name: "exp: past, without skew", assertion: signed{clock("iat", -12), clock("exp", -2)}, rejection: notActive},
		{name: "a clock 90 s behind", assertion: signed{clock("iat", -90), clock("exp", -45)}, rejection: notActive},
		{name: "a clock 90 s ahead", assertion: signed{clock("iat", 90), clock("exp", 135)}, rejection: "400 invalid_client: Token was issued in the future"},
		{name: "iat: 55 s ago", assertion: signed{clock("iat", -55)}},
		{name: "iat: 62 s ago", assertion: signed{clock("iat", -62)}, rejection: "400 invalid_client: Token was issued too far in the past to be used now"},
		{name: "iat: 62 s ago, where the client may", client: clients{attribute(keycloak.AttributeMaxAge, "120")}, assertion: signed{clock("iat", -62)}},
		{name: "iat: 14 s ahead", assertion: signed{clock("iat", 14)}},
		{name: "iat: 30 s ahead", assertion: signed{clock("iat", 30)}, rejection: "400 invalid_client: Token was issued in the future"},
		{name: "iat: absent, exp in 45 s", assertion: signed{claim("iat", nil)}},
		{name: "iat: absent, exp in 300 s", assertion: signed{claim("iat", nil), clock("exp", 300)}, rejection: "400 invalid_client: Token expiration is too far in the future and iat claim not present in token"},
		{name: "iat: absent, exp past", assertion: signed{claim("iat", nil), clock("exp", -2)}, rejection: notActive},
		{name: "nbf: 13 s ahead", assertion: signed{clock("nbf", 13)}},
		{name: "nbf: 30 s ahead", assertion: signed{clock("nbf", 30)}, rejection: notActive},
		{name: "jti: absent", assertion: signed{claim("jti", nil)}, rejection: "400 invalid_client: Token jti claim is required"},
		{name: "typ: client-authentication+jwt", assertion: signed{header("typ", "client-authentication+jwt")}},
		{name: "typ: absent", assertion: signed{header("typ", nil)}},
		{name: "typ: any", assertion: signed{header("typ", "any")}},
	}
}

// Who requests a token, and in which form.
func clientCases() []conformanceCase {
	disabled := registered(func(c *keycloak.Client) { c.Enabled = false })
	noAccount := registered(func(c *keycloak.Client) { c.ServiceAccountsEnabled = false })
	public := registered(func(c *keycloak.Client) { c.PublicClient = true })
	bearerOnly := registered(func(c *keycloak.Client) { c.BearerOnly = true })
	bySecret := registered(func(c *keycloak.Client) {
		c.ClientAuthenticatorType, c.Secret = keycloak.AuthenticatorSecret, "s3cret"
	})
	return []conformanceCase{
		{name: "client_id: absent", form: forms{without("client_id")}},
		{name: "client_id: unknown", form: forms{with("client_id", "unknown")}, rejection: unknownClient},
		{name: "client_id and assertion: unknown", form: forms{with("client_id", "unknown")}, assertion: signed{claim("iss", "unknown"), claim("sub", "unknown")}, rejection: unknownClient},
		{name: "client_id: another than the assertion's", assertion: signed{claim("iss", "other"), claim("sub", "other")}, rejection: "400 invalid_client: client_id parameter does not match sub claim", unlike: in{">= 26.7": unknownClient}},
		{name: "iss: another than sub", assertion: signed{claim("iss", "other")}, rejection: unknownClient, unlike: in{"< 26.5": unexpected}},
		{name: "iss: absent", assertion: signed{claim("iss", nil)}, rejection: unknownClient, unlike: in{"< 26.5": unexpected}},
		{name: "sub: absent", assertion: signed{claim("sub", nil)}, rejection: unknownClient, unlike: in{"< 26.5": noSubject}},
		{name: "iss and sub: absent", assertion: signed{claim("iss", nil), claim("sub", nil)}, rejection: noSubject},
		{name: "client_assertion_type: absent", form: forms{without("client_assertion_type")}, rejection: "400 invalid_client: Parameter client_assertion_type is missing"},
		{name: "client_assertion_type: another", form: forms{with("client_assertion_type", "x")}, rejection: "400 invalid_client: Parameter client_assertion_type has value 'x' but expected is 'urn:ietf:params:oauth:client-assertion-type:jwt-bearer'"},
		{name: "client_assertion: absent", form: forms{without("client_assertion")}, rejection: "400 invalid_client: client_assertion parameter missing"},
		{name: "client_assertion: no JWT", form: forms{with("client_assertion", "junk")}, rejection: noJWT},
		{name: "no client authentication", form: forms{without("client_id", "client_assertion", "client_assertion_type")}, rejection: unknownClient},
		{name: "a secret beside the assertion", form: forms{with("client_secret", "x")}},
		{name: "disabled client", client: clients{disabled}, rejection: unknownClient},
		{name: "disabled client, told before the key", client: clients{disabled, pasted("junk")}, rejection: unknownClient},
		{name: "no service account", client: clients{noAccount}, rejection: "401 unauthorized_client: Client not enabled to retrieve service account"},
		{name: "no service account, told before the scope", client: clients{noAccount}, form: forms{with("scope", "nope")}, rejection: "401 unauthorized_client: Client not enabled to retrieve service account"},
		{name: "public client", client: clients{public}, rejection: "401 unauthorized_client: Public client not allowed to retrieve service account"},
		{name: "bearer-only client", client: clients{bearerOnly}, rejection: "400 invalid_client: Bearer-only not allowed"},
		{name: "client with a secret", client: clients{bySecret}, rejection: "401 unauthorized_client: Invalid client or Invalid client credentials"},
		{name: "client with a secret, disabled", client: clients{bySecret, disabled}, rejection: unknownClient},
		{name: "client with a secret, client_id absent", client: clients{bySecret}, form: forms{without("client_id")}, rejection: unknownClient},
		{name: "client with a secret, wrong", client: clients{bySecret}, form: forms{with("client_secret", "x")}, rejection: "401 unauthorized_client: Invalid client or Invalid client credentials"},
		{name: "client with a secret, right", client: clients{bySecret}, form: forms{with("client_secret", "s3cret")}},
	}
}

// Every algorithm with every way to register and to name a key.
func algorithmCases() []conformanceCase {
	var cases []conformanceCase
	for _, pair := range []struct {
		key string
		alg jose.SignatureAlgorithm
	}{
		{"rsa", jose.RS256},
		{"rsa", jose.RS384},
		{"rsa", jose.RS512},
		{"rsa", jose.PS256},
		{"rsa", jose.PS384},
		{"rsa", jose.PS512},
		{"rsa4096", jose.RS256},
		{"p256", jose.ES256},
		{"p384", jose.ES384},
		{"p521", jose.ES512},
		{"ed25519", jose.EdDSA},
	} {
		name, alg := pair.key+" "+string(pair.alg)+", ", header("alg", string(pair.alg))
		published := jwks(testKeys()[pair.key].jwk())
		// Without kid a key is assumed to be for RS256 unless its kind decides; a pasted EC key's
		// does not.
		pastedWithoutKID, publishedWithoutKID := noKey, noKey
		if pair.alg == jose.RS256 || pair.alg == jose.EdDSA {
			pastedWithoutKID = ""
		}
		if pair.alg == jose.RS256 || pair.key[0] != 'r' {
			publishedWithoutKID = ""
		}
		var unlikePasted, unlikeWithoutKID in
		if pair.key[0] == 'p' {
			unlikePasted = in{"< 26.5": badSignature}
		}
		if pair.alg == jose.ES512 || pair.alg == jose.EdDSA {
			unlikeWithoutKID = in{"< 26.5": noKey}
		}
		cases = append(cases,
			conformanceCase{name: name + "PEM", key: pair.key, assertion: signed{alg}, unlike: unlikePasted},
			conformanceCase{name: name + "PEM, kid wrong", key: pair.key, assertion: signed{alg, header("kid", "x")}, rejection: noKey},
			conformanceCase{name: name + "PEM, kid absent", key: pair.key, assertion: signed{alg, header("kid", nil)}, rejection: pastedWithoutKID, unlike: unlikeWithoutKID},
			conformanceCase{name: name + "JWKS", key: pair.key, client: clients{published}, assertion: signed{alg}},
			conformanceCase{name: name + "JWKS, kid wrong", key: pair.key, client: clients{published}, assertion: signed{alg, header("kid", "x")}, rejection: noKey},
			conformanceCase{name: name + "JWKS, kid absent", key: pair.key, client: clients{published}, assertion: signed{alg, header("kid", nil)}, rejection: publishedWithoutKID, unlike: unlikeWithoutKID},
			conformanceCase{name: name + "pinned", key: pair.key, client: clients{attribute(keycloak.AttributeAlgorithm, string(pair.alg))}, assertion: signed{alg}, unlike: unlikePasted},
		)
	}
	rsaID, p256ID := testKeys()["rsa"].id(), testKeys()["p256"].id()
	return append(cases,
		conformanceCase{name: "alg: another than the pinned one", client: clients{attribute(keycloak.AttributeAlgorithm, "RS512")}, rejection: invalidAlgorithm},
		conformanceCase{name: "alg is checked before the key", client: clients{attribute(keycloak.AttributeAlgorithm, "RS512"), pasted("junk")}, rejection: invalidAlgorithm},
		conformanceCase{name: "alg: absent", form: forms{forged(`{"kid":"` + rsaID + `"}`)}, rejection: invalidAlgorithm},
		conformanceCase{name: "alg: none", form: forms{forged(`{"alg":"none","kid":"` + rsaID + `"}`)}, rejection: badSignature, unlike: in{">= 26.7": invalidAlgorithm}},
		conformanceCase{name: "alg: none, kid absent", form: forms{forged(`{"alg":"none"}`)}, rejection: noKey, unlike: in{">= 26.7": invalidAlgorithm}},
		conformanceCase{name: "alg: HS256", form: forms{forged(`{"alg":"HS256","kid":"` + rsaID + `"}`)}, rejection: badSignature, unlike: in{">= 26.7": invalidAlgorithm}},
		conformanceCase{name: "alg: ES384 for a P-256 key", key: "p256", form: forms{forged(`{"alg":"ES384","kid":"` + p256ID + `"}`)}, rejection: badSignature},
		conformanceCase{name: "alg: RS256 for a P-256 key, kid absent", key: "p256", form: forms{forged(`{"alg":"RS256"}`)}, rejection: badSignature, unlike: in{"< 26.5": noKey}},
		conformanceCase{name: "signature is checked before aud", form: forms{forged(`{"alg":"RS256","kid":"` + rsaID + `"}`)}, assertion: signed{claim("aud", "x")}, rejection: badSignature},
	)
}

// What may be pasted as a public key.
func pastedKeyCases() []conformanceCase {
	key, other := testKeys()["rsa"], testKeys()["other"]
	private := key.private.(*rsa.PrivateKey)
	certificate := key.certificate()
	const ids = keycloak.AttributeKeyID
	return []conformanceCase{
		{name: "pasted: none", client: clients{pasted("")}, rejection: noKey},
		{name: "pasted: base64 without PEM lines", client: clients{pasted(base64.StdEncoding.EncodeToString(key.der()))}},
		{name: "pasted: PEM with CRLF", client: clients{pasted(strings.ReplaceAll(key.pem(), "\n", "\r\n"))}},
		{name: "pasted: PEM on one line", client: clients{pasted(strings.ReplaceAll(key.pem(), "\n", " "))}, rejection: badKeySpec + "Cannot invoke \"Object.getClass()\" because \"<parameter1>\" is null"},
		{name: "pasted: PKCS#1 public key", client: clients{pasted(encodePEM("RSA PUBLIC KEY", x509.MarshalPKCS1PublicKey(&private.PublicKey)))}, rejection: badKeySpec + "unknown object in getInstance: org.bouncycastle.asn1.ASN1Integer"},
		{name: "pasted: PKCS#8 private key", client: clients{pasted(encodePEM("PRIVATE KEY", key.pkcs8()))}, rejection: badKeySpec + "Bad sequence size: 3"},
		{name: "pasted: PKCS#1 private key", client: clients{pasted(encodePEM("RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(private)))}, rejection: badKeySpec + "Bad sequence size: 9"},
		{name: "pasted: certificate", client: clients{pasted(certificate)}, rejection: badKeySpec + "Bad sequence size: 3"},
		{name: "pasted: junk", client: clients{pasted("junk")}, rejection: badKeySpec + "failed to construct sequence from byte[]: EOF found reading length"},
		{name: "pasted: another key", client: clients{pasted(other.pem())}, rejection: noKey},
		{name: "pasted: another key, kid absent", client: clients{pasted(other.pem())}, assertion: signed{header("kid", nil)}, rejection: badSignature},
		{name: "pasted: another key under this one's id", client: clients{pasted(other.pem()), attribute(ids, key.id())}, rejection: badSignature},
		{name: "jwt.credential.kid: another id", client: clients{attribute(ids, "k1")}, rejection: noKey},
		{name: "jwt.credential.kid: the assertion's", client: clients{attribute(ids, "k1")}, assertion: signed{header("kid", "k1")}},
		{name: "certificate", client: clients{pasted(""), attribute(keycloak.AttributeCertificate, certificate)}},
		{name: "certificate, kid absent", client: clients{pasted(""), attribute(keycloak.AttributeCertificate, certificate)}, assertion: signed{header("kid", nil), header("alg", "RS512")}},
		{name: "certificate and public key", client: clients{attribute(keycloak.AttributeCertificate, certificate)}, rejection: noKey},
	}
}

func jwksCases() []conformanceCase {
	plain := testKeys()["rsa"].jwk()
	forEncryption, anyUse, onlyRS256, unnamed := plain, plain, plain, plain
	forEncryption.Use, anyUse.Use, onlyRS256.Algorithm, unnamed.KeyID = "enc", "", "RS256", ""
	impostor := testKeys()["other"].jwk()
	impostor.KeyID = plain.KeyID
	return []conformanceCase{
		{name: "JWKS: empty", client: clients{jwks()}, rejection: noKey},
		{name: "JWKS: use enc", client: clients{jwks(forEncryption)}, rejection: noKey},
		{name: "JWKS: without use", client: clients{jwks(anyUse)}},
		{name: "JWKS: alg the assertion's", client: clients{jwks(onlyRS256)}},
		{name: "JWKS: alg another", client: clients{jwks(onlyRS256)}, assertion: signed{header("alg", "RS512")}, rejection: badSignature},
		{name: "JWKS: alg another, kid absent", client: clients{jwks(onlyRS256)}, assertion: signed{header("alg", "RS512"), header("kid", nil)}, rejection: noKey},
		{name: "JWKS: without kid, kid absent", client: clients{jwks(unnamed)}, assertion: signed{header("alg", "RS512"), header("kid", nil)}},
		{name: "JWKS: two equal kids, the first is right", client: clients{jwks(plain, impostor)}},
		{name: "JWKS: two equal kids, the first is wrong", client: clients{jwks(impostor, plain)}, rejection: badSignature},
		{name: "JWKS: two keys", client: clients{jwks(testKeys()["p256"].jwk(), plain)}},
		{name: "JWKS: a key of an unknown type beside", client: clients{jwksBody(`{"keys":[{"kty":"XX","kid":"a"},` + string(must(plain.MarshalJSON())) + `]}`)}},
		{name: "JWKS: no JSON", client: clients{jwksBody("junk")}, rejection: loading + "com.fasterxml.jackson.core.JsonParseException: …"},
		{name: "JWKS: not found", client: clients{jwksHandler(http.NotFoundHandler())}, rejection: notOK + "404, reason phrase: Not Found"},
		{name: "JWKS: redirect", client: clients{jwksRedirect(plain)}, unlike: in{">= 26.7": notOK + "302, reason phrase: Found"}},
		{name: "JWKS: nothing listens", client: clients{jwksURL("http://127.0.0.1:1/jwks")}, rejection: loading + "org.apache.http.conn.HttpHostConnectException: Connect to 127.0.0.1:1 [/127.0.0.1] failed: Connection refused"},
	}
}
