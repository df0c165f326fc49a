package backend

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/bcgov/vault-plugin-bcgov-jwt/integrationtest/idp"
	"github.com/bcgov/vault-plugin-bcgov-jwt/integrationtest/keycloak"
	"github.com/hashicorp/vault/sdk/logical"
	"github.com/stretchr/testify/require"
)

func TestCreds_TokenIsFlatAndLeased(t *testing.T) {
	t.Parallel()
	m, p := newReadyMount(t)
	p.register(m, "myapi", "my-client", func(c *keycloak.Client) { c.DefaultClientScopes = []string{"email", "profile"} })
	earliest := time.Now().UTC().Truncate(time.Second)
	resp := m.read("creds/myapi")
	latest := time.Now().UTC()
	data := resp.Data

	require.Len(t, data, 8)
	token := data["access_token"].(string)
	require.True(t, p.active(token), "the provider knows it")
	require.Equal(t, "Bearer", data["token_type"])
	require.Equal(t, "email profile", data["scope"])
	require.Equal(t, m.read("keys/myapi").Data["key_id"], data["key_id"])
	require.Contains(t, data["token_jti"], "trrtcc:")
	require.Equal(t, int64(300), data["expires_in"])
	issued, err := time.Parse(time.RFC3339, data["issued_at"].(string))
	require.NoError(t, err)
	require.False(t, issued.Before(earliest) || issued.After(latest), "%s", issued)
	expires, err := time.Parse(time.RFC3339, data["expires_at"].(string))
	require.NoError(t, err)
	require.Equal(t, 300*time.Second, expires.Sub(issued))
	for name, value := range overJSON(t, data) {
		require.Contains(t, []string{"string", "float64"}, fmt.Sprintf("%T", value), name)
	}

	require.Equal(t, 240*time.Second, resp.Secret.TTL)
	require.Zero(t, resp.Secret.MaxTTL)
	require.False(t, resp.Secret.Renewable)
	require.Equal(t, map[string]any{"secret_type": "access_token", "role": "myapi"}, resp.Secret.InternalData, "no token in it")
	require.Empty(t, resp.Warnings)
	require.NotEqual(t, token, m.read("creds/myapi").Data["access_token"], "a fresh one each time")
}

func TestCreds_LeaseEndsBeforeToken(t *testing.T) {
	t.Parallel()
	m, p := newReadyMount(t)
	for life, ttl := range map[int]time.Duration{
		1: 1, 2: 1, 5: 3, 10: 5, 20: 10, 30: 20, 60: 48, 300: 240, 3600: 3540, 86400: 86340,
	} {
		p.register(m, "myapi", "my-client", func(c *keycloak.Client) { c.Attributes[keycloak.AttributeTokenLifespan] = strconv.Itoa(life) })
		resp := m.read("creds/myapi")
		require.Equal(t, int64(life), resp.Data["expires_in"])
		require.Equal(t, ttl*time.Second, resp.Secret.TTL, "of %d s", life)
	}
}

func TestCreds_LifetimeIsLimitedToADay(t *testing.T) {
	t.Parallel()
	m, p := newReadyMount(t)
	p.answerWith(tokenPath, http.StatusOK, "application/json", `{"access_token":"opaque","token_type":"bearer","expires_in":"99999999999"}`)
	resp := m.read("creds/myapi")
	require.Equal(t, int64(86400), resp.Data["expires_in"])
	require.Equal(t, 86340*time.Second, resp.Secret.TTL)
	require.Equal(t, "Bearer", resp.Data["token_type"])
	require.Empty(t, resp.Data["token_jti"])
	require.Empty(t, resp.Data["scope"])
}

func TestCreds_RequestsScopesAndParameters(t *testing.T) {
	t.Parallel()
	m, p := newReadyMount(t)
	p.register(m, "myapi", "my-client", func(c *keycloak.Client) { c.OptionalClientScopes = []string{"read", "write"} })
	m.write("roles/myapi", map[string]any{"scopes": "read,write", "parameters": []string{"resource=https://api.example/?a=b", "audience=x"}})
	resp := m.read("creds/myapi")
	require.Equal(t, "read write", resp.Data["scope"])
	require.Empty(t, resp.Warnings)
	form := p.requests(tokenPath)[0].form
	require.Equal(t, []string{"read write"}, form["scope"])
	require.Equal(t, []string{"https://api.example/?a=b"}, form["resource"])
	require.Equal(t, []string{"x"}, form["audience"])
	require.Equal(t, []string{"client_credentials"}, form["grant_type"])
}

