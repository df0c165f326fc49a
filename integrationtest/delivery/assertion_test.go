package delivery

import (
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bcgov/vault-plugin-bcgov-jwt/integrationtest/harness"
)

// TestAssertion_IsExchangedElsewhere: by a caller that reaches Keycloak while Vault does not.
func TestAssertion_IsExchangedElsewhere(t *testing.T) {
	t.Parallel()
	p, g := gatedKeycloak(t)
	m := harness.NewMount(t, p.Config)
	newRole(t, m, p, "myapi", 300*time.Second, nil)
	m.MustFailWith(t, m.Expand("vault write {mount}/roles/myapi allow_assertion=true"),
		"read", "{mount}/assertion/myapi")
	m.MustRun(t, "write", "{mount}/roles/myapi", "allow_assertion=true")
	m.Write(t, "keys/myapi", map[string]any{"token_endpoint": p.TokenEndpoint()})

	g.cut()
	got := m.Read(t, "assertion/myapi")
	creds := m.Do(t, http.MethodGet, "creds/myapi", nil, nil)
	require.Equal(t, http.StatusBadGateway, creds.Status, "Vault does not reach it")
	key := m.Read(t, "keys/myapi")
	require.Equal(t, p.TokenEndpoint(), got.Text(t, "token_endpoint"))
	require.Equal(t, p.Issuer, got.Text(t, "issuer"))
	require.Equal(t, key.Text(t, "client_id"), got.Text(t, "client_id"))
	require.Equal(t, key.Text(t, "key_id"), got.Text(t, "key_id"))
	expiresAt, err := time.Parse(time.RFC3339, got.Text(t, "expires_at"))
	require.NoError(t, err)
	require.WithinDuration(t, time.Now().Add(45*time.Second), expiresAt, 10*time.Second)

	status, response := postAssertion(t, got)
	require.Equal(t, http.StatusOK, status, response.Description)
	require.NotEmpty(t, response.AccessToken)
	status, response = postAssertion(t, got)
	require.Equal(t, http.StatusBadRequest, status)
	require.Equal(t, "Token reuse detected", response.Description)
	require.NotEqual(t, got.Text(t, "jti"), m.Read(t, "assertion/myapi").Text(t, "jti"))
}
