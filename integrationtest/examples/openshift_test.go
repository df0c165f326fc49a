package examples

import (
	"fmt"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bcgov/vault-plugin-bcgov-jwt/integrationtest/harness"
)

// TestOpenShift_OpenBaoInProject runs openbao.yaml as it stands: OpenBao, which initializes itself
// and fetches the plugin; an application that reads a token; a restart, which needs no registry;
// an upgrade; the backup; and the restore into an empty OpenBao.
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
	p.runReadme(t, "bao policy write")
	requireToken()
	p.requireRouted(t)

	p.stop(t)
	downloads := p.registry.requests.Load()
	t.Logf("ready %s after the restart", p.start(t))
	requireToken()
	require.Equal(t, downloads, p.registry.requests.Load())

	p.upgrade(t, nextVersion)
	requireToken()

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
	closed := time.Now()
	harness.Sleep(t, outage)
	require.Eventually(t, func() bool {
		return strings.Contains(agent.String(), "exceeded maximum retries")
	}, time.Minute, 20*time.Millisecond, "%s", agent)
	harness.Sleep(t, time.Second) // in which it would end
	agent.requireRunning(t)
	outage = time.Since(closed).Round(time.Second)
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
		result := b.run(t, "myapi", nil, "sh", "-ec", script, api.URL)
		require.Equal(t, code, result.Code, result.Stderr)
		b.requireNothingLeft(t)
	}
	require.Equal(t, 2, api.Tokens())
	require.Empty(t, api.Rejections())
}

// TestOpenShift_BrokerRunsNothingWithoutToken requires that broker.sh says what went wrong.
func TestOpenShift_BrokerRunsNothingWithoutToken(t *testing.T) {
	t.Parallel()
	b := newBroker(t, harness.EmbeddedProvider(t))
	for mistake, c := range map[string]struct{ variable, role, want string }{
		"another action":    {"BROKER_TOKEN=another", "myapi", "Forbidden resource"},
		"another role_id":   {"ROLE_ID=another", "myapi", "Forbidden resource"},
		"a wrong AppRole":   {"APPROLE=another", "myapi", "permission denied"},
		"no broker":         {"BROKER_URL=http://" + closedAddress(t), "myapi", "curl: (7)"},
		"no Vault":          {"VAULT_ADDR=http://" + closedAddress(t), "myapi", "curl: (7)"},
		"a missing setting": {"ROLE_ID=", "myapi", "ROLE_ID"},
		"a missing role":    {"ANY=", "missing", `role "missing"`},
		"a missing policy":  {"ANY=", "another", "permission denied"},
	} {
		t.Run(mistake, func(t *testing.T) {
			t.Parallel()
			result := b.run(t, c.role, []string{c.variable}, "echo", "it runs")
			require.NotZero(t, result.Code)
			require.Contains(t, result.Stderr, c.want)
			require.Empty(t, result.Stdout)
		})
	}
}

// TestOpenShift_ExternalSecretReadsToken reads a token as the External Secrets Operator does with
// the changed manifests.
func TestOpenShift_ExternalSecretReadsToken(t *testing.T) {
	t.Parallel()
	provider := harness.EmbeddedProvider(t)
	p := newPlatform(t, provider)
	file := filepath.Join(t.TempDir(), "eso.yaml")
	const command = "sed -f eso.sed ../kubernetes/eso.yaml | oc apply -f -"
	runReadme(t, command, example("openshift"), "oc apply -f -", "tee "+file)
	all := buildManifestCheck(t).manifests(t, file)
	require.Len(t, all, 2)
	for _, m := range all {
		require.Equal(t, openShiftProject, m.Metadata.Namespace)
	}
	from := findResource(t, all, esoGeneratorGroup, "VaultDynamicSecret").Spec
	login := from.Provider.Auth.Kubernetes
	names := map[string]string{
		"VAULT_ADDR": from.Provider.Server, "VAULT_NAMESPACE": from.Provider.Namespace,
		"AUTH_PATH": "auth/" + login.MountPath, "ROLE": login.Role,
		"SERVICE_ACCOUNT": login.ServiceAccountRef.Name,
	}
	require.Equal(t, parameterFile(t, "platform.env"), names)
	require.Empty(t, login.ServiceAccountRef.Audiences)
	vault := p.cluster.login(t, login.Role, login.ServiceAccountRef.Name, []string{clusterIssuer})
	creds := harness.ReadSecret(t, vault, p.cluster.localPath(t, from.Path))
	token, _ := creds.Data["access_token"].(string)
	require.Equal(t, http.StatusOK, provider.NewAPI(t).Call(t, token))
}

