package examples

import (
	"encoding/json"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/bcgov/vault-plugin-bcgov-jwt/integrationtest/harness"
	servers "github.com/bcgov/vault-plugin-bcgov-jwt/integrationtest/program"
)

const (
	metricPrefix = "bcgov_jwt_"
	// alertedWithin is how long Prometheus may take to see what is to raise an alert.
	alertedWithin = 20 * time.Second
)

// promtool runs promtool in the folder of the examples.
func promtool(t *testing.T, stdin string, args ...string) harness.CommandResult {
	t.Helper()
	tool := filepath.Join(scriptOutput(t, harness.PrometheusScript), "promtool")
	cmd := harness.Vault().Command(t.Context(), tool, args...)
	cmd.Dir = example("monitoring")
	cmd.Stdin = strings.NewReader(stdin)
	result, err := harness.Run(cmd)
	require.NoError(t, err)
	return result
}

// prometheus is a real one with the examples, in a folder of its own.
type prometheus struct {
	*process
	url, tokenFile string
}

// startPrometheus starts Prometheus with the examples, which scrapes a mount at the addresses of
// servers. It does all at once that they do in minutes.
func startPrometheus(t *testing.T, m *harness.Mount, token string, targets ...string) *prometheus {
	t.Helper()
	binary := filepath.Join(scriptOutput(t, harness.PrometheusScript), "prometheus")
	dir := t.TempDir()
	p := &prometheus{tokenFile: filepath.Join(dir, "vault-token")}
	p.setToken(t, token)
	copyEdited(t, dir, "alerts.yml", `for: \d+[mh]`, "for: 0s")
	copyEdited(t, dir, "prometheus.yml",
		`(_interval): 30s`, "$1: 1s",
		`/v1/bcgov-jwt/`, "/v1/"+m.Path+"/",
		`scheme: https`, "scheme: http",
		`/etc/prometheus/vault-token`, p.tokenFile,
		`vault\.example\.com:8200`, strings.Join(targets, ", "))
	port, err := servers.FreePort()
	require.NoError(t, err)
	address := net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
	p.url = "http://" + address
	p.process = startProcess(t, harness.Vault().Command(t.Context(), binary,
		"--config.file="+filepath.Join(dir, "prometheus.yml"), "--web.listen-address="+address,
		"--storage.tsdb.path="+filepath.Join(dir, "data")))
	t.Cleanup(func() {
		<-p.ended // it was killed at the end of the test, and no longer writes to its folder
		harness.Detector().Record("the log of Prometheus", p.String())
	})
	return p
}

// copyEdited copies an example, with regular expressions replaced that it must have.
func copyEdited(t *testing.T, dir, name string, edits ...string) {
	t.Helper()
	content, err := os.ReadFile(example("monitoring/" + name))
	require.NoError(t, err)
	for edit := range slices.Chunk(edits, 2) {
		pattern := regexp.MustCompile(edit[0])
		require.Regexp(t, pattern, string(content), name)
		content = pattern.ReplaceAll(content, []byte(edit[1]))
	}
	require.NoError(t, os.WriteFile(filepath.Join(dir, name), content, 0o600))
}

// setToken writes the Vault token, which Prometheus reads at each scrape.
func (p *prometheus) setToken(t *testing.T, token string) {
	t.Helper()
	require.NoError(t, os.WriteFile(p.tokenFile, []byte(token+"\n"), 0o600))
}

// get returns the data of a response of Prometheus's API; it is false until that responds well.
func (p *prometheus) get(t *testing.T, path string, query url.Values, data any) bool {
	t.Helper()
	p.requireRunning(t)
	address := p.url + "/api/v1/" + path + "?" + query.Encode()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, address, http.NoBody)
	require.NoError(t, err)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return false
	}
	defer resp.Body.Close()
	body := struct{ Data any }{data}
	err = json.NewDecoder(resp.Body).Decode(&body)
	return resp.StatusCode == http.StatusOK && err == nil
}

// query evaluates an expression now, and returns its values by those of a label.
func (p *prometheus) query(t *testing.T, expression, label string) map[string]string {
	t.Helper()
	var data struct {
		Result []struct {
			Metric map[string]string
			Value  [2]any
		}
	}
	if !p.get(t, "query", url.Values{"query": {expression}}, &data) {
		return nil
	}
	values := map[string]string{}
	for _, sample := range data.Result {
		values[sample.Metric[label]] = sample.Value[1].(string)
	}
	return values
}

