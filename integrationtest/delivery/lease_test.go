package delivery

import (
	"crypto/rand"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"
	"github.com/stretchr/testify/require"

	"github.com/bcgov/vault-plugin-bcgov-jwt/integrationtest/harness"
)

// TestLease_EndRevokesToken requires it in Keycloak, if the role requests it.
func TestLease_EndRevokesToken(t *testing.T) {
	t.Parallel()
	revoke := func(t *testing.T, m *harness.Mount, creds *api.Secret) {
		m.MustRun(t, "lease", "revoke", "-sync", creds.LeaseID)
	}
	rows := []struct {
		name    string
		revokes bool
		end     func(*testing.T, *harness.Mount, *api.Secret)
	}{
		{"by vault lease revoke", true, revoke},
		{"after the role was deleted", true, func(t *testing.T, m *harness.Mount, creds *api.Secret) {
			m.MustRun(t, "delete", "{mount}/roles/myapi")
			revoke(t, m, creds)
		}},
		{"on expiry", true, func(*testing.T, *harness.Mount, *api.Secret) {}},
		{"with the mount", true, func(t *testing.T, m *harness.Mount, _ *api.Secret) {
			m.RecordPrivateKeys(t)
			m.MustRun(t, "secrets", "disable", "{mount}")
		}},
		{"without revoke_tokens", false, revoke},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			kc := harness.Keycloak(t)
			m := harness.NewMount(t, kc.Config)
			newRole(t, m, kc, "myapi", 120*time.Second, map[string]any{
				"revoke_tokens": row.revokes, "refresh_margin": "110s",
			})
			creds := m.ReadSecret(t, "creds/myapi")
			requireSeconds(t, 10, creds.LeaseDuration)
			require.True(t, kc.IsActive(t, creds))
			row.end(t, m, creds)
			if !row.revokes {
				require.True(t, kc.IsActive(t, creds))
				return
			}
			require.Eventually(t, func() bool { return !kc.IsActive(t, creds) },
				time.Minute, 100*time.Millisecond)
			expiresAt := harness.TimeField(t, creds, "expires_at")
			require.True(t, time.Now().Before(expiresAt), "it would have expired anyway")
		})
	}
}

// TestLease_EndsWhenRevocationFails: the provider is unavailable, and Vault's log says what that
// means.
func TestLease_EndsWhenRevocationFails(t *testing.T) {
	t.Parallel()
	p, g := gatedKeycloak(t)
	m := harness.NewMount(t, p.Config)
	newRole(t, m, p, "myapi", 300*time.Second, map[string]any{"revoke_tokens": true})
	creds := m.ReadSecret(t, "creds/myapi")
	g.cut()
	m.MustRun(t, "lease", "revoke", "-sync", creds.LeaseID)
	g.open()
	require.NotEmpty(t, g.requests("revoke"))
	require.True(t, p.IsActive(t, creds))
	require.Empty(t, m.Leases(t, "myapi"))

	log, err := os.ReadFile(harness.Vault().LogFile())
	require.NoError(t, err)
	var logged []string
	for line := range strings.Lines(string(log)) {
		if strings.Contains(line, creds.Data["token_jti"].(string)) {
			logged = append(logged, line)
		}
	}
	require.Len(t, logged, 1)
	for _, text := range []string{
		"[WARN]", "token revocation failed; the token expires on its own", "role=myapi", "key=myapi",
		"expires_at=" + creds.Data["expires_at"].(string), "token revocation at ",
	} {
		require.Contains(t, logged[0], text)
	}
	require.NotContains(t, logged[0], "eyJ", "the beginning of each JWT")
}

// TestLease_ManyEndWithMountWhileProviderIsDown runs its cases one after the other, as each is a
// load for the other tests.
func TestLease_ManyEndWithMountWhileProviderIsDown(t *testing.T) {
	t.Parallel()
	for _, revokes := range []bool{false, true} {
		disableWithManyLeases(t, revokes, "connections are refused",
			func(_ *gate, host *httptest.Server) { host.Close() })
		disableWithManyLeases(t, revokes, "nothing comes back",
			func(g *gate, _ *httptest.Server) { g.silence() })
	}
}

