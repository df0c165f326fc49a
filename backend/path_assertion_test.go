package backend

import (
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/hashicorp/vault/sdk/logical"
	"github.com/stretchr/testify/require"
)

// newAssertionMount returns a ready mount whose role issues assertions.
func newAssertionMount(tb testing.TB) (*mount, *provider) {
	tb.Helper()
	m, p := newReadyMount(tb)
	m.write("roles/myapi", map[string]any{"allow_assertion": true})
	return m, p
}

// signedClaims returns the claims of an assertion of the key "myapi", after verifying its signature with the version's public key.
func (m *mount) signedClaims(t *testing.T, assertion string, version int) (header jose.Header, claims map[string]any) {
	t.Helper()
	block, _ := pem.Decode([]byte(m.publicKey("myapi", version)))
	public, err := x509.ParsePKIXPublicKey(block.Bytes)
	require.NoError(t, err)
	signed, err := jose.ParseSignedCompact(assertion, []jose.SignatureAlgorithm{jose.EdDSA})
	require.NoError(t, err)
	payload, err := signed.Verify(public)
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(payload, &claims))
	return signed.Signatures[0].Header, claims
}

func TestAssertion_HasAllThatTokenRequestNeeds(t *testing.T) {
	t.Parallel()
	m, p := newAssertionMount(t)
	resp := m.read("assertion/myapi")
	data := resp.Data
	header, claims := m.signedClaims(t, data["client_assertion"].(string), 1)

	issued, expires := int64(claims["iat"].(float64)), int64(claims["exp"].(float64))
	require.InDelta(t, time.Now().Unix(), issued, 30)
	require.Equal(t, int64(45), expires-issued)
	require.Equal(t, map[string]any{
		"iss": "my-client", "sub": "my-client", "aud": p.issuer(), "iat": claims["iat"], "nbf": claims["iat"], "exp": claims["exp"], "jti": data["jti"],
	}, claims)
	require.Equal(t, data["key_id"], header.KeyID)

	delete(data, "client_assertion")
	require.NotEmpty(t, data["jti"])
	require.Equal(t, map[string]any{
		"client_assertion_type": "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
		"client_id":             "my-client",
		"token_endpoint":        p.issuer() + tokenPath,
		"issuer":                p.issuer(),
		"key_id":                m.read("keys/myapi").Data["key_id"],
		"expires_at":            time.Unix(expires, 0).UTC().Format(time.RFC3339),
		"jti":                   data["jti"],
	}, data)
	require.Nil(t, resp.Secret, "no lease")
	require.Empty(t, resp.Warnings)
	require.NotEqual(t, data["jti"], m.read("assertion/myapi").Data["jti"], "a new one each time")
	require.Empty(t, p.requests(tokenPath), "Vault requests no token")
	require.NotContains(t, m.log.String(), "eyJ")
}

// exchange sends an assertion as its caller does.
func (p *provider) exchange(data map[string]any) *httptest.ResponseRecorder {
	form := url.Values{"grant_type": {"client_credentials"}}
	for _, name := range []string{"client_id", "client_assertion", "client_assertion_type"} {
		form.Set(name, data[name].(string))
	}
	r := httptest.NewRequest(http.MethodPost, data["token_endpoint"].(string), strings.NewReader(form.Encode()))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	w := httptest.NewRecorder()
	p.idp.ServeHTTP(w, r)
	return w
}

func TestAssertion_IsValidForOneToken(t *testing.T) {
	t.Parallel()
	m, p := newAssertionMount(t)
	data := m.read("assertion/myapi").Data
	w := p.exchange(data)
	require.Equal(t, http.StatusOK, w.Code)
	var token struct {
		AccessToken string `json:"access_token"`
	}
	require.NoError(t, json.Unmarshal(w.Body.Bytes(), &token))
	require.True(t, p.active(token.AccessToken))

	w = p.exchange(data)
	require.Equal(t, http.StatusBadRequest, w.Code)
	require.Contains(t, w.Body.String(), "Token reuse detected")
}

func TestAssertion_TTLIsTheKeysUpToFiveMinutes(t *testing.T) {
	t.Parallel()
	m, _ := newAssertionMount(t)
	for set, life := range map[string]int64{"30s": 30, "5m": 300, "301s": 300, "1h": 300} {
		m.write("keys/myapi", map[string]any{"assertion_ttl": set})
		data := m.read("assertion/myapi").Data
		_, claims := m.signedClaims(t, data["client_assertion"].(string), 1)
		require.Equal(t, life, int64(claims["exp"].(float64)-claims["iat"].(float64)), set)
		require.Equal(t, time.Unix(int64(claims["exp"].(float64)), 0).UTC().Format(time.RFC3339), data["expires_at"], set)
	}
}

