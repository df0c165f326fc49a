package backend

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/bcgov/vault-plugin-bcgov-jwt/backend/internal/keyring"
	"github.com/hashicorp/vault/sdk/logical"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	"github.com/stretchr/testify/require"
)

// scrape returns the lines of the mount's metrics by name and labels.
func (m *mount) scrape() map[string]string {
	m.tb.Helper()
	text := m.metricsText()
	values := map[string]string{}
	for line := range strings.Lines(text) {
		if name, value, found := strings.Cut(strings.TrimSpace(line), "} "); found {
			values[name+"}"] = value
		} else if name, value, found := strings.Cut(strings.TrimSpace(line), " "); found && !strings.HasPrefix(line, "#") {
			values[name] = value
		}
	}
	return values
}

func (m *mount) metricsText() string {
	m.tb.Helper()
	data := m.read("metrics").Data
	require.Equal(m.tb, http.StatusOK, data[logical.HTTPStatusCode])
	require.Equal(m.tb, "text/plain; version=0.0.4; charset=utf-8", data[logical.HTTPContentType])
	return string(data[logical.HTTPRawBody].([]byte))
}

func TestMetrics_CountExchangesByIssuerAndReason(t *testing.T) {
	t.Parallel()
	m, p := newReadyMount(t)
	host := strings.TrimPrefix(p.URL, "http://")
	m.read("creds/myapi")
	m.read("creds/myapi")
	m.write("roles/nope", map[string]any{"key": "myapi", "scopes": "nope"})
	m.refused(logical.ReadOperation, "creds/nope", nil)
	values := m.scrape()
	require.Equal(t, "2", values[fmt.Sprintf(`bcgov_jwt_exchanges_total{issuer_host="%s",outcome="success"}`, host)])
	require.Equal(t, "1", values[fmt.Sprintf(`bcgov_jwt_exchanges_total{issuer_host="%s",outcome="invalid_scope"}`, host)])
	require.Equal(t, "3", values[fmt.Sprintf(`bcgov_jwt_exchange_duration_seconds_count{issuer_host="%s"}`, host)])
	require.Equal(t, "1", values[`bcgov_jwt_build_info{commit="abc",version="v1.2.3"}`], "%v", values)

	info := m.read("info").Data
	require.Equal(t, int64(3), info["exchanges"])
	require.Equal(t, int64(1), info["failures"])
	require.Equal(t, "refused", info["last_failure_kind"])
	require.NotEmpty(t, info["last_failure_time"])
}

func TestMetrics_CountFallbacksAndSwitches(t *testing.T) {
	t.Parallel()
	m, p := newReadyMount(t)
	host := strings.TrimPrefix(p.URL, "http://")
	m.read("creds/myapi")
	m.write("keys/myapi/rotate", nil)
	p.registerVersion(m, 2)
	m.read("creds/myapi")
	values := m.scrape()
	require.Equal(t, "1", values[fmt.Sprintf(`bcgov_jwt_fallbacks_total{issuer_host="%s"}`, host)])
	require.Equal(t, "1", values[fmt.Sprintf(`bcgov_jwt_version_switches_total{issuer_host="%s"}`, host)])
	info := m.read("info").Data
	require.Equal(t, int64(1), info["fallbacks"])
	require.Equal(t, int64(1), info["version_switches"])
}

func TestMetrics_ShowEachKeysState(t *testing.T) {
	t.Parallel()
	m, _ := newReadyMount(t)
	m.write("keys/staged", map[string]any{"type": "ed25519"})
	m.clock.advance(time.Hour)
	m.write("keys/staged/rotate", nil)
	m.clock.advance(time.Minute)
	values := m.scrape()
	require.Regexp(t, `^366[0-4]`, values[`bcgov_jwt_key_active_version_age_seconds{key="staged"}`])
	require.Regexp(t, `^6[0-4](\.|$)`, values[`bcgov_jwt_key_staged_version_age_seconds{key="staged"}`])
	require.NotContains(t, values, `bcgov_jwt_key_staged_version_age_seconds{key="myapi"}`)
	require.Equal(t, "0", values[`bcgov_jwt_key_rotation_waiting{key="myapi"}`])

	m.write("keys/myapi", map[string]any{"registration": "jwks", "auto_rotate_period": "1h"})
	m.clock.advance(time.Hour)
	m.write("keys/staged", map[string]any{"deletion_allowed": true})
	m.delete("keys/staged")
	values = m.scrape()
	require.Equal(t, "1", values[`bcgov_jwt_key_rotation_waiting{key="myapi"}`])
	require.NotContains(t, values, `bcgov_jwt_key_active_version_age_seconds{key="staged"}`, "it is deleted")
}

func TestMetrics_LaterScrapesReadNoStorage(t *testing.T) {
	t.Parallel()
	m := mountOver(t, format1Storage(t), &clock{})
	first := m.scrape()
	calls := m.storage.calls()
	require.Len(t, m.scrape(), len(first))
	require.Equal(t, calls, m.storage.calls())
	for _, name := range m.list("keys/") {
		require.Contains(t, first, fmt.Sprintf(`bcgov_jwt_key_active_version_age_seconds{key="%s"}`, name))
	}
}

func TestMetrics_FailedLoadIsRepeated(t *testing.T) {
	t.Parallel()
	m := mountOver(t, format1Storage(t), &clock{})
	m.storage.failNth(2, func(v verb) bool { return !v.writes() })
	_, err := m.handle(t.Context(), logical.ReadOperation, "metrics", nil)
	require.ErrorIs(t, err, errStorage)
	values := m.scrape()
	for _, name := range m.list("keys/") {
		require.Contains(t, values, fmt.Sprintf(`bcgov_jwt_key_active_version_age_seconds{key="%s"}`, name))
	}
}

func TestMetrics_OfTooManyKeysShowTheLargest(t *testing.T) {
	t.Parallel()
	m, _ := newReadyMount(t)
	key, err := m.keys.get(t.Context(), m.storage, "myapi")
	require.NoError(t, err)
	keys := make([]*keyring.Key, maxKeyMetrics+1)
	for i := range keys {
		keys[i] = key
	}
	families, err := m.metrics.gather(keys, m.clock.now().Add(time.Hour))
	require.NoError(t, err)
	for _, family := range families {
		if family.GetName() == "bcgov_jwt_key_active_version_age_seconds" {
			require.Len(t, family.GetMetric(), 1)
			require.Empty(t, family.GetMetric()[0].GetLabel()[0].GetValue())
			require.InDelta(t, 3600, family.GetMetric()[0].GetGauge().GetValue(), 1)
		}
	}
}

func TestMetrics_FollowPrometheusConventionsAndHoldNoSecret(t *testing.T) {
	t.Parallel()
	m, _ := newReadyMount(t)
	token := m.read("creds/myapi").Data["access_token"].(string)
	text := m.metricsText()
	problems, err := promlint.New(strings.NewReader(text)).Lint()
	require.NoError(t, err)
	require.Empty(t, problems)
	require.NotContains(t, text, token)
	require.NotRegexp(t, `go_|process_|eyJ`, text)
	requireClean(t, text)
}
