package backend

import (
	"testing"
	"time"

	"github.com/bcgov/vault-plugin-bcgov-jwt/backend/internal/exchange"
	"github.com/bcgov/vault-plugin-bcgov-jwt/backend/internal/tokenendpoint"
	"github.com/stretchr/testify/require"
)

func TestRole_DefaultMargin(t *testing.T) {
	t.Parallel()
	for life, margin := range map[time.Duration]time.Duration{
		1: 1, 2: 1, 3: 1, 4: 2, 5: 2, 10: 5, 20: 10, 30: 10, 50: 10, 51: 10, 55: 11, 60: 12, 299: 59, 300: 60, 301: 60, 3600: 60, 86400: 60,
	} {
		require.Equal(t, margin*time.Second, new(role).margin(life*time.Second), "of %d s", life)
		require.Equal(t, max(life-margin, 1)*time.Second, new(role).usableLifetime(life*time.Second), "of %d s", life)
	}
}

func TestRole_SetMarginReplacesDefaultWherePossible(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ set, life, margin, usable time.Duration }{
		{0, 300, 60, 240}, {1, 300, 1, 299}, {90, 300, 90, 210}, {299, 300, 299, 1}, {300, 300, 60, 240}, {301, 300, 60, 240}, {60, 30, 10, 20}, {1, 1, 1, 1},
	} {
		r := &role{RefreshMargin: test.set * time.Second}
		require.Equal(t, test.margin*time.Second, r.margin(test.life*time.Second), "%+v", test)
		require.Equal(t, test.usable*time.Second, r.usableLifetime(test.life*time.Second), "%+v", test)
	}
}

func TestRole_RemainingTTLCountsFromNow(t *testing.T) {
	t.Parallel()
	requested := time.Now()
	token := &exchange.Token{Token: &tokenendpoint.Token{RequestedAt: requested, Lifetime: 300 * time.Second}}
	for passed, ttl := range map[time.Duration]time.Duration{
		0: 240 * time.Second, 999 * time.Millisecond: 240 * time.Second, time.Second: 239 * time.Second, 2500 * time.Millisecond: 238 * time.Second,
		239 * time.Second: time.Second, 240 * time.Second: time.Second, time.Hour: time.Second,
	} {
		require.Equal(t, ttl, new(role).remainingTTL(token, requested.Add(passed)), "after %s", passed)
	}
}
