package examples

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/bcgov/vault-plugin-bcgov-jwt/integrationtest/harness"
)

// TestKubernetes_ManifestsMatchOperators checks the examples against the operators' own definitions
// of their resources.
func TestKubernetes_ManifestsMatchOperators(t *testing.T) {
	t.Parallel()
	check := buildManifestCheck(t)
	files, err := filepath.Glob(example("kubernetes/*.yaml"))
	require.NoError(t, err)
	require.Len(t, check.manifests(t, files...), 6)

	for mistake, c := range map[string]struct{ file, old, new, want string }{
		"a field that no version has": {"vso-leased.yaml", "renewalPercent:", "renewPercent:", "at '/spec': additional properties 'renewPercent'"},
		"a field in the wrong place":  {"vso-leased.yaml", "  renewalPercent: 67", "  excludeRaw: true", "at '/spec': additional properties 'excludeRaw'"},
		"a value out of range":        {"vso-leased.yaml", "renewalPercent: 67", "renewalPercent: 91", "/spec/renewalPercent': maximum: got 91, want 90"},
		"a value of another type":     {"vso-shared.yaml", "allowStaticCreds: true", `allowStaticCreds: "true"`, "/spec/allowStaticCreds': got string, want boolean"},
		"a value that is not listed":  {"vso-connection.yaml", "method: kubernetes", "method: k8s", "/spec/method': value must be one of"},
		"a required field left out":   {"vso-shared.yaml", "  mount: bcgov-jwt\n", "", "at '/spec': missing property 'mount'"},
		"a version that is not there": {"eso.yaml", "apiVersion: external-secrets.io/v1\n", "apiVersion: external-secrets.io/v2\n", "could not find schema for ExternalSecret"},
		"an unknown field far inside": {"eso.yaml", "generatorRef:\n", "generatorRef:\n          namespace: x\n", "/generatorRef': additional properties 'namespace'"},
		"an unknown field outside":    {"eso.yaml", "spec:\n", "specs: {}\nspec:\n", "at '': additional properties 'specs'"},
		"a name that is no text":      {"eso.yaml", "name: myapi-token", "name: 7", "/metadata/name': got number, want string"},
		"a field twice":               {"eso.yaml", "  refreshInterval: 2m\n", "  refreshInterval: 2m\n  refreshInterval: 3m\n", "already set"},
	} {
		t.Run(mistake, func(t *testing.T) {
			t.Parallel()
			content, err := os.ReadFile(example("kubernetes/" + c.file))
			require.NoError(t, err)
			require.Contains(t, string(content), c.old)
			file := filepath.Join(t.TempDir(), c.file)
			changed := strings.Replace(string(content), c.old, c.new, 1)
			require.NoError(t, os.WriteFile(file, []byte(changed), 0o600))
			_, err = check.run(t, file)
			require.ErrorContains(t, err, c.want)
		})
	}
}

// TestKubernetes_ManifestsObtainTokens reads tokens as the operators do for which the examples are
// written. Who logs in, for which role, and what is read is taken from the examples, and their
// script sets up Vault.
func TestKubernetes_ManifestsObtainTokens(t *testing.T) {
	t.Parallel()
	check := buildManifestCheck(t)
	provideKubernetesAuth(t, harness.Vault())
	for name, c := range map[string]struct {
		files []string
		test  func(*testing.T, *cluster, []manifest)
	}{
		"vso leased": {[]string{"vso-connection.yaml", "vso-leased.yaml"}, testVSOLeased},
		"vso shared": {[]string{"vso-connection.yaml", "vso-shared.yaml"}, testVSOShared},
		"eso":        {[]string{"eso.yaml"}, testESO},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			provider := harness.Keycloak(t)
			var files []string
			for _, file := range c.files {
				files = append(files, example("kubernetes/"+file))
			}
			all := check.manifests(t, files...)
			for _, resource := range all {
				require.Equal(t, all[0].Metadata.Namespace, resource.Metadata.Namespace)
			}
			c.test(t, newCluster(t, provider, all[0].Metadata.Namespace), all)
		})
	}
}

// TestKubernetes_SetupLeavesNothingBehind has each step of the script fail in turn.
func TestKubernetes_SetupLeavesNothingBehind(t *testing.T) {
	t.Parallel()
	provideKubernetesAuth(t, harness.Vault())
	m := harness.NewMount(t, nil)
	m.Write(t, "keys/myapi", map[string]any{"type": "ecdsa-p256"})
	auth := enableKubernetesAuth(t, m)
	for _, step := range []string{
		m.Path + "/roles/myapi", m.Path + "/roles/myapi-unleased",
		"sys/policies/acl/" + m.Path + "-myapi", "sys/policies/acl/" + m.Path + "-myapi-unleased",
		"auth/" + auth + "/role/myapi-vso", "auth/" + auth + "/role/myapi-eso",
	} {
		result := setUpWithout(t, m, auth, step, `"read"`)
		require.NotZero(t, result.Code, step)
		require.Contains(t, result.Stderr, "permission denied")
		require.Empty(t, setUpEntries(t, m, auth), step)
	}
	unreadable := "auth/" + auth + "/role/myapi-vso"
	require.NotZero(t, setUpWithout(t, m, auth, unreadable, `"create", "update"`).Code)
	require.Empty(t, setUpEntries(t, m, auth))

	m.Write(t, "roles/myapi-shared", map[string]any{"key": "myapi", "delivery": "leased"})
	result := setUpWithout(t, m, auth, "none", `"read"`)
	require.NotZero(t, result.Code)
	require.Contains(t, result.Stderr, "role myapi-shared exists and does not have delivery=shared")
	require.Equal(t, []string{"myapi-shared"}, setUpEntries(t, m, auth))

	m.Write(t, "roles/myapi-shared", map[string]any{"delivery": "shared"})
	for range 2 { // a second run changes nothing
		result = setUpWithout(t, m, auth, "none", `"read"`)
		require.Zero(t, result.Code, result.Stderr)
		require.Len(t, setUpEntries(t, m, auth), 8)
	}
	result = setUpWithout(t, m, auth, "auth/"+auth+"/role/myapi-eso", `"read"`)
	require.NotZero(t, result.Code)
	require.Len(t, setUpEntries(t, m, auth), 8, "what was there before")
}
