package examples

import (
	"bufio"
	"fmt"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bcgov/vault-plugin-bcgov-jwt/integrationtest/harness"
)

// TestMonitoring_FilesPassPromtool checks the files as they stand.
func TestMonitoring_FilesPassPromtool(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{
		{"check", "config", "--syntax-only", "prometheus.yml"}, // the token's file is missing
		{"check", "rules", "alerts.yml"},
		{"test", "rules", "alerts_test.yml"},
	} {
		result := promtool(t, "", args...)
		require.Zero(t, result.Code, "%v: %s%s", args, result.Stdout, result.Stderr)
	}
}

// TestMonitoring_ProviderAlertNamesItsFailures compares the outcomes in the alert with the reasons
// that are the provider's.
func TestMonitoring_ProviderAlertNamesItsFailures(t *testing.T) {
	t.Parallel()
	table, err := os.Open(harness.InRepository("backend/internal/tokenendpoint/reasons.txt"))
	require.NoError(t, err)
	defer table.Close()
	var want []string
	for lines := bufio.NewScanner(table); lines.Scan(); {
		words := append(strings.Fields(lines.Text()), "", "")
		if slices.Contains([]string{"unavailable", "malformed", "timed_out"}, words[1]) {
			want = append(want, words[0])
		}
	}
	rules, err := os.ReadFile(example("monitoring/alerts.yml"))
	require.NoError(t, err)
	matcher := regexp.MustCompile(`(?s)outcome=~'(.*?)'`).FindStringSubmatch(string(rules))
	require.NotNil(t, matcher)
	outcomes := regexp.MustCompile(`\w+`).FindAllString(matcher[1], -1)
	require.ElementsMatch(t, want, outcomes)
}

// TestMonitoring_PrometheusSeesCountersAndOutage has a real Prometheus scrape a mount with a token
// of metrics.hcl.
func TestMonitoring_PrometheusSeesCountersAndOutage(t *testing.T) {
	t.Parallel()
	p := harness.EmbeddedProvider(t)
	m := harness.NewMount(t, p.Config)
	m.Write(t, "config", map[string]any{"max_retries": 0})
	reader := newMetricsToken(t, m)
	for _, path := range []string{"info", "config", "keys/myapi", "creds/myapi", "check/myapi"} {
		reader.RequireForbidden(t, http.MethodGet, path, nil)
	}
	own := reader.DoOutside(t, http.MethodGet, "auth/token/lookup-self")
	require.Equal(t, http.StatusForbidden, own.Status)

	prometheus := startPrometheus(t, m, "expired", harness.Vault().Address)
	prometheus.awaitAlerts(t, "BcgovJwtNotScraped")
	prometheus.setToken(t, reader.Client.Token())
	requestTokens(t, m, p)
	prometheus.await(t, "sum(bcgov_jwt_exchanges_total) by (outcome)", "outcome",
		map[string]string{"success": "5", "invalid_scope": "1"})
	prometheus.awaitAlerts(t)
	requireSameAsInfo(t, m, prometheus)

	checked := promtool(t, metricsText(t, reader), "check", "metrics")
	require.Zero(t, checked.Code, checked.Stderr)
	require.Empty(t, checked.Stdout+checked.Stderr)

	p.Close()
	stop := m.StartLoad(t, "myapi")
	firing := prometheus.awaitAlerts(t, "BcgovJwtProviderFailing")
	stop.EndWith(t, 1)
	host := strings.TrimPrefix(p.Issuer, "https://")
	host, _, _ = strings.Cut(host, "/")
	require.Equal(t, host, firing["BcgovJwtProviderFailing"]["issuer_host"])
	requireDashboardShows(t, prometheus)
}

// requestTokens obtains five tokens: one by the fallback after a rotation, and one that is held.
// One request fails.
func requestTokens(t *testing.T, m *harness.Mount, p *harness.Provider) {
	t.Helper()
	clientID := m.NewClient(t, p, "myapi", nil)
	m.Write(t, "keys/staged", nil)
	m.Write(t, "keys/staged/rotate", nil)
	m.Write(t, "roles/rejected", map[string]any{"key": "myapi", "scopes": "nope"})
	m.Write(t, "roles/shared", map[string]any{"key": "myapi", "delivery": "shared"})
	for range 3 {
		m.Read(t, "creds/myapi")
	}
	rejected := m.Do(t, http.MethodGet, "creds/rejected", nil, nil)
	require.Equal(t, http.StatusBadRequest, rejected.Status)
	p.Register(t, clientID, m.Write(t, "keys/myapi/rotate", nil).Text(t, "public_key"))
	m.Read(t, "creds/myapi")
	m.Read(t, "creds/shared")
	m.Read(t, "creds/shared")
}

