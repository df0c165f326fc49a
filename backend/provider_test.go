package backend

import (
	"crypto/rand"
	"slices"
	"testing"
	"time"

	realprovider "github.com/bcgov/vault-plugin-bcgov-jwt/integrationtest/provider"
	"github.com/stretchr/testify/require"
)

// TestRealProvider_ClockDifference moves the engine's clock away from that of a real provider, which only this package can. An assertion
// is backdated by 5s, and valid for 45s.
func TestRealProvider_ClockDifference(t *testing.T) {
	t.Parallel()
	names := realprovider.Names()
	if !slices.Contains(names, realprovider.Keycloak) {
		names = append(names, realprovider.Keycloak)
	}
	for _, name := range names {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := newMountAt(t, realprovider.ForTest(t, name, nil))
			for _, ahead := range []time.Duration{-30 * time.Second, 0, 4 * time.Second} {
				m.clock.advance(ahead)
				require.Equal(t, 1, m.signedBy(), ahead)
				m.clock.advance(-ahead)
			}
			m.clock.advance(30 * time.Second)
			check := m.read("check/myapi").Data
			require.Equal(t, false, check["ok"], check["report"])
			require.Contains(t, check["hint"], "clock", check["error"])
			require.Regexp(t, `(29|30|31)s ahead of the provider's`, check["report"])
		})
	}
}

// newMountAt returns a mount with a key named myapi that is registered at a provider, and its role.
func newMountAt(t *testing.T, p realprovider.Provider) *mount {
	t.Helper()
	m := newMount(t)
	m.write("config", map[string]any{"allow_insecure_endpoints": true})
	settings := realprovider.KeySettings(p)
	settings["client_id"] = rand.Text()
	key := m.write("keys/myapi", settings).Data
	require.NoError(t, p.PutClient(t.Context(), realprovider.Client{
		ID: key["client_id"].(string), PublicKey: key["public_key"].(string), Algorithm: key["algorithm"].(string),
	}))
	m.write("roles/myapi", nil)
	return m
}
