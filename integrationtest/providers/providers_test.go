package providers

import (
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"
	"github.com/stretchr/testify/require"

	"github.com/bcgov/vault-plugin-bcgov-jwt/integrationtest/harness"
	"github.com/bcgov/vault-plugin-bcgov-jwt/integrationtest/provider"
)

// TestProvider_ServesTokens runs everything at each provider.
func TestProvider_ServesTokens(t *testing.T) {
	t.Parallel()
	for _, name := range provider.Names() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t, name)
			for what, test := range map[string]func(*testing.T){
				"key types": s.testKeyTypes, "leases": s.testLeases, "causes": s.testCauses,
				"manual rotation": s.testManualRotation, "jwks rotation": s.testJWKSRotation,
			} {
				t.Run(what, func(t *testing.T) {
					t.Parallel()
					test(t)
				})
			}
		})
	}
}

// algorithms returns the algorithms of each type of key; the first is the default.
func algorithms() map[string][]string {
	rsa := []string{"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"}
	return map[string][]string{
		"rsa-2048": rsa, "rsa-3072": rsa, "rsa-4096": rsa,
		"ecdsa-p256": {"ES256"}, "ecdsa-p384": {"ES384"}, "ecdsa-p521": {"ES512"},
		"ed25519": {"EdDSA"},
	}
}

// rejects reports whether the provider cannot use a pasted key of a type.
func (s *site) rejects(keyType string) bool {
	switch s.name {
	case provider.Hydra:
		return keyType == "ed25519"
	case provider.Keycloak: // fixed in 26.5.0
		return os.Getenv("KEYCLOAK_VERSION") == "26.4.7" && strings.HasPrefix(keyType, "ecdsa-")
	default:
		return false
	}
}

func (s *site) testKeyTypes(t *testing.T) {
	for keyType, algorithms := range algorithms() {
		t.Run(keyType, func(t *testing.T) {
			t.Parallel()
			k := s.newSubject(t, map[string]any{"type": keyType}, nil)
			if !harness.Slow() {
				algorithms = algorithms[:1]
			}
			for _, algorithm := range algorithms {
				k.Write(t, "keys/"+k.name, map[string]any{"algorithm": algorithm})
				if s.rejects(keyType) {
					k.requireRejected(t)
					continue
				}
				k.register(t)
				token := k.Read(t, "creds/"+k.name).Text(t, "access_token")
				require.True(t, s.isActive(t, token), algorithm)
			}
		})
	}
}

// requireRejected requires that the provider rejects the key when it is registered or used.
func (k *subject) requireRejected(t *testing.T) {
	t.Helper()
	if err := k.at.PutClient(t.Context(), k.client(t)); err != nil {
		require.ErrorContains(t, err, "400 Bad Request")
		return
	}
	read := k.Do(t, http.MethodGet, "creds/"+k.name, nil, nil)
	require.Equal(t, http.StatusBadRequest, read.Status, read.ErrorText())
}

// testLeases requires that the end of a lease revokes the token.
func (s *site) testLeases(t *testing.T) {
	ends := map[string]func(*testing.T, *subject, *api.Secret){
		"by vault lease revoke": func(t *testing.T, k *subject, creds *api.Secret) {
			k.MustRun(t, "lease", "revoke", "-sync", creds.LeaseID)
		},
		"on expiry": func(*testing.T, *subject, *api.Secret) {},
	}
	for how, end := range ends {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			k := s.newSubject(t, nil, map[string]any{
				"revoke_tokens": true, "refresh_margin": "110s",
			})
			client := k.client(t)
			client.TokenLifetime = 2 * time.Minute
			require.NoError(t, s.PutClient(t.Context(), client))
			creds := k.ReadSecret(t, "creds/"+k.name)
			token, _ := creds.Data["access_token"].(string)
			require.True(t, s.isActive(t, token))
			end(t, k, creds)
			require.Eventually(t, func() bool { return !s.isActive(t, token) },
				time.Minute, 200*time.Millisecond)
			require.True(t, time.Now().Before(harness.TimeField(t, creds, "expires_at")),
				"it would have expired anyway")
		})
	}
}
