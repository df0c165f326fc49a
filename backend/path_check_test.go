package backend

import (
	"encoding/base64"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/bcgov/vault-plugin-bcgov-jwt/integrationtest/idp"
	"github.com/bcgov/vault-plugin-bcgov-jwt/integrationtest/keycloak"
	"github.com/stretchr/testify/require"
)

// stepsOf returns the first column of a report.
func stepsOf(report string) []string {
	var steps []string
	for line := range strings.Lines(report) {
		steps = append(steps, strings.TrimSpace(line[:len("registration")]))
	}
	return steps[1:]
}

func TestCheck_ReportsEachStep(t *testing.T) {
	t.Parallel()
	m, _ := newReadyMount(t)
	data := m.read("check/myapi").Data
	require.Equal(t, true, data["ok"], data["report"])
	require.Empty(t, data["failed_step"])
	require.Empty(t, data["error"])
	require.Contains(t, data["hint"], "vault read bcgov-jwt/creds/myapi")
	report := data["report"].(string)
	require.Equal(t, []string{"role", "key", "registration", "host", "connect", "clock", "discovery", "version 1", "token", "revocation"}, stepsOf(report))
	for _, part := range []string{
		`"myapi" requests no scopes with key "myapi"`, "is ed25519, version 1 is active", m.read("keys/myapi").Data["key_id"].(string), "algorithm EdDSA",
		`client "my-client"`, "is allowed", "HTTP/1.1", "accepted by the provider", "a JWT, valid for 5m, leased for 4m (1m margin), no scope", "revocation   ok     test token revoked",
	} {
		require.Contains(t, report, part)
	}
	requireClean(t, report)
}

func TestCheck_StoresNothingAndRevokesItsToken(t *testing.T) {
	t.Parallel()
	m, p := newReadyMount(t)
	held := m.read("creds/myapi").Data["access_token"].(string)
	before := m.storage.entries(t)
	m.read("check/myapi")
	require.Equal(t, before, m.storage.entries(t))
	revocations := p.requests(revocationPath)
	require.Len(t, revocations, 1)
	token := revocations[0].form.Get("token")
	require.Equal(t, "access_token", revocations[0].form.Get("token_type_hint"))
	require.NotEqual(t, held, token)
	require.False(t, p.active(token), "the check's token")
	require.True(t, p.active(held), "another reader's")
	for _, value := range overJSON(t, m.read("check/myapi").Data) {
		text, _ := value.(string)
		require.NotContains(t, text, "eyJhbGci", "no response contains the token")
	}
}

func TestCheck_FailedRevocationIsNoFailure(t *testing.T) {
	t.Parallel()
	for name, fail := range map[string]func(*provider){
		"rejected":    func(p *provider) { p.answerWith(revocationPath, http.StatusForbidden, "text/html", "<h1>no</h1>") },
		"not offered": func(p *provider) { p.answerWith(revocationPath, http.StatusNotFound, jsonType, "{}") },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m, p := newReadyMount(t)
			fail(p)
			data := m.read("check/myapi").Data
			require.Equal(t, true, data["ok"])
			require.Contains(t, data["report"], "test token not revoked; it expires on its own: ")
			requireClean(t, data["report"].(string))
		})
	}
}