// TestOpenShift_WorkloadsAreRestricted requires that the SCC restricted-v2 admits all pods, and
// that those may reach OpenBao that need to.
func TestOpenShift_WorkloadsAreRestricted(t *testing.T) {
	t.Parallel()
	all := processTemplate(t, "openbao.yaml", map[string]string{
		"NAMESPACE": openShiftProject, "PLUGIN_VERSION": "v0.1.0", "PLUGIN_SHA256": "any",
	})
	require.Len(t, all, 12)
	parameters := parameterFile(t, "openbao.env")
	parameters["API_URL"] = "https://api.example.org"
	maps.Copy(all, processTemplate(t, "app.yaml", parameters))
	policy := all["NetworkPolicy openbao"].Spec
	server := all["StatefulSet openbao"].pod()
	require.Subset(t, server.Metadata.Labels, policy.PodSelector.MatchLabels)
	require.Equal(t, map[string]any{"app": server.Metadata.Labels["app"]},
		all["Service openbao"].Spec.Selector)
	require.Equal(t, "openbao", all["Route openbao-jwks"].Spec.To.Name)
	server.requireRestricted(t)
	for _, client := range []string{
		"CronJob openbao-backup", "CronJob openbao-restore", "Deployment myapp",
	} {
		pod := all[client].pod()
		pod.requireRestricted(t)
		require.Subset(t, pod.Metadata.Labels, policy.Ingress[0].From[0].PodSelector.MatchLabels)
	}
}

// TestOpenShift_ManifestCheckFindsMistakes changes the templates and their parameters.
func TestOpenShift_ManifestCheckFindsMistakes(t *testing.T) {
	t.Parallel()
	check := buildManifestCheck(t)
	content, err := os.ReadFile(example("openshift/app.yaml"))
	require.NoError(t, err)
	for mistake, c := range map[string]struct{ old, new, want string }{
		"an unknown field of an object":   {"replicas: 2", "replica: 2", "at '/spec': additional properties 'replica'"},
		"an unknown field of a Template":  {"objects:", "object: []\nobjects:", `unknown field "object"`},
		"an unknown field of a parameter": {"    required: true", "    mandatory: true", `unknown field "parameters[`},
		"a parameter that is not there":   {"${NAME}", "${NAMES}", "no parameter NAMES"},
		"a parameter without a value":     {"value: bcgov-jwt/creds/myapi", "required: true", "parameter CREDS is required"},
		"a parameter that is not known":   {"  - name: VAULT_NAMESPACE\n", "", "unknown parameter VAULT_NAMESPACE"},
	} {
		t.Run(mistake, func(t *testing.T) {
			t.Parallel()
			require.Contains(t, string(content), c.old)
			file := filepath.Join(t.TempDir(), "app.yaml")
			changed := strings.Replace(string(content), c.old, c.new, 1)
			require.NoError(t, os.WriteFile(file, []byte(changed), 0o600))
			args := []string{"-p", "API_URL=https://api.example.org"}
			for name, value := range parameterFile(t, "platform.env") {
				args = append(args, "-p", name+"="+value)
			}
			_, err := check.run(t, append(args, file)...)
			require.ErrorContains(t, err, c.want)
		})
	}
}