// TestLease_LimitedVaultTokens: a Vault token with one use cannot hold a lease, and a batch token's
// leases end with it.
func TestLease_LimitedVaultTokens(t *testing.T) {
	t.Parallel()
	p, g := gatedKeycloak(t)
	m := harness.NewMount(t, p.Config)
	for _, delivery := range []string{"leased", "unleased", "shared"} {
		newRole(t, m, p, delivery, 300*time.Second, map[string]any{
			"delivery": delivery, "revoke_tokens": delivery == "leased",
		})
	}
	policy := "reader-of-" + m.Path
	m.WritePolicy(t, policy, `path "`+m.Path+`/creds/*" { capabilities = ["read"] }`)
	reader := func(limits api.TokenCreateRequest) *harness.Mount {
		limits.Policies = []string{policy}
		return m.AsNewToken(t, limits)
	}

	for _, delivery := range []string{"unleased", "shared"} {
		once := reader(api.TokenCreateRequest{NumUses: 1})
		require.NotEmpty(t, once.Read(t, "creds/"+delivery).Text(t, "access_token"))
		once.RequireForbidden(t, http.MethodGet, "creds/"+delivery, nil)
	}
	before := len(g.requests("revoke"))
	once := reader(api.TokenCreateRequest{NumUses: 1})
	got := once.Do(t, http.MethodGet, "creds/leased", nil, nil)
	require.Equal(t, http.StatusBadRequest, got.Status)
	require.Contains(t, got.ErrorText(), "token had one use left")
	require.Eventually(t, func() bool { return len(g.requests("revoke")) > before },
		30*time.Second, 50*time.Millisecond, "the token that nobody received is revoked")

	batch := reader(api.TokenCreateRequest{Type: "batch", TTL: "60s"})
	require.InDelta(t, 50, batch.ReadSecret(t, "creds/leased").LeaseDuration, 10)
	require.Equal(t, 240, batch.Read(t, "creds/unleased").Number(t, "rotation_period"))
	require.Equal(t, 240, batch.Read(t, "creds/shared").Number(t, "rotation_period"))
}

// TestLease_MountLimitShortensIt: Vault itself adds the warning.
func TestLease_MountLimitShortensIt(t *testing.T) {
	t.Parallel()
	kc := harness.Keycloak(t)
	m := harness.NewMount(t, kc.Config)
	newRole(t, m, kc, "myapi", 300*time.Second, nil)
	m.MustRun(t, "secrets", "tune", "-max-lease-ttl=60s", "{mount}")
	got := m.ReadSecret(t, "creds/myapi")
	require.Equal(t, 60, got.LeaseDuration)
	require.Len(t, got.Warnings, 1)
	harness.RequireTexts(t, got.Warnings[0], `TTL of "4m" exceeded the effective max_ttl of "1m"`)
	requireLifetime(t, 300*time.Second, got)
}

// TestLease_EndsWhileProviderIsDown: nothing that ends a lease may depend on the provider.
func TestLease_EndsWhileProviderIsDown(t *testing.T) {
	t.Parallel()
	p := harness.EmbeddedProvider(t)
	m := harness.EnableMount(t, "bcgov-jwt-"+strings.ToLower(rand.Text()))
	m.Write(t, "config", p.Config)
	m.NewClient(t, p, "myapi", nil)
	lease := strings.TrimSpace(m.MustRun(t, "read", "-field=lease_id", "{mount}/creds/myapi"))
	m.MustRun(t, "read", "{mount}/creds/myapi")
	m.MustRun(t, "read", "{mount}/creds/myapi")
	p.Close()
	require.Contains(t, m.MustFail(t, "read", "{mount}/creds/myapi"), "Code: 502")
	m.MustRun(t, "lease", "revoke", "-sync", lease)
	m.RecordPrivateKeys(t)
	m.MustRun(t, "secrets", "disable", "{mount}")
	require.NotContains(t, m.MustRun(t, "secrets", "list"), m.Path)
}
