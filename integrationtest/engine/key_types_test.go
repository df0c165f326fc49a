package engine

import (
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/bcgov/vault-plugin-bcgov-jwt/integrationtest/harness"
)

// TestKeyType_EveryAlgorithmObtainsToken registers a key as a person does, by its PEM, and uses the
// token as an API's consumer does.
func TestKeyType_EveryAlgorithmObtainsToken(t *testing.T) {
	t.Parallel()
	kc := harness.Keycloak(t)
	m := harness.NewMount(t, kc.Config)
	api := kc.NewAPI(t)
	require.Equal(t, http.StatusUnauthorized, api.Call(t, ""), "without a token")

	rsa := []string{"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"}
	algorithms := map[string][]string{
		"rsa-2048": rsa, "rsa-3072": rsa, "rsa-4096": rsa,
		"ecdsa-p256": {"ES256"}, "ecdsa-p384": {"ES384"}, "ecdsa-p521": {"ES512"}, "ed25519": {"EdDSA"},
	}
	offered := m.Read(t, "info").Data["key_types"]
	require.Len(t, offered, len(algorithms), "the key types that the plugin offers")
	for keyType, algorithms := range algorithms {
		t.Run(keyType, func(t *testing.T) {
			t.Parallel()
			m.NewClient(t, kc, keyType, map[string]any{"type": keyType})
			for _, algorithm := range algorithms {
				m.Write(t, "keys/"+keyType, map[string]any{"algorithm": algorithm})
				requireWorkingToken(t, m, kc, api, keyType)
			}
		})
	}
}
