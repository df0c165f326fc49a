package examples

import (
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bcgov/vault-plugin-bcgov-jwt/integrationtest/harness"
)

// TestOpenShift_OpenBaoInProject runs openbao.yaml as it stands: OpenBao, which initializes itself
// and fetches the plugin; an application that reads a token; a restart, which needs no registry;
// the backup; and the restore into an empty OpenBao.
func TestOpenShift_OpenBaoInProject(t *testing.T) {
	t.Parallel()
	provider := harness.AnyProvider(t)
	p := newProject(t, provider)
	api := provider.NewAPI(t)
	requireToken := func() {
		t.Helper()
		require.Equal(t, http.StatusOK, api.Call(t, p.tokenOfApp(t, api.URL)))
	}
	t.Logf("ready %s after the first start", p.start(t))
	p.createKey(t, provider)
	p.permitApp(t)
	requireToken()

	p.stop(t)
	downloads := p.registry.requests.Load()
	t.Logf("ready %s after the restart", p.start(t))
	requireToken()
	require.Equal(t, downloads, p.registry.requests.Load())

	p.runJob(t, "openbao-backup", "backup")
	p.stop(t)
	p.clearData(t)
	p.start(t)
	p.requireNoKeys(t)
	p.runJob(t, "openbao-restore", "restore")
	p.waitReady(t)
	requireToken()
	p.stop(t)
	p.start(t)
	requireToken()
}

// TestOpenShift_InjectedAgentSurvivesOutage runs the pod of app.yaml on the platform's names: its
// calls succeed while the provider is up, the Agent survives an outage in which all of its retries
// fail, and the calls succeed again soon after.
func TestOpenShift_InjectedAgentSurvivesOutage(t *testing.T) {
	t.Parallel()
	outage := 90 * time.Second
	if harness.Slow() {
		outage = 370 * time.Second
	}
	provider := harness.AnyProvider(t)
	p := newPlatform(t, provider)
	api := provider.NewAPI(t)
	pod := p.newInjectedPod(t, api.URL)
	pod.runAgentInit(t)
	agent, app := pod.start(t, agentContainer), pod.start(t, "app")

	waitForTokens := func(tokens int) {
		t.Helper()
		require.Eventually(t, func() bool { return api.Tokens() >= tokens }, time.Minute,
			20*time.Millisecond, "%s", agent)
	}
	waitForTokens(4)
	require.Empty(t, api.Rejections())
	before := api.Calls()

	p.provider.close()
	harness.Sleep(t, outage)
	agent.requireRunning(t)
	require.NotEmpty(t, api.Rejections(), "the outage is longer than a token's lifetime")
	inOutage, tokens := api.Calls(), api.Tokens()

	p.provider.open()
	opened := time.Now()
	waitForTokens(tokens + 1)
	recovery := time.Since(opened)
	require.Less(t, recovery, 15*time.Second)
	rejections := len(api.Rejections())
	waitForTokens(tokens + 4)
	require.Len(t, api.Rejections(), rejections)
	app.requireRunning(t)
	t.Logf("%d calls before an outage of %s, all accepted; %d of %d accepted during it; "+
		"a new token %s after it; %d calls since, all accepted", before, outage,
		inOutage-before-rejections, inOutage-before, recovery, api.Calls()-inOutage)
}

// TestOpenShift_BrokerRunsCommand runs commands with broker.sh, which leaves no Vault token and no
// lease behind.
func TestOpenShift_BrokerRunsCommand(t *testing.T) {
	t.Parallel()
	provider := harness.EmbeddedProvider(t)
	api := provider.NewAPI(t)
	b := newBroker(t, provider)
	call := `printf 'Authorization: Bearer %s' "$ACCESS_TOKEN" | curl --silent --fail --header @- ` +
		`--output /dev/null "$0"; test -z "${BROKER_TOKEN:-}"; `
	for _, code := range []int{0, 3} {
		script := fmt.Sprint(call, "exit ", code)
		result := b.run(t, nil, "sh", "-ec", script, api.URL)
		require.Equal(t, code, result.Code, result.Stderr)
		b.requireNothingLeft(t)
	}
	require.Equal(t, 2, api.Tokens())
	require.Empty(t, api.Rejections())

	for mistake, c := range map[string]struct{ variable, want string }{
		"another action":    {"BROKER_TOKEN=another", "Forbidden resource"},
		"another role":      {"ROLE_ID=another", "Forbidden resource"},
		"a wrong AppRole":   {"APPROLE=another", "permission denied"},
		"no broker":         {"BROKER_URL=http://" + closedAddress(t), "curl: (7)"},
		"no Vault":          {"VAULT_ADDR=http://" + closedAddress(t), "curl: (7)"},
		"a missing setting": {"ROLE_ID=", "ROLE_ID"},
	} {
		t.Run(mistake, func(t *testing.T) {
			result := b.run(t, []string{c.variable}, "echo", "it runs")
			require.NotZero(t, result.Code)
			require.Contains(t, result.Stderr, c.want)
			require.Empty(t, result.Stdout)
		})
	}
	b.m.Delete(t, "roles/myapi")
	result := b.run(t, nil, "echo", "it runs")
	require.Contains(t, result.Stderr, `role "myapi"`)
	require.Empty(t, result.Stdout)
	b.requireNothingLeft(t)
}