func TestCheck_EachStepCanFail(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		fail        func(m *mount, p *provider)
		step        string
		error, hint string
	}{
		"key disabled": {
			fail: func(m *mount, _ *provider) { m.write("keys/myapi", map[string]any{"disabled": true}) },
			step: "key", error: `key "myapi" is disabled`, hint: "vault write bcgov-jwt/keys/myapi disabled=false",
		},
		"key replaced": {
			fail: func(m *mount, _ *provider) { m.remakeKey("myapi") },
			step: "key", error: "earlier key", hint: "To use the current one: vault write bcgov-jwt/roles/myapi key=myapi",
		},
		"key deleted": {
			fail: func(m *mount, _ *provider) {
				require.NoError(m.tb, m.storage.Delete(m.tb.Context(), "key/myapi"))
				m.InvalidateKey(m.tb.Context(), "key/myapi")
			},
			step: "key", error: `key "myapi", which does not exist`, hint: "To use another key: vault write bcgov-jwt/roles/myapi key=…",
		},
		"not registered": {
			fail: func(m *mount, _ *provider) {
				m.write("keys/fresh", map[string]any{"type": "ed25519"})
				m.write("roles/myapi", map[string]any{"key": "fresh"})
			},
			step: "registration", error: `key "fresh" has no client_id and no issuer yet`, hint: "vault write bcgov-jwt/keys/fresh client_id=",
		},
		"host not allowed": {
			fail: func(m *mount, _ *provider) { m.write("config", map[string]any{"allowed_hosts": "idp.example"}) },
			step: "host", error: "allowed_hosts", hint: "vault write bcgov-jwt/config allowed_hosts=",
		},
		"nobody listens": {
			fail: func(_ *mount, p *provider) { p.Close() },
			step: "connect", error: "connection refused", hint: "vault read bcgov-jwt/config",
		},
		"nobody listens at the token endpoint": {
			fail: func(m *mount, _ *provider) {
				m.write("keys/myapi", map[string]any{"token_endpoint": "http://127.0.0.1:1/token"})
			},
			step: "connect", error: "http://127.0.0.1:1/token", hint: "firewall",
		},
		"wrong realm": {
			fail: func(m *mount, p *provider) { m.write("keys/myapi", map[string]any{"issuer": p.URL + "/realms/none"}) },
			step: "discovery", error: "HTTP 404", hint: "Compare issuer in `vault read bcgov-jwt/keys/myapi`",
		},
		"another issuer": {
			fail: func(m *mount, p *provider) { m.write("keys/myapi", map[string]any{"issuer": p.otherIssuer()}) },
			step: "discovery", error: "for a different issuer", hint: "vault write bcgov-jwt/keys/myapi issuer=",
		},
		"discovery fails": {
			fail: func(_ *mount, p *provider) {
				p.answerWith(discoveryPath, http.StatusServiceUnavailable, jsonType, "{}")
			},
			step: "discovery", error: "HTTP 503", hint: "Read again in a minute",
		},
		"another key registered": {
			fail: func(m *mount, p *provider) {
				m.write("keys/other", map[string]any{"type": "ed25519"})
				p.register(m, "other", "my-client")
			},
			step: "version 1", error: "Unable to load public key", hint: "vault read -field=public_key bcgov-jwt/keys/myapi",
		},
		"client not approved": {
			fail: func(m *mount, p *provider) {
				p.register(m, "myapi", "my-client", func(c *keycloak.Client) { c.Enabled = false })
			},
			step: "version 1", error: "HTTP 401", hint: "does not know client_id",
		},
		"unknown scope": {
			fail: func(m *mount, _ *provider) { m.write("roles/myapi", map[string]any{"scopes": "nope"}) },
			step: "token", error: "invalid_scope", hint: "vault write bcgov-jwt/roles/myapi scopes=<scopes>",
		},
		"no token in time": {
			fail: func(m *mount, p *provider) {
				m.write("config", map[string]any{"request_timeout": 1})
				p.interceptWith(silent(tokenPath))
			},
			step: "token", error: "no complete response within request_timeout (1s)", hint: "bcgov-jwt/",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m, p := newReadyMount(t)
			test.fail(m, p)
			data := m.read("check/myapi").Data
			require.Equal(t, false, data["ok"])
			require.Equal(t, test.step, data["failed_step"], data["report"])
			require.Contains(t, data["error"], test.error)
			require.Contains(t, data["hint"], test.hint)
			report := data["report"].(string)
			steps := stepsOf(report)
			require.Equal(t, test.step, steps[len(steps)-1], "the failed step ends the report")
			require.True(t, strings.HasSuffix(report, "FAILED see error and hint"), "no text stands twice")
			requireClean(t, report)
			requireClean(t, data["hint"].(string))
		})
	}
}