func TestCreds_MissingScopeIsAWarning(t *testing.T) {
	t.Parallel()
	m, p := newReadyMount(t)
	m.write("roles/myapi", map[string]any{"scopes": "read,write,admin"})
	p.answerWith(tokenPath, http.StatusOK, "application/json", `{"access_token":"opaque","token_type":"Bearer","expires_in":60,"scope":"email write"}`)
	resp := m.read("creds/myapi")
	require.Equal(t, "email write", resp.Data["scope"])
	require.Len(t, resp.Warnings, 1)
	require.Contains(t, resp.Warnings[0], "read, admin")
	require.NotContains(t, resp.Warnings[0], "write,")
}

func TestCreds_UnusableKeyErrorShowsFix(t *testing.T) {
	t.Parallel()
	m := newMount(t)
	m.write("keys/myapi", map[string]any{"type": "ed25519"})
	m.write("roles/reader", map[string]any{"key": "myapi"})
	text := m.refused(logical.ReadOperation, "creds/reader", nil)
	require.Contains(t, text, "vault read -field=public_key bcgov-jwt/keys/myapi")
	require.Contains(t, text, "vault write bcgov-jwt/keys/myapi client_id=… issuer=…")
	m.write("keys/myapi", map[string]any{"client_id": "c"})
	require.Equal(t, `key "myapi" has no issuer yet. Set what the provider shows with: vault write bcgov-jwt/keys/myapi issuer=…`,
		m.refused(logical.ReadOperation, "creds/reader", nil))
	m.write("keys/myapi", map[string]any{"issuer": "https://idp.example", "disabled": true})
	text = m.refused(logical.ReadOperation, "creds/reader", nil)
	require.Contains(t, text, `key "myapi" is disabled`)
	require.Contains(t, text, "vault write bcgov-jwt/keys/myapi disabled=false")
}

func TestCreds_DisabledKeySignsNothing(t *testing.T) {
	t.Parallel()
	m, p := newReadyMount(t)
	m.read("creds/myapi")
	m.write("keys/myapi", map[string]any{"disabled": true})
	sent := len(p.requests(tokenPath))
	m.refused(logical.ReadOperation, "creds/myapi", nil)
	require.Len(t, p.requests(tokenPath), sent)
	m.write("keys/myapi", map[string]any{"disabled": false})
	m.read("creds/myapi")
}

// credsFailure is a failure of the provider, and the error of a read of creds.
type credsFailure struct {
	fail   func(m *mount, p *provider)
	status int
	texts  []string
}

func answered(status int, contentType, body string) func(*mount, *provider) {
	return func(_ *mount, p *provider) { p.answerWith(tokenPath, status, contentType, body) }
}

const jsonType = "application/json"

