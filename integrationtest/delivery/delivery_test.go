package delivery

import (
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bcgov/vault-plugin-bcgov-jwt/integrationtest/harness"
)

// TestDelivery_LeaseFieldsAndNumbers checks the lease, the fields and the numbers of each delivery,
// for a token of 300 s.
func TestDelivery_LeaseFieldsAndNumbers(t *testing.T) {
	t.Parallel()
	always := []string{
		"access_token", "token_type", "scope", "issued_at", "expires_at", "key_id", "token_jti",
	}
	rotation := []string{"ttl", "rotation_period", "last_vault_rotation"}
	rows := []struct {
		delivery string
		lease    int // seconds
		fields   []string
		fresh    bool // each read returns a token of its own
	}{
		{"leased", 240, []string{"expires_in"}, true},
		{"unleased", 0, append(rotation, "expires_in"), true},
		{"shared", 0, rotation, false},
	}
	for _, row := range rows {
		t.Run(row.delivery, func(t *testing.T) {
			t.Parallel()
			kc := harness.Keycloak(t)
			m := harness.NewMount(t, kc.Config)
			newRole(t, m, kc, "myapi", 300*time.Second, map[string]any{"delivery": row.delivery})
			got := m.ReadSecret(t, "creds/myapi")
			require.ElementsMatch(t, append(always, row.fields...),
				slices.Collect(maps.Keys(got.Data)))
			requireSeconds(t, row.lease, got.LeaseDuration)
			require.Equal(t, row.lease != 0, got.LeaseID != "")
			require.False(t, got.Renewable)
			requireNumbers(t, got)

			again := m.ReadSecret(t, "creds/myapi")
			require.Equal(t, row.fresh, got.Data["token_jti"] != again.Data["token_jti"])
			require.True(t, kc.IsActive(t, again))
		})
	}
}

// TestRefreshMargin_LongerThanTokenAllows has a margin as long as the token's lifetime, which
// returns a warning, and any margin of a token that lives for a second. That token is the embedded
// provider's: Keycloak counts expires_in down while it responds, to 0 if it is slow.
func TestRefreshMargin_LongerThanTokenAllows(t *testing.T) {
	t.Parallel()
	for _, delivery := range []string{"leased", "unleased", "shared"} {
		t.Run("as long as the life, "+delivery, func(t *testing.T) {
			t.Parallel()
			kc := harness.Keycloak(t)
			m := harness.NewMount(t, kc.Config)
			newRole(t, m, kc, "myapi", time.Minute, map[string]any{
				"delivery": delivery, "refresh_margin": 60,
			})
			got := m.ReadSecret(t, "creds/myapi")
			require.Len(t, got.Warnings, 1)
			lifetime := requireLifetime(t, time.Minute, got)
			margin := (lifetime / 5).Truncate(time.Second)
			harness.RequireTexts(t, got.Warnings[0], "refresh_margin is 1m", margin.String()+" is used instead",
				m.Expand("vault write {mount}/roles/myapi refresh_margin=0"))
			requirePeriod(t, int((lifetime-margin)/time.Second), got)
		})
		t.Run("a life of a second, "+delivery, func(t *testing.T) {
			t.Parallel()
			p := harness.EmbeddedProvider(t)
			m := harness.NewMount(t, p.Config)
			newRole(t, m, p, "myapi", time.Second, map[string]any{"delivery": delivery})
			for range 3 {
				begun := time.Now()
				got := m.ReadSecret(t, "creds/myapi")
				require.Empty(t, got.Warnings)
				requirePeriod(t, 1, got)
				expiresAt := harness.TimeField(t, got, "expires_at")
				require.True(t, expiresAt.Add(time.Second).After(begun),
					"it had expired when requested")
			}
		})
	}
}