func TestAssertion_FollowsKeySettings(t *testing.T) {
	t.Parallel()
	m, p := newAssertionMount(t)
	m.write("keys/myapi", map[string]any{"send_key_id": false, "audience": "https://other.example", "token_endpoint": p.issuer() + "/elsewhere"})
	data := m.read("assertion/myapi").Data
	header, claims := m.signedClaims(t, data["client_assertion"].(string), 1)
	require.Empty(t, header.KeyID)
	require.Equal(t, "https://other.example", claims["aud"])
	require.Equal(t, p.issuer()+"/elsewhere", data["token_endpoint"])
	require.Empty(t, p.requests(discoveryPath), "the endpoint is set: the provider may be down")

	m.write("keys/myapi/rotate", nil)
	m.signedClaims(t, m.read("assertion/myapi").Data["client_assertion"].(string), 1)
	m.write("keys/myapi/activate", map[string]any{"force": true})
	data = m.read("assertion/myapi").Data
	m.signedClaims(t, data["client_assertion"].(string), 2)
	require.Equal(t, m.version(2)["key_id"], data["key_id"])
}

// TestAssertion_IsSignedByVersionThatWorks covers a node that cannot store what it learned.
func TestAssertion_IsSignedByVersionThatWorks(t *testing.T) {
	t.Parallel()
	m, p := newAssertionMount(t)
	m.read("creds/myapi")
	m.write("keys/myapi/rotate", nil)
	p.registerVersion(m, 2)
	m.storage.failEach(verb.writes)
	m.read("creds/myapi")
	require.Equal(t, 1, m.read("keys/myapi").Data["active_version"])
	m.signedClaims(t, m.read("assertion/myapi").Data["client_assertion"].(string), 2)
}

func TestAssertion_Errors(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		harm   func(*mount, *provider)
		status int
		texts  []string
	}{
		"not allowed": {
			harm:   func(m *mount, _ *provider) { m.write("roles/myapi", map[string]any{"allow_assertion": ""}) },
			status: 400, texts: []string{`role "myapi" issues no assertions; to allow it: vault write bcgov-jwt/roles/myapi allow_assertion=true`},
		},
		"unknown role": {
			harm:   func(m *mount, _ *provider) { m.delete("roles/myapi") },
			status: 400, texts: []string{`unknown role "myapi"`, "vault list bcgov-jwt/roles"},
		},
		"key disabled": {
			harm:   func(m *mount, _ *provider) { m.write("keys/myapi", map[string]any{"disabled": true}) },
			status: 400, texts: []string{`key "myapi" is disabled`, "vault write bcgov-jwt/keys/myapi disabled=false"},
		},
		"key replaced": {
			harm:   func(m *mount, _ *provider) { m.remakeKey("myapi") },
			status: 400, texts: []string{`earlier key "myapi"`, "vault write bcgov-jwt/roles/myapi key=myapi"},
		},
		"key not registered": {
			harm: func(m *mount, _ *provider) {
				m.write("keys/new", map[string]any{"type": "ed25519"})
				m.write("roles/myapi", map[string]any{"key": "new"})
			},
			status: 400, texts: []string{`key "new" has no client_id and no issuer yet`, "vault write bcgov-jwt/keys/new client_id=… issuer=…"},
		},
		"discovery fails": {
			harm: func(_ *mount, p *provider) {
				p.answerWith(discoveryPath, http.StatusServiceUnavailable, jsonType, `{}`)
			},
			status: 502, texts: []string{"OpenID discovery at", "HTTP 503", "Read again in a minute"},
		},
		"discovery is another issuer's": {
			harm:   func(m *mount, p *provider) { m.write("keys/myapi", map[string]any{"issuer": p.otherIssuer()}) },
			status: 400, texts: []string{"discovery document is for a different issuer"},
		},
		"no discovery document in time": {
			harm: func(m *mount, p *provider) {
				m.write("config", map[string]any{"request_timeout": 1})
				p.interceptWith(silent(discoveryPath))
			},
			status: 504, texts: []string{"no complete response within request_timeout (1s)"},
		},
		"endpoint no longer allowed": {
			harm: func(m *mount, p *provider) {
				m.write("keys/myapi", map[string]any{"token_endpoint": p.issuer() + tokenPath})
				m.write("config", map[string]any{"allowed_hosts": "idp.example"})
			},
			status: 400, texts: []string{"token_endpoint: ", "; to allow it, write the complete list: vault write bcgov-jwt/config allowed_hosts=…"},
		},
		"discovered endpoint not allowed": {
			harm: func(_ *mount, p *provider) {
				p.answerWith(discoveryPath, http.StatusOK, jsonType, fmt.Sprintf(`{"issuer":%q,"token_endpoint":"http://169.254.169.254/token"}`, p.issuer()))
			},
			status: 400, texts: []string{"never allowed"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m, p := newAssertionMount(t)
			test.harm(m, p)
			text := m.failed(test.status, logical.ReadOperation, "assertion/myapi", nil)
			for _, part := range test.texts {
				require.Contains(t, text, part)
			}
			requireClean(t, text)
			requireClean(t, m.log.String())
			require.Empty(t, p.requests(tokenPath))
		})
	}
}

func TestAssertion_IsIssuedWithEveryDelivery(t *testing.T) {
	t.Parallel()
	m, _ := newAssertionMount(t)
	for _, delivery := range deliveries() {
		m.write("roles/myapi", map[string]any{"delivery": delivery})
		require.NotEmpty(t, m.read("assertion/myapi").Data["client_assertion"])
	}
}