func TestCheck_ReportsClockDifference(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		noDate bool
		ahead  time.Duration
		line   string
		error  string // empty: the provider accepts it
	}{
		"no Date":   {noDate: true, line: "no Date header"},
		"the same":  {line: "ok     the clocks agree to within 1s"},
		"ahead":     {ahead: 10 * time.Second, line: "ok     this Vault node's clock is "},
		"behind":    {ahead: -10 * time.Second, line: "s ahead of the provider's"},
		"far ahead": {ahead: 30 * time.Second, line: "WARN   this Vault node's clock is "},

		"90 s ahead":  {ahead: 90 * time.Second, line: "WARN   this Vault node's clock is 1m", error: "Token is not active"},
		"90 s behind": {ahead: -90 * time.Second, line: "s ahead of the provider's; synchronize it", error: "Token is not active"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := newMount(t)
			p := newProvider(t, idp.Options{SendDate: !test.noDate})
			p.clock.advance(test.ahead)
			m.write("config", map[string]any{"allow_insecure_endpoints": true})
			m.write("keys/myapi", map[string]any{"type": "ed25519", "client_id": "c", "issuer": p.issuer()})
			m.write("roles/myapi", nil)
			p.register(m, "myapi", "c")
			data := m.read("check/myapi").Data
			for line := range strings.Lines(data["report"].(string)) {
				if strings.HasPrefix(line, "clock") {
					require.Contains(t, line, test.line)
				}
			}
			require.Equal(t, test.error == "", data["ok"], "the provider decides whether it matters")
			require.Contains(t, data["error"], test.error)
			require.Contains(t, stepsOf(data["report"].(string)), "clock")
		})
	}
}

func TestCheck_TellsWhyDiscoveredRevocationEndpointIsNotAllowed(t *testing.T) {
	t.Parallel()
	m, p := newReadyMount(t)
	m.write("keys/myapi", map[string]any{"revocation_endpoint": ""})
	m.write("roles/myapi", map[string]any{"revoke_tokens": true})
	p.answerWith(discoveryPath, http.StatusOK, jsonType, `{"issuer":"`+p.issuer()+`","token_endpoint":"`+p.issuer()+tokenPath+
		`","revocation_endpoint":"http://169.254.169.254/revoke"}`)
	data := m.read("check/myapi").Data
	require.Equal(t, true, data["ok"], "a token does not need it")
	require.Contains(t, data["report"], "(the one that discovery shows is not allowed: 169.254.169.254 is a cloud metadata address, which is never allowed)")
}

func TestCheck_DiscoveryOnlyWarnsWithTokenEndpoint(t *testing.T) {
	t.Parallel()
	m, p := newReadyMount(t)
	m.write("keys/myapi", map[string]any{"token_endpoint": p.issuer() + tokenPath, "revocation_endpoint": p.issuer() + revocationPath})
	data := m.read("check/myapi").Data
	require.Equal(t, true, data["ok"])
	require.Contains(t, data["report"], "discovery    ok     the issuer and the token endpoint match")

	p.answerWith(discoveryPath, http.StatusNotFound, "application/json", `{"error":"Realm does not exist"}`)
	m.write("config", map[string]any{"max_retries": 1}) // another client, without a cached document
	data = m.read("check/myapi").Data
	require.Equal(t, true, data["ok"], "a token needs no discovery")
	require.Contains(t, data["report"], "discovery    WARN   not needed (token_endpoint is set) but failed: ")
}

func TestCheck_ReportsDifferentExpiry(t *testing.T) {
	t.Parallel()
	m, p := newReadyMount(t)
	payload := base64.RawURLEncoding.EncodeToString([]byte(`{"exp":1700000000}`))
	p.answerWith(tokenPath, http.StatusOK, "application/json",
		`{"access_token":"eyJhbGciOiJub25lIn0.`+payload+`.x","token_type":"Bearer","expires_in":300}`)
	report := m.read("check/myapi").Data["report"]
	require.Contains(t, report, "token        ok     a JWT, valid for 5m", "also without a jti")
	require.Contains(t, report, "expiry       WARN   the token's own exp is 2023-11-14T22:13:20Z")
}

func TestCreds_ClockSetBackKeepsFirstVersionActive(t *testing.T) {
	t.Parallel()
	m, _ := newReadyMount(t)
	m.clock.advance(-10 * time.Second)
	require.NotEmpty(t, m.read("creds/myapi").Data["access_token"])
	require.Equal(t, 1, m.read("keys/myapi").Data["active_version"])
}

func TestCheck_ReportsMissingScopes(t *testing.T) {
	t.Parallel()
	m, p := newReadyMount(t)
	m.write("roles/myapi", map[string]any{"scopes": "read,write"})
	p.answerWith(tokenPath, http.StatusOK, jsonType, `{"access_token":"opaque","token_type":"Bearer","expires_in":60,"scope":"read"}`)
	data := m.read("check/myapi").Data
	require.Equal(t, true, data["ok"])
	require.Contains(t, data["report"], "did not grant these scopes: write")
	require.Contains(t, data["report"], "opaque, valid for 1m, leased for 48s (12s margin), scope read")
}
