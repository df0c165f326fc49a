package backend

import (
	"crypto/rand"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bcgov/vault-plugin-bcgov-jwt/backend/internal/exchange"
	"github.com/bcgov/vault-plugin-bcgov-jwt/backend/internal/keyring"
	"github.com/bcgov/vault-plugin-bcgov-jwt/integrationtest/keycloak"
	"github.com/stretchr/testify/require"
)

// TestKeycloak_RetiredVersionIsDeleted checks with a real Keycloak what takes longer than a test can wait: the engine's clock is moved for
// background work only, and restored for token requests, as Keycloak's does not move.
func TestKeycloak_RetiredVersionIsDeleted(t *testing.T) {
	t.Parallel()
	admin := keycloak.ForTest(t)
	realm := "retirement-" + strings.ToLower(rand.Text())
	require.NoError(t, admin.CreateRealm(t.Context(), realm))
	t.Run("manual", func(t *testing.T) {
		t.Parallel()
		testManualRetirement(t, admin, realm)
	})
	t.Run("jwks", func(t *testing.T) {
		t.Parallel()
		testJWKSRetirement(t, admin, realm)
	})
}

func newKeycloakMount(t *testing.T, admin *keycloak.Admin, realm string, settings map[string]any) *mount {
	t.Helper()
	m := newMount(t)
	m.write("config", map[string]any{"allow_insecure_endpoints": true})
	settings["client_id"], settings["issuer"] = rand.Text(), admin.Issuer(realm)
	m.write("keys/myapi", settings)
	m.write("roles/myapi", nil)
	return m
}

// backgroundAfter runs the background work as if d had passed.
func (m *mount) backgroundAfter(d time.Duration) {
	m.clock.advance(d)
	m.runPeriodic()
	m.clock.advance(-d)
}

func testManualRetirement(t *testing.T, admin *keycloak.Admin, realm string) {
	m := newKeycloakMount(t, admin, realm, map[string]any{})
	register := func() {
		key := m.read("keys/myapi").Data
		require.NoError(t, admin.PutClient(t.Context(), realm, keycloak.PortalClient(key["client_id"].(string), key["public_key"].(string))))
	}
	register()
	require.Equal(t, 1, m.signedBy())
	old := m.privateKeys()[1]
	m.write("keys/myapi/rotate", nil)
	m.backgroundAfter(1000 * time.Hour)
	require.Equal(t, 1, m.signedBy(), "nothing is lost before its successor is accepted")

	register()
	require.Equal(t, 2, m.signedBy())
	m.backgroundAfter(23 * time.Hour)
	require.Len(t, m.privateKeys(), 2)
	m.backgroundAfter(25 * time.Hour)
	for path, value := range m.storage.entries(t) {
		require.NotContains(t, value, old, path)
	}
	require.Equal(t, 2, m.signedBy())
}

func testJWKSRetirement(t *testing.T, admin *keycloak.Admin, realm string) {
	m := newKeycloakMount(t, admin, realm, map[string]any{"registration": "jwks", "prepublish_period": 0, "auto_rotate_period": 3600})
	var down atomic.Bool
	vault := m.serveJWKS(t, func(w http.ResponseWriter) bool {
		if down.Load() {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
		return down.Load()
	})
	key := m.read("keys/myapi").Data
	require.NoError(t, admin.PutClient(t.Context(), realm, keycloak.PortalJWKSClient(key["client_id"].(string), vault.URL+key["jwks_path"].(string))))
	require.Equal(t, 1, m.signedBy())
	before, err := m.keys.get(t.Context(), m.storage, "myapi")
	require.NoError(t, err)

	down.Store(true)
	m.write("keys/myapi/rotate", nil)
	for began := time.Now(); time.Since(began) < 15*time.Second; time.Sleep(200 * time.Millisecond) {
		require.Equal(t, 1, m.signedBy(), "every read succeeds while Keycloak cannot fetch the new key")
	}
	m.backgroundAfter(3 * 24 * time.Hour)
	require.Len(t, m.privateKeys(), 2, "nothing is deleted, and the automatic rotation waits")
	m.clock.advance(3 * 24 * time.Hour)
	require.Contains(t, strings.Join(m.read("keys/myapi").Warnings, "\n"), "Automatic rotation is due but waiting")
	m.clock.advance(-3 * 24 * time.Hour)
	require.Equal(t, 1, m.signedBy())

	down.Store(false)
	require.Eventually(t, func() bool { return m.signedBy() == 2 }, 40*time.Second, 200*time.Millisecond)
	m.backgroundAfter(25 * time.Hour)
	require.NotContains(t, m.privateKeys(), 1, "the retired version is gone")
	require.Contains(t, m.privateKeys(), 3, "the automatic rotation continues")

	// Keycloak does not know version 3, which makes it read the document again.
	m.write("keys/myapi/activate", map[string]any{"force": true})
	require.Eventually(t, func() bool { return m.signedBy() == 3 }, 40*time.Second, 200*time.Millisecond)
	requireRejected(t, m, before)
}

// requireRejected signs with the key as it was before; the provider must reject it.
func requireRejected(t *testing.T, m *mount, before *keyring.Key) {
	t.Helper()
	client, err := m.clients.get(t.Context(), m.storage, configStoragePath)
	require.NoError(t, err)
	_, err = m.exchanger.Try(t.Context(), client, exchange.Request{Key: before}, before.Version(1))
	require.Error(t, err)
	require.True(t, exchange.KeyRejected(err), "%v", err)
}