// credsFailures lists what the user or the API's owner must fix (400), what the provider must fix (502), and timeouts (504).
func credsFailures() map[string]credsFailure {
	return map[string]credsFailure{
		"another key registered": {
			fail: func(m *mount, p *provider) {
				m.write("keys/other", map[string]any{"type": "ed25519"})
				p.register(m, "other", "my-client")
			},
			status: 400, texts: []string{"HTTP 400 invalid_client", "Unable to load public key", "not registered yet", "vault read -field=public_key bcgov-jwt/keys/myapi"},
		},
		"client not approved": {
			fail: func(m *mount, p *provider) {
				p.register(m, "myapi", "my-client", func(c *keycloak.Client) { c.Enabled = false })
			},
			status: 400, texts: []string{"HTTP 401", "does not know client_id", "vault read bcgov-jwt/keys/myapi"},
		},
		"no service account": {
			fail: func(m *mount, p *provider) {
				p.register(m, "myapi", "my-client", func(c *keycloak.Client) { c.ServiceAccountsEnabled = false })
			},
			status: 400, texts: []string{"HTTP 401 unauthorized_client", "service account"},
		},
		"another algorithm pinned": {
			fail: func(m *mount, p *provider) {
				p.register(m, "myapi", "my-client", func(c *keycloak.Client) { c.Attributes[keycloak.AttributeAlgorithm] = "RS512" })
			},
			status: 400, texts: []string{"Invalid signature algorithm", "Register the client for EdDSA"},
		},
		"wrong audience": {
			fail: func(m *mount, p *provider) {
				m.write("keys/myapi", map[string]any{"audience": "https://other.example", "token_endpoint": p.issuer() + tokenPath})
			},
			status: 400, texts: []string{"Invalid token audience", `vault write bcgov-jwt/keys/myapi audience=""`},
		},
		"another issuer's audience": {
			fail: func(m *mount, p *provider) {
				m.write("keys/myapi", map[string]any{"issuer": p.otherIssuer(), "token_endpoint": p.issuer() + tokenPath})
			},
			status: 400, texts: []string{"Invalid token audience", "trailing slash", "vault write bcgov-jwt/keys/myapi audience=" + "http"},
		},
		"any cause": {
			fail:   answered(401, jsonType, `{"error":"invalid_client","error_description":"client authentication failed"}`),
			status: 400, texts: []string{"not recognized here", "(1) the public key", "(2) client_id", "(3) the audience", "audience=http"},
		},
		"clock 90 s behind": {
			fail:   func(m *mount, p *provider) { p.clock.advance(90 * time.Second) },
			status: 400, texts: []string{"Token is not active", "Synchronize the clock"},
		},
		"clock 90 s ahead": {
			fail:   func(m *mount, p *provider) { p.clock.advance(-90 * time.Second) },
			status: 400, texts: []string{"Token is not active", "Synchronize the clock"},
		},
		"unknown scope": {
			fail:   func(m *mount, _ *provider) { m.write("roles/myapi", map[string]any{"scopes": "nope"}) },
			status: 400, texts: []string{"HTTP 400 invalid_scope", "Invalid scopes: nope", "vault write bcgov-jwt/roles/myapi scopes=<scopes>"},
		},
		"wrong realm": {
			fail:   func(m *mount, p *provider) { m.write("keys/myapi", map[string]any{"issuer": p.URL + "/realms/none"}) },
			status: 400, texts: []string{"OpenID discovery", "HTTP 404", "vault read bcgov-jwt/keys/myapi"},
		},
		"another issuer's discovery document": {
			fail:   func(m *mount, p *provider) { m.write("keys/myapi", map[string]any{"issuer": p.otherIssuer()}) },
			status: 400, texts: []string{"discovery document is for a different issuer", "vault write bcgov-jwt/keys/myapi issuer="},
		},
		"discovery names a forbidden address": {
			fail: func(_ *mount, p *provider) {
				p.answerWith(discoveryPath, http.StatusOK, jsonType, `{"issuer":"`+p.issuer()+`","token_endpoint":"http://169.254.169.254/token"}`)
			},
			status: 400, texts: []string{"`token_endpoint` in the discovery document", "never allowed"},
		},
		"host no longer allowed": {
			fail:   func(m *mount, _ *provider) { m.write("config", map[string]any{"allowed_hosts": "idp.example"}) },
			status: 400, texts: []string{"allowed_hosts", "vault write bcgov-jwt/config allowed_hosts="},
		},
		"error in a 200":  {fail: answered(200, jsonType, `{"error":"invalid_target"}`), status: 400, texts: []string{"invalid_target", "vault write bcgov-jwt/roles/myapi parameters=<name=value>"}},
		"403 page":        {fail: answered(403, "text/html", `<h1>no</h1>`), status: 400, texts: []string{"HTTP 403", "text/html"}},
		"429":             {fail: answered(429, jsonType, `{}`), status: 502, texts: []string{"HTTP 429", "limits the request rate"}},
		"408":             {fail: answered(408, jsonType, `{}`), status: 502, texts: []string{"HTTP 408"}},
		"500":             {fail: answered(500, jsonType, `{"error":"unknown_error"}`), status: 502, texts: []string{"HTTP 500 unknown_error", "Read again in a minute"}},
		"503":             {fail: answered(503, "text/html", `<h1>down</h1>`), status: 502, texts: []string{"HTTP 503"}},
		"redirect":        {fail: answered(307, "text/plain", ``), status: 502, texts: []string{"redirects are not followed", "vault write bcgov-jwt/keys/myapi token_endpoint=…"}},
		"web page":        {fail: answered(200, "text/html", `<h1>hello</h1>`), status: 502, texts: []string{"not JSON", "vault read bcgov-jwt/check/myapi"}},
		"no token":        {fail: answered(200, jsonType, `{"token_type":"Bearer","expires_in":60}`), status: 502, texts: []string{"`access_token` is missing"}},
		"empty token":     {fail: answered(200, jsonType, `{"access_token":"","token_type":"Bearer","expires_in":60}`), status: 502, texts: []string{"`access_token`"}},
		"DPoP token":      {fail: answered(200, jsonType, `{"access_token":"a","token_type":"DPoP","expires_in":60}`), status: 502, texts: []string{"DPoP"}},
		"zero life":       {fail: answered(200, jsonType, `{"access_token":"a","token_type":"Bearer","expires_in":0}`), status: 502, texts: []string{"`expires_in`"}},
		"fractional life": {fail: answered(200, jsonType, `{"access_token":"a","token_type":"Bearer","expires_in":1.5}`), status: 502, texts: []string{"`expires_in`"}},
		"unknown life":    {fail: answered(200, jsonType, `{"access_token":"a","token_type":"Bearer"}`), status: 502, texts: []string{"`expires_in` is missing"}},
		"nobody listens": {
			fail:   func(_ *mount, p *provider) { p.Close() },
			status: 502, texts: []string{"connection refused", "vault read bcgov-jwt/config", "vault read bcgov-jwt/check/myapi"},
		},
		"cut connection": {
			fail: func(_ *mount, p *provider) {
				p.interceptWith(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
			},
			status: 502, texts: []string{"closed before a response"},
		},
		"no token in time": {
			fail: func(m *mount, p *provider) {
				m.write("config", map[string]any{"request_timeout": 1})
				p.interceptWith(silent(tokenPath))
			},
			status: 504, texts: []string{"token request at", "no complete response within request_timeout (1s)", "bcgov-jwt/"},
		},
		"no discovery document in time": {
			fail: func(m *mount, p *provider) {
				m.write("config", map[string]any{"request_timeout": 1})
				p.interceptWith(silent(discoveryPath))
			},
			status: 504, texts: []string{"OpenID discovery at", "no complete response within request_timeout (1s)"},
		},
	}
}

// silent accepts requests and never answers.
func silent(path string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if strings.TrimPrefix(r.URL.Path, realmPath) == path {
			<-r.Context().Done()
			panic(http.ErrAbortHandler)
		}
	}
}

