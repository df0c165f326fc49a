package engine

import (
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/bcgov/vault-plugin-bcgov-jwt/integrationtest/harness"
)

// fields returns the body of a request, from names and values by turns.
func fields(pairs ...any) map[string]any {
	all := map[string]any{}
	for i := 0; i < len(pairs); i += 2 {
		all[pairs[i].(string)] = pairs[i+1]
	}
	return all
}

// requireWorkingToken reads creds of a role and checks what a resource server can learn of its
// token.
func requireWorkingToken(
	t *testing.T, m *harness.Mount, kc *harness.Provider, api *harness.API, role string,
) {
	t.Helper()
	creds := m.Read(t, "creds/"+role)
	token := creds.Text(t, "access_token")
	claims := kc.Introspect(t, token)
	require.Equal(t, true, claims["active"], "introspection")
	key := m.Read(t, "keys/"+role)
	require.Equal(t, key.Text(t, "client_id"), claims["client_id"])
	require.Equal(t, creds.Text(t, "token_jti"), claims["jti"])
	require.Equal(t, key.Text(t, "key_id"), creds.Text(t, "key_id"))
	require.Equal(t, http.StatusOK, api.Call(t, token), "the protected API")
}