// requireSameAsInfo compares the counters that Prometheus has with those of info.
func requireSameAsInfo(t *testing.T, m *harness.Mount, prometheus *prometheus) {
	t.Helper()
	info := m.Read(t, "info")
	for field, expression := range map[string]string{
		"exchanges":          "bcgov_jwt_exchanges_total",
		"failures":           `bcgov_jwt_exchanges_total{outcome!="success"}`,
		"fallbacks":          "bcgov_jwt_fallbacks_total",
		"version_switches":   "bcgov_jwt_version_switches_total",
		"served_late":        "bcgov_jwt_shared_tokens_served_late_total",
		"failed_revocations": "bcgov_jwt_failed_revocations_total",
		"shared_tokens":      "bcgov_jwt_shared_tokens",
	} {
		want := map[string]string{"": strconv.Itoa(info.Number(t, field))}
		require.Equal(t, want, prometheus.query(t, "sum("+expression+")", ""), field)
	}
	require.Equal(t, 1, info.Number(t, "version_switches"))
	require.Equal(t, 1, info.Number(t, "shared_tokens"))
	require.Equal(t, map[string]string{"staged": "1"},
		prometheus.query(t, "count by (key) (bcgov_jwt_key_staged_version_age_seconds)", "key"))
}

// requireDashboardShows evaluates each expression of the dashboard, and compares the names of
// metrics with those that were scraped.
func requireDashboardShows(t *testing.T, prometheus *prometheus) {
	t.Helper()
	for _, expression := range dashboardExpressions(t) {
		require.NotEmpty(t, prometheus.query(t, expression, ""), expression)
	}
	scraped := baseNames(prometheus.metricNames(t))
	require.Equal(t, scraped, metricNamesIn(t, "docs/examples/monitoring/dashboard.json"))
	require.Equal(t, scraped, metricNamesIn(t, "docs/monitoring.md"))
	require.Subset(t, scraped, metricNamesIn(t, "docs/examples/monitoring/alerts.yml"))
}

// TestMonitoring_NodesOfClusterCount has Prometheus scrape each node. OpenBao's count for
// themselves, Vault's show the counters of the active one.
func TestMonitoring_NodesOfClusterCount(t *testing.T) {
	t.Parallel()
	if !harness.Slow() {
		t.Skip("a cluster takes longer: SLOW=true runs it")
	}
	p := harness.AnyProvider(t)
	c := harness.StartCluster(t, 3, harness.ClusterSettings{})
	m := c.Active(t).NewMount(t, "bcgov-jwt")
	m.Write(t, "config", p.Config)
	m.NewClient(t, p, "myapi", nil)
	m.Write(t, "roles/myapi", map[string]any{"delivery": "unleased"})
	var addresses []string
	for _, v := range c {
		addresses = append(addresses, v.Address)
	}
	prometheus := startPrometheus(t, m, newMetricsToken(t, m).Client.Token(), addresses...)
	reads := map[string]string{}
	for i, v := range c {
		readNode(t, m.On(t, v), i+1)
		reads[v.Address] = strconv.Itoa(i + 1)
	}
	ofEach, ofCluster := `bcgov_jwt_exchanges_total{outcome="success"}`, "sum"
	if harness.Vault().Host != harness.OpenBao {
		ofCluster = "max"
		for _, address := range addresses {
			reads[address] = "6"
		}
	}
	prometheus.await(t, ofEach, "instance", reads)
	prometheus.await(t, ofCluster+"("+ofEach+")", "", map[string]string{"": "6"})
	prometheus.awaitAlerts(t)
	if harness.Vault().Host == harness.OpenBao {
		requireVersionAlert(t, c, prometheus)
	}
	m.RecordPrivateKeys(t)
}

// readNode reads creds so many times, once the node has seen the role and the acceptance by the node
// that reads once: without that it would forward its first read.
func readNode(t *testing.T, m *harness.Mount, times int) {
	t.Helper()
	require.Eventually(t, func() bool {
		role := m.Do(t, http.MethodGet, "roles/myapi", nil, nil)
		return role.Data["delivery"] == "unleased"
	}, 10*time.Second, 50*time.Millisecond)
	if times > 1 {
		m.EventuallyAccepted(t, "myapi", 1, 10*time.Second)
	}
	for range times {
		m.Read(t, "creds/myapi")
	}
}

// requireVersionAlert upgrades one node, and then the others as the alert says.
func requireVersionAlert(t *testing.T, c harness.Cluster, prometheus *prometheus) {
	t.Helper()
	const version, command = "v1.0.2-test", harness.PluginName + "-v1.0.2-test"
	require.NoError(t, harness.Vault().BuildPlugin(t.Context(), command, version))
	binary, err := os.ReadFile(harness.Vault().PluginDirectory() + "/" + command)
	require.NoError(t, err)
	for _, v := range c {
		v.AddPlugin(t, command, binary)
	}
	active := c.Active(t)
	require.NoError(t, active.RegisterPlugin(t.Context(), active.NewClient(t), harness.PluginName,
		command, version))
	active.MustRun(t, "secrets", "tune", "-plugin-version="+version, "bcgov-jwt/")
	active.MustRun(t, "plugin", "reload", "-plugin", harness.PluginName)
	prometheus.awaitAlerts(t, "BcgovJwtVersionsDiffer")
	active.MustRun(t, "plugin", "reload", "-scope=global", "-plugin", harness.PluginName)
	prometheus.awaitAlerts(t)
	prometheus.await(t, "count by (version) (bcgov_jwt_build_info)", "version",
		map[string]string{version: fmt.Sprint(len(c))})
}