func TestCreds_FailureExplainsMeaningAndRemedy(t *testing.T) {
	t.Parallel()
	for name, test := range credsFailures() {
		for _, delivery := range []delivery{leasedDelivery, sharedDelivery} {
			t.Run(name+", "+string(delivery), func(t *testing.T) {
				t.Parallel()
				m, p := newReadyMount(t)
				m.write("roles/myapi", map[string]any{"delivery": delivery})
				test.fail(m, p)
				begun := time.Now()
				text := m.failed(test.status, logical.ReadOperation, "creds/myapi", nil)
				require.Less(t, time.Since(begun), eventually)
				for _, part := range test.texts {
					require.Contains(t, text, part)
				}
				requireClean(t, text)
				requireClean(t, m.log.String())
				require.True(t, strings.HasSuffix(text, ".") || strings.HasSuffix(text, "?"), text)
			})
		}
	}
}

// requireClean asserts that a text contains no placeholder and no part of a JWT or of a body.
func requireClean(t *testing.T, text string) {
	t.Helper()
	for _, forbidden := range []string{"{mount}", "{key}", "{role}", "{clock}", "%!", "eyJ", "<h1>"} {
		require.NotContains(t, text, forbidden)
	}
}

func TestCreds_ReadAfterFailureSucceeds(t *testing.T) {
	t.Parallel()
	m, p := newReadyMount(t)
	p.answerWith(tokenPath, http.StatusServiceUnavailable, jsonType, `{}`)
	m.failed(http.StatusBadGateway, logical.ReadOperation, "creds/myapi", nil)
	p.interceptWith(nil)
	m.read("creds/myapi")
}

func TestCreds_CanceledRequestEnds(t *testing.T) {
	t.Parallel()
	for _, path := range []string{tokenPath, discoveryPath} {
		t.Run(path, func(t *testing.T) {
			t.Parallel()
			m, p := newReadyMount(t)
			arrived := make(chan struct{}, 1)
			p.interceptWith(func(w http.ResponseWriter, r *http.Request) {
				if strings.TrimPrefix(r.URL.Path, realmPath) == path {
					arrived <- struct{}{}
					silent(path)(w, r)
				}
			})
			ctx, cancel := context.WithCancel(t.Context())
			go func() {
				<-arrived
				cancel()
			}()
			begun := time.Now()
			_, err := m.handle(ctx, logical.ReadOperation, "creds/myapi", nil)
			require.Less(t, time.Since(begun), eventually/2, "well before request_timeout")
			require.ErrorContains(t, err, "the request was canceled")
			coded, isCoded := err.(logical.HTTPCodedError) //nolint:errorlint // only a bare one keeps its code
			require.True(t, isCoded)
			require.Equal(t, http.StatusGatewayTimeout, coded.Code())
		})
	}
}

