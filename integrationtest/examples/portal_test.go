package examples

import (
	"cmp"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/hashicorp/vault/api"
	"github.com/stretchr/testify/require"

	"github.com/bcgov/vault-plugin-bcgov-jwt/integrationtest/harness"
)

// TestPortalScript_RegistersKeyOnce runs docs/examples/portal/register.sh to a token, twice.
func TestPortalScript_RegistersKeyOnce(t *testing.T) {
	t.Parallel()
	for registration, control := range map[string]func(key harness.Response) issueControls{
		"manual": func(key harness.Response) issueControls {
			return issueControls{
				ClientCertificate: strings.TrimSpace(key.Text(t, "public_key")),
			}
		},
		"jwks": func(key harness.Response) issueControls {
			return issueControls{JWKSURL: portalJWKSAddress + key.Text(t, "jwks_path")}
		},
	} {
		t.Run(registration, func(t *testing.T) {
			t.Parallel()
			p := harness.AnyProvider(t)
			m := harness.NewMount(t, p.Config)
			portal := newPortalAPI(t, m, p)
			if registration == "jwks" {
				m.Write(t, "keys/myapi", map[string]any{"registration": registration})
			}
			first := portal.register(t, m, "myapi")
			require.Zero(t, first.Code, first.Stderr)
			key := m.Read(t, "keys/myapi")
			controls := control(key)
			require.Equal(t, []issueRequest{{
				EnvironmentAppID: portalEnvironment,
				Application:      &issueApplication{Name: "myapi"},
				Controls:         &controls,
			}}, portal.requests())
			require.Contains(t, first.Stdout, fmt.Sprintf("Registered %s/keys/myapi as %s at %s.\n",
				m.Path, key.Text(t, "client_id"), p.Issuer))
			require.Contains(t, first.Stdout, "version 1    ok     active, and accepted")
			m.ReadSecret(t, "creds/myapi")

			second := portal.register(t, m, "myapi")
			require.Zero(t, second.Code, second.Stderr)
			require.Contains(t, second.Stdout, "is registered already")
			require.Len(t, portal.requests(), 1)
		})
	}
}

// TestPortalScript_FailureNamesCauseAndRegistersNothing requires one line that says what is wrong,
// and that a second run after it succeeds.
func TestPortalScript_FailureNamesCauseAndRegistersNothing(t *testing.T) {
	t.Parallel()
	p := harness.EmbeddedProvider(t)
	m := harness.NewMount(t, p.Config)
	portal := newPortalAPI(t, m, p)
	for name, c := range map[string]struct {
		environment string
		respond     http.HandlerFunc
		want        string
	}{
		"token":       {environment: "PORTAL_TOKEN=other", want: "HTTP 401 jwt malformed"},
		"no-token":    {environment: "PORTAL_TOKEN=", want: "PORTAL_TOKEN"},
		"environment": {environment: "ENVIRONMENT_APP_ID=nope", want: "HTTP 422 Environment not found for appId nope in gateway my-gateway"},
		"gateway":     {environment: "GATEWAY=other", want: "HTTP 422 Environment not found"},
		"plain-http":  {environment: "PORTAL=http://127.0.0.1:1", want: `Protocol "http"`},
		"closed":      {environment: "PORTAL=https://" + closedAddress(t), want: "before you run this again"},
		"html":        {respond: respondWith(http.StatusBadGateway, "<html>portal</html>"), want: "HTTP 502"},
		"redirect":    {respond: respondWith(http.StatusFound, ""), want: "HTTP 302"},
		"no-client":   {respond: respondWith(http.StatusCreated, `{"flow":"client-credentials"}`), want: "no clientId or issuer"},
		"cut-off":     {respond: breakOff, want: "before you run this again"},
	} { // one after the other, since they share the portal
		portal.respondInstead(c.respond)
		result := portal.register(t, m, name, cmp.Or(c.environment, "APPLICATION="+name))
		require.Equal(t, 1, result.Code, "%s: %s", name, result.Stderr)
		require.Contains(t, result.Stderr, c.want, name)
		require.NotContains(t, result.Stderr, "<html>", name)
		require.Empty(t, result.Stdout, name)
	}
	require.Empty(t, portal.requests())
	portal.respondInstead(nil)
	result := portal.register(t, m, "closed", "APPLICATION=my application")
	require.Zero(t, result.Code, result.Stderr)
	require.Equal(t, "my application", portal.requests()[0].Application.Name)
}

// TestPortalScript_KeepsClientThatVaultDoesNotStore requires the command that stores it.
func TestPortalScript_KeepsClientThatVaultDoesNotStore(t *testing.T) {
	t.Parallel()
	p := harness.EmbeddedProvider(t)
	m := harness.NewMount(t, p.Config)
	portal := newPortalAPI(t, m, p)
	m.WritePolicy(t, m.Path, m.Expand(`path "{mount}/keys/myapi" {
  capabilities      = ["create", "read", "update"]
  denied_parameters = { "client_id" = [] }
}`))
	restricted := m.AsNewToken(t, api.TokenCreateRequest{Policies: []string{m.Path}})
	result := portal.register(t, restricted, "myapi")
	require.Equal(t, 1, result.Code, result.Stdout)
	require.Len(t, portal.requests(), 1)
	require.Regexp(t, "run: vault write "+m.Path+"/keys/myapi client_id="+portalEnvironment+
		`-\w+ issuer=`+p.Issuer, result.Stderr)
}

// TestPortalAPI_IsHeldToContract requires that what the contract does not have is an error.
func TestPortalAPI_IsHeldToContract(t *testing.T) {
	t.Parallel()
	for body, valid := range map[string]bool{
		`{"environmentAppId":"x","application":{"name":"x"},"controls":{"jwksUrl":"x"}}`: true,
		`{"environmentAppId":"x","application":{"name":"x"},"labels":{"a":"b"}}`:         true,
		`{"environmentAppID":"x","application":{"name":"x"}}`:                            false,
		`{"environmentAppId":"x","application":{"name":"x"},"publicKey":"x"}`:            false,
		`{"environmentAppId":"x","application":{"name":"x"},"controls":{"jwks":"x"}}`:    false,
		`{"environmentAppId":1,"application":{"name":"x"}}`:                              false,
		`{"application":{"name":"x"}}`:                                                   false,
		`{"environmentAppId":"x"}`:                                                       false,
		`[]`:                                                                             false,
	} {
		r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/",
			strings.NewReader(body))
		r.Header.Set("Content-Type", "application/json")
		_, err := decodeIssueRequest(r)
		require.Equal(t, valid, err == nil, "%s: %v", body, err)
	}
}
