package integrationtest

import (
	"io"
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestEveryKeyTypeAndAlgorithmGetsATokenFromKeycloak registers a key as a person does, by its PEM, and uses the token as an API's consumer does.
func TestEveryKeyTypeAndAlgorithmGetsATokenFromKeycloak(t *testing.T) {
	t.Parallel()
	kc := realKeycloak(t)
	m := newMount(t, kc.config)
	api := kc.protectedAPI(t)
	require.Equal(t, http.StatusUnauthorized, callAPI(t, api, ""), "without a token")

	rsa := []string{"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"}
	algorithms := map[string][]string{
		"rsa-2048": rsa, "rsa-3072": rsa, "rsa-4096": rsa,
		"ecdsa-p256": {"ES256"}, "ecdsa-p384": {"ES384"}, "ecdsa-p521": {"ES512"}, "ed25519": {"EdDSA"},
	}
	offered := m.read(t, "info").data["key_types"]
	require.Len(t, offered, len(algorithms), "the key types that the plugin offers")
	for keyType, algorithms := range algorithms {
		t.Run(keyType, func(t *testing.T) {
			t.Parallel()
			m.newClient(t, kc, keyType, map[string]any{"type": keyType})
			for _, algorithm := range algorithms {
				m.write(t, "keys/"+keyType, map[string]any{"algorithm": algorithm})
				requireWorkingToken(t, m, kc, api, keyType)
			}
		})
	}
}

// requireWorkingToken reads creds of a role and holds its token to what a resource server can ask about it.
func requireWorkingToken(t *testing.T, m *mount, kc *provider, api, role string) {
	t.Helper()
	creds := m.read(t, "creds/"+role)
	token := creds.text(t, "access_token")
	claims, err := kc.admin.Introspect(t.Context(), testRealm, apiClientID, apiSecret, token)
	require.NoError(t, err)
	require.Equal(t, true, claims["active"], "introspection")
	key := m.read(t, "keys/"+role)
	require.Equal(t, key.text(t, "client_id"), claims["client_id"])
	require.Equal(t, creds.text(t, "token_jti"), claims["jti"])
	require.Equal(t, key.text(t, "key_id"), creds.text(t, "key_id"))
	require.Equal(t, http.StatusOK, callAPI(t, api, token), "the protected API")
}

// callAPI calls the protected API with a token, or without one where it is empty.
func callAPI(t *testing.T, api, token string) (status int) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, api+"/headers", http.NoBody)
	require.NoError(t, err)
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	defer resp.Body.Close()
	_, err = io.Copy(io.Discard, resp.Body)
	require.NoError(t, err)
	return resp.StatusCode
}