func TestCreds_WarmReadMakesNoCallsToVault(t *testing.T) {
	t.Parallel()
	m, p := newReadyMount(t)
	m.read("creds/myapi") // stores that the key was accepted
	m.read("creds/myapi") // reads it back
	calls := m.storage.calls()
	for range 100 {
		m.read("creds/myapi")
	}
	require.Equal(t, calls, m.storage.calls(), "storage")
	require.EqualValues(t, 1, p.connections.Load(), "one connection for 102 tokens and a discovery document")
	require.Len(t, p.requests(tokenPath), 102)
	require.Len(t, p.requests(discoveryPath), 1)

	for range 5 { // a second may end between the two reads
		begun := time.Now()
		m.read("creds/myapi")
		calls := m.system.calls.Load()
		m.read("creds/myapi")
		made := m.system.calls.Load() - calls
		if time.Since(begun) < replicationCacheTTL && made == 0 {
			return
		}
	}
	t.Fatal("each read calls Vault")
}

func TestCreds_EachAttemptHasFreshAssertion(t *testing.T) {
	t.Parallel()
	m, p := newReadyMount(t)
	m.write("config", map[string]any{"max_retries": 1})
	var once sync.Once
	p.interceptWith(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, tokenPath) {
			once.Do(func() { w.WriteHeader(http.StatusServiceUnavailable) })
		}
	})
	m.read("creds/myapi")
	sent := p.requests(tokenPath)
	require.Len(t, sent, 2)
	require.NotEqual(t, sent[0].form["client_assertion"], sent[1].form["client_assertion"])
}

func TestCreds_EveryKeyTypeAndAlgorithmWorks(t *testing.T) {
	t.Parallel()
	for _, keyType := range []string{"rsa-2048", "ecdsa-p256", "ecdsa-p384", "ecdsa-p521", "ed25519"} {
		t.Run(keyType, func(t *testing.T) {
			t.Parallel()
			m := newMount(t)
			p := newProvider(t, idp.Options{})
			m.write("config", map[string]any{"allow_insecure_endpoints": true})
			key := m.write("keys/myapi", map[string]any{"type": keyType, "client_id": "c", "issuer": p.issuer(), "token_endpoint": p.issuer() + tokenPath})
			m.write("roles/myapi", nil)
			p.register(m, "myapi", "c")
			fitting := []string{key.Data["algorithm"].(string)}
			if keyType == "rsa-2048" {
				fitting = []string{"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"}
			}
			for _, algorithm := range fitting {
				m.write("keys/myapi", map[string]any{"algorithm": algorithm})
				require.True(t, p.active(m.read("creds/myapi").Data["access_token"].(string)), algorithm)
			}
			require.Empty(t, p.requests(discoveryPath), "the token endpoint is set")
		})
	}
}

func TestCreds_NoSecretIsLogged(t *testing.T) {
	t.Parallel()
	m, p := newReadyMount(t)
	token := m.read("creds/myapi").Data["access_token"].(string)
	m.read("check/myapi")
	assertion := p.requests(tokenPath)[0].form.Get("client_assertion")
	var stored struct {
		Versions []struct {
			PrivateKey string `json:"private_key"`
		} `json:"versions"`
	}
	require.NoError(t, json.Unmarshal([]byte(m.storage.entries(t)["key/myapi"]), &stored))
	for _, secret := range []string{token, assertion, stored.Versions[0].PrivateKey} {
		require.NotEmpty(t, secret)
		require.NotContains(t, m.log.String(), secret)
	}
}