// await waits until an expression has these values by those of a label.
func (p *prometheus) await(t *testing.T, expression, label string, want map[string]string) {
	t.Helper()
	require.EventuallyWithT(t, func(c *assert.CollectT) {
		assert.Equal(c, want, p.query(t, expression, label))
	}, alertedWithin, 100*time.Millisecond, "%s; the log: %s", expression, p)
}

// alerts returns the names of the alerts that fire, with their labels.
func (p *prometheus) alerts(t *testing.T) map[string]map[string]string {
	t.Helper()
	var data struct {
		Alerts []struct {
			State  string
			Labels map[string]string
		}
	}
	p.get(t, "alerts", nil, &data)
	firing := map[string]map[string]string{}
	for _, alert := range data.Alerts {
		if alert.State == "firing" {
			firing[alert.Labels["alertname"]] = alert.Labels
		}
	}
	return firing
}

// awaitAlerts waits until these alerts fire, and no others.
func (p *prometheus) awaitAlerts(t *testing.T, names ...string) map[string]map[string]string {
	t.Helper()
	var firing map[string]map[string]string
	require.Eventually(t, func() bool {
		firing = p.alerts(t)
		return slices.Equal(slices.Sorted(maps.Keys(firing)), names)
	}, alertedWithin, 100*time.Millisecond, "alerts %v", names)
	return firing
}

// metricNames returns the names of the metrics that were scraped.
func (p *prometheus) metricNames(t *testing.T) []string {
	t.Helper()
	var names []string
	require.True(t, p.get(t, "label/__name__/values", nil, &names))
	return slices.DeleteFunc(names, func(name string) bool {
		return !strings.HasPrefix(name, metricPrefix)
	})
}

// dashboardExpressions returns those of the example's panels, with the variables that Grafana
// replaces.
func dashboardExpressions(t *testing.T) []string {
	t.Helper()
	var dashboard struct {
		Panels []struct {
			Targets []struct{ Expr string }
		}
	}
	text, err := os.ReadFile(example("monitoring/dashboard.json"))
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(text, &dashboard))
	var expressions []string
	replace := strings.NewReplacer("$job", ".+", "$__rate_interval", "1m").Replace
	for _, panel := range dashboard.Panels {
		require.NotEmpty(t, panel.Targets)
		for _, target := range panel.Targets {
			expressions = append(expressions, replace(target.Expr))
		}
	}
	require.NotEmpty(t, expressions)
	return expressions
}

// metricNamesIn returns the names of the plugin's metrics in a file of the repository, without what
// Prometheus appends to a histogram's.
func metricNamesIn(t *testing.T, file string) []string {
	t.Helper()
	text := harness.RepositoryFile(t, file)
	names := regexp.MustCompile(metricPrefix+`\w+`).FindAllString(text, -1)
	return baseNames(names)
}

func baseNames(names []string) []string {
	suffix := regexp.MustCompile(`_(bucket|sum|count)$`)
	bases := map[string]bool{}
	for _, name := range names {
		bases[suffix.ReplaceAllString(name, "")] = true
	}
	return slices.Sorted(maps.Keys(bases))
}

// newMetricsToken returns the mount as Prometheus uses it, with a token as docs/monitoring.md has
// it.
func newMetricsToken(t *testing.T, m *harness.Mount) *harness.Mount {
	t.Helper()
	rules, err := os.ReadFile(example("policies/metrics.hcl"))
	require.NoError(t, err)
	policy := m.Path + "-metrics"
	m.WritePolicy(t, policy, strings.ReplaceAll(string(rules), "bcgov-jwt/", m.Path+"/"))
	return m.AsNewToken(t, api.TokenCreateRequest{
		Policies: []string{policy}, NoDefaultPolicy: true,
	})
}

// metricsText returns what the mount shows to Prometheus.
func metricsText(t *testing.T, m *harness.Mount) string {
	t.Helper()
	resp, err := m.Client.Logical().ReadRawWithContext(t.Context(), m.Path+"/metrics")
	require.NoError(t, err)
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	return string(text)
}
