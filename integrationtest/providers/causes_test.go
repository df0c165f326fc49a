package providers

import (
	"net"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/bcgov/vault-plugin-bcgov-jwt/integrationtest/harness"
	"github.com/bcgov/vault-plugin-bcgov-jwt/integrationtest/provider"
)

// cause is something that is wrong, and what check says about it.
type cause struct {
	name string
	// instead has the name of the provider that shows it in place of another one.
	instead  map[string]string
	settings func(s *site) map[string]any // of the key
	client   func(t *testing.T, client *provider.Client)
	role     map[string]any
	// hint is a part of check's hint at each provider that is not in hints; key and role are k.
	hint  string
	hints map[string]string
}

const notPossible = "" // a hint at a provider where nothing can go wrong in this way

func causes() []cause {
	return []cause{
		{
			name:   "no key registered",
			client: func(_ *testing.T, client *provider.Client) { client.PublicKey = "" },
			hint:   "`vault read -field=public_key m/keys/k`",
		},
		{
			name: "another key registered",
			client: func(t *testing.T, client *provider.Client) {
				key, _ := harness.NewPrivateKey(t)
				client.PublicKey, client.Algorithm = harness.PublicPEM(t, key), ""
			},
			hint: "`vault read -field=public_key m/keys/k`",
		},
		{
			name:   "wrong client_id",
			client: func(_ *testing.T, client *provider.Client) { client.ID = harness.NewClientID() },
			hint:   "client_id",
		},
		{
			name:     "wrong audience",
			settings: wrongAudience,
			hint:     `audience=""`,
			hints:    map[string]string{provider.Hydra: "audience=ISS/oauth2/token"},
		},
		{
			name:   "an algorithm that the client does not accept",
			client: func(_ *testing.T, client *provider.Client) { client.Algorithm = "PS256" },
			hint:   "algorithm=<algorithm>",
		},
		{
			name:    "an algorithm that discovery does not list",
			instead: map[string]string{provider.OIDCProvider: provider.OIDCProviderRS256},
			settings: func(s *site) map[string]any {
				if s.name == provider.Hydra { // it lists none
					return map[string]any{"type": "ed25519"}
				}
				return map[string]any{"algorithm": "RS512"}
			},
			client: func(_ *testing.T, client *provider.Client) { client.Algorithm = "" },
			hint:   notPossible,
			hints: map[string]string{
				provider.OIDCProviderRS256: "algorithm=RS256",
				provider.Hydra:             "Register the client for EdDSA",
			},
		},
		{
			name:   "a client with a secret",
			client: withSecret,
			hint:   "with a secret, not with a signed JWT",
			hints:  map[string]string{provider.OIDCProvider: "uses private_key_jwt"},
		},
		{
			name:    "a method that discovery does not list",
			instead: map[string]string{provider.OIDCProvider: provider.OIDCProviderSecrets},
			client:  withSecret,
			hint:    notPossible,
			hints:   map[string]string{provider.OIDCProviderSecrets: "does not list private_key_jwt"},
		},
		{
			name: "issuer without discovery",
			settings: func(s *site) map[string]any {
				return map[string]any{"issuer": s.Issuer() + "/no", "audience": "", "token_endpoint": ""}
			},
			hint: "no discovery document",
		},
		{
			name: "wrong token endpoint",
			settings: func(s *site) map[string]any {
				return map[string]any{"token_endpoint": s.TokenEndpoint() + "s"}
			},
			hint: "Compare issuer and token_endpoint",
		},
		{
			name: "scope not granted",
			role: map[string]any{"scopes": provider.ScopeRejected},
			hint: "scopes=<scopes>",
		},
		{
			name: "another letter in the issuer",
			settings: func(s *site) map[string]any {
				issuer := strings.Replace(s.Issuer(), "/realm-", "/Realm-", 1)
				if issuer == s.Issuer() {
					issuer = strings.Replace(issuer, "127.0.0.1", "localhost", 1)
				}
				return map[string]any{"issuer": issuer, "audience": "", "token_endpoint": ""}
			},
			hint: "issuer",
		},
		{
			name: "provider down",
			settings: func(*site) map[string]any {
				return map[string]any{"issuer": unusedURL(), "audience": "", "token_endpoint": ""}
			},
			hint: "Nothing listens at this host and port",
		},
	}
}

// wrongAudience has another audience than the default, and at a provider that needs another one the
// default.
func wrongAudience(s *site) map[string]any {
	audience := "https://audience.example"
	if s.Audience() != s.Issuer() {
		audience = ""
	}
	return map[string]any{"audience": audience, "token_endpoint": s.TokenEndpoint()}
}

func withSecret(_ *testing.T, client *provider.Client) {
	client.Secret = "the-secret-of-a-client"
}

// unusedURL returns a URL where nothing listens.
func unusedURL() string {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	defer listener.Close()
	return "http://" + listener.Addr().String()
}

// testCauses requires for each cause the hint with which it can be found.
func (s *site) testCauses(t *testing.T) {
	if !harness.Slow() {
		t.Skip("make compat runs it")
	}
	for _, c := range causes() {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			at := s
			if name := c.instead[s.name]; name != "" {
				at = newSite(t, name)
			}
			hint, listed := c.hints[at.name]
			if !listed {
				hint = c.hint
			}
			if hint == notPossible {
				t.Skip(at.name + " lists everything that it could reject")
			}
			k, check := at.checkWith(t, c)
			said := strings.NewReplacer(k.Path, "m", k.name, "k", at.Issuer(), "ISS")
			failure := said.Replace(check.Text(t, "failed_step") + ": " + check.Text(t, "error"))
			t.Log(failure)
			require.Equal(t, false, check.Data["ok"])
			require.Contains(t, said.Replace(check.Text(t, "hint")), hint, failure)
		})
	}
}

// checkWith sets a key up in which something is wrong, and runs check.
func (s *site) checkWith(t *testing.T, c cause) (*subject, harness.Response) {
	t.Helper()
	var settings map[string]any
	if c.settings != nil {
		settings = c.settings(s)
	}
	k := s.newSubject(t, settings, c.role)
	client := k.client(t)
	if c.client != nil {
		c.client(t, &client)
	}
	require.NoError(t, s.PutClient(t.Context(), client))
	return k, k.Read(t, "check/"+k.name)
}