func TestCreds_FieldsDependOnDelivery(t *testing.T) {
	t.Parallel()
	texts := []string{"access_token", "token_type", "scope", "issued_at", "expires_at", "key_id", "token_jti"}
	for delivery, of := range map[delivery]struct{ texts, numbers []string }{
		leasedDelivery:   {nil, []string{"expires_in"}},
		unleasedDelivery: {[]string{"last_vault_rotation"}, []string{"expires_in", "ttl", "rotation_period"}},
		sharedDelivery:   {[]string{"last_vault_rotation"}, []string{"ttl", "rotation_period"}},
	} {
		t.Run(string(delivery), func(t *testing.T) {
			t.Parallel()
			m, _ := newReadyMount(t)
			m.write("roles/myapi", map[string]any{"delivery": delivery})
			resp := m.read("creds/myapi")
			want := map[string]string{}
			for _, name := range append(of.texts, texts...) {
				want[name] = "string"
			}
			for _, name := range of.numbers {
				want[name] = "int64"
			}
			types := map[string]string{}
			for name, value := range resp.Data {
				types[name] = fmt.Sprintf("%T", value)
			}
			require.Equal(t, want, types)
			require.Equal(t, delivery == leasedDelivery, resp.Secret != nil, "a lease")
			require.Empty(t, resp.Warnings)
		})
	}
}

func TestCreds_TTLWithoutLease(t *testing.T) {
	t.Parallel()
	for _, delivery := range []delivery{unleasedDelivery, sharedDelivery} {
		t.Run(string(delivery), func(t *testing.T) {
			t.Parallel()
			m, p := newReadyMount(t)
			m.write("roles/myapi", map[string]any{"delivery": delivery})
			begun := time.Now()
			data := m.read("creds/myapi").Data
			passed := int64(time.Since(begun)/time.Second) + 1 // a part of a second counts as one
			require.True(t, p.active(data["access_token"].(string)))
			require.LessOrEqual(t, data["ttl"], int64(240))
			require.GreaterOrEqual(t, data["ttl"], 240-passed)
			require.Equal(t, int64(240), data["rotation_period"])
			require.Equal(t, data["issued_at"], data["last_vault_rotation"])
			issued, err := time.Parse(time.RFC3339, data["issued_at"].(string))
			require.NoError(t, err)
			expires, err := time.Parse(time.RFC3339, data["expires_at"].(string))
			require.NoError(t, err)
			require.Equal(t, 300*time.Second, expires.Sub(issued))
		})
	}
}

func TestCreds_UnleasedTokenIsFresh(t *testing.T) {
	t.Parallel()
	m, p := newReadyMount(t)
	m.write("roles/myapi", map[string]any{"delivery": "unleased"})
	first := m.tokenID()
	require.NotEqual(t, first, m.tokenID())
	require.Len(t, p.requests(tokenPath), 2)
	require.Equal(t, 0, m.read("info").Data["shared_tokens"])
}

func TestCreds_MarginIsTheRoles(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		margin any
		period int64
		warns  bool
	}{
		{0, 240, false}, {1, 299, false}, {"100s", 200, false}, {299, 1, false}, {300, 240, true}, {"23h", 240, true},
	} {
		for _, delivery := range deliveries() {
			t.Run(fmt.Sprintf("%v, %s", test.margin, delivery), func(t *testing.T) {
				t.Parallel()
				m, _ := newReadyMount(t)
				m.write("roles/myapi", map[string]any{"delivery": delivery, "refresh_margin": test.margin})
				begun := time.Now()
				resp := m.read("creds/myapi")
				passed := int64(time.Since(begun)/time.Second) + 1
				ttl, _ := resp.Data["ttl"].(int64)
				if delivery == leasedDelivery {
					ttl = int64(resp.Secret.TTL / time.Second)
				} else {
					require.Equal(t, test.period, resp.Data["rotation_period"])
				}
				require.LessOrEqual(t, ttl, test.period)
				require.GreaterOrEqual(t, ttl, max(test.period-passed, 1))
				if !test.warns {
					require.Empty(t, resp.Warnings)
					return
				}
				require.Len(t, resp.Warnings, 1)
				require.Contains(t, resp.Warnings[0], "the token's lifetime is only 5m: 1m is used instead")
				require.Contains(t, resp.Warnings[0], "vault write bcgov-jwt/roles/myapi refresh_margin=0")
			})
		}
	}
}

func TestCreds_MissingScopeWarnsWithEveryDelivery(t *testing.T) {
	t.Parallel()
	for _, delivery := range deliveries() {
		m, p := newReadyMount(t)
		m.write("roles/myapi", map[string]any{"scopes": "read", "delivery": delivery})
		p.answerWith(tokenPath, http.StatusOK, jsonType, `{"access_token":"opaque","token_type":"Bearer","expires_in":60,"scope":""}`)
		for range 2 {
			require.Contains(t, strings.Join(m.read("creds/myapi").Warnings, "\n"), "did not grant these scopes: read", delivery)
		}
	}
}
