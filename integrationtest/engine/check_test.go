package engine

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/bcgov/vault-plugin-bcgov-jwt/integrationtest/harness"
)

// TestCheck_NamesNextCommand has one row for each mistake that a newcomer may make at the provider.
func TestCheck_NamesNextCommand(t *testing.T) {
	t.Parallel()
	rows := []struct {
		name   string
		change map[string]any // of the key's settings; {issuer} stands for the right issuer
		step   string
		hint   string
	}{
		{"another realm in the issuer", map[string]any{"issuer": "{issuer}-other"}, "discovery", "issuer"},
		{"a client that nobody knows", map[string]any{"client_id": "nobody"}, "version 1", "vault read {mount}/keys/myapi"},
		{"another algorithm than the one that is pinned", map[string]any{"algorithm": "PS256"}, "token", "vault write {mount}/keys/myapi algorithm="},
		{"the URL of something else", map[string]any{"token_endpoint": "{issuer}/protocol/openid-connect/certs"}, "token", "vault read {mount}/keys/myapi"},
		{"a key that is disabled", map[string]any{"disabled": true}, "key", "vault write {mount}/keys/myapi disabled=false"},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			kc := harness.Keycloak(t)
			m := harness.NewMount(t, kc.Config)
			clientID := m.NewClient(t, kc, "myapi", nil)
			pinned := m.Read(t, "keys/myapi")
			kc.RegisterWithAlgorithm(t, clientID, pinned.Text(t, "public_key"), "RS256")
			require.Equal(t, true, m.Read(t, "check/myapi").Data["ok"], "before the change")
			change := map[string]any{}
			for field, value := range row.change {
				if text, isText := value.(string); isText {
					value = strings.ReplaceAll(text, "{issuer}", kc.Issuer)
				}
				change[field] = value
			}
			m.Write(t, "keys/myapi", change)
			harness.RequireTexts(t, m.MustFailCheck(t, row.step), m.Expand(row.hint))
		})
	}
	const readPublicKey = "vault read -field=public_key {mount}/keys/myapi"
	t.Run("another key is registered", func(t *testing.T) {
		t.Parallel()
		kc := harness.Keycloak(t)
		m := harness.NewMount(t, kc.Config)
		clientID := m.NewClient(t, kc, "myapi", nil)
		other := m.Write(t, "keys/other", nil)
		kc.Register(t, clientID, other.Text(t, "public_key"))
		harness.RequireTexts(t, m.MustFailCheck(t, "version 1"), m.Expand(readPublicKey))
	})
	t.Run("the certificate was pasted", func(t *testing.T) {
		t.Parallel()
		kc := harness.Keycloak(t)
		m := harness.NewMount(t, kc.Config)
		clientID := m.NewClient(t, kc, "myapi", nil)
		kc.Register(t, clientID, m.Read(t, "keys/myapi/certificate").Text(t, "certificate"))
		harness.RequireTexts(t, m.MustFailCheck(t, "version 1"), m.Expand(readPublicKey))
	})
	t.Run("a host that is not allowed", func(t *testing.T) {
		t.Parallel()
		m := harness.NewMount(t, map[string]any{"allow_insecure_endpoints": true})
		m.Write(t, "keys/myapi", map[string]any{
			"client_id": "any", "issuer": "https://login.example/realms/r",
		})
		m.Write(t, "roles/myapi", nil)
		m.Write(t, "config", map[string]any{"allowed_hosts": "other.example"})
		harness.RequireTexts(t, m.MustFailCheck(t, "host"), m.Path+"/config")
	})
}
