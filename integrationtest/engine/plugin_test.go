package engine

import (
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"
	"github.com/stretchr/testify/require"

	"github.com/bcgov/vault-plugin-bcgov-jwt/integrationtest/harness"
)

// TestPlugin_SurvivesCrashAndUpgrade has its own entry in the catalog, so that it does not share
// its plugin process with other tests.
func TestPlugin_SurvivesCrashAndUpgrade(t *testing.T) {
	t.Parallel()
	const name, oldVersion, newVersion = "jwt-life", "v1.1.0-test", "v1.2.0-test"
	oldCommand, newCommand := name+"-"+oldVersion, name+"-"+newVersion
	vault := harness.Vault()
	client := vault.NewClient(t)
	require.NoError(t, vault.BuildPlugin(t.Context(), oldCommand, oldVersion))
	require.NoError(t, vault.RegisterPlugin(t.Context(), client, name, oldCommand, oldVersion))

	p := harness.EmbeddedProvider(t)
	m := harness.MountPlugin(t, name, oldVersion)
	m.Write(t, "config", p.Config)
	m.NewClient(t, p, "myapi", map[string]any{"algorithm": "PS256"})
	m.Read(t, "creds/myapi")
	key, role := m.Read(t, "keys/myapi").Data, m.Read(t, "roles/myapi").Data
	requireUnchanged := func(version string) {
		t.Helper()
		require.Equal(t, version, m.Read(t, "info").Text(t, "version"))
		require.Equal(t, key, m.Read(t, "keys/myapi").Data)
		require.Equal(t, role, m.Read(t, "roles/myapi").Data)
		m.Read(t, "creds/myapi")
	}

	killed := m.KillPlugin(t, vault, oldCommand)
	m.Read(t, "creds/myapi")
	require.NotEqual(t, killed, vault.PluginProcess(t, oldCommand))
	requireUnchanged(oldVersion)

	require.NoError(t, vault.BuildPlugin(t.Context(), newCommand, newVersion))
	require.NoError(t, vault.RegisterPlugin(t.Context(), client, name, newCommand, newVersion))
	requireUnchanged(oldVersion)
	m.MustRun(t, "secrets", "tune", "-plugin-version="+newVersion, "{mount}")
	m.MustRun(t, "plugin", "reload", "-plugin="+name)
	requireUnchanged(newVersion)
	vault.PluginProcess(t, newCommand)
	require.NotEmpty(t, m.Leases(t, "myapi"), "the leases of the old version")
	require.NoError(t, client.Sys().RevokePrefixWithContext(t.Context(), m.Path))
}

// TestPlugin_LeavesNoOrphanAndNoCore kills Vault, which then cannot end the plugin itself.
func TestPlugin_LeavesNoOrphanAndNoCore(t *testing.T) {
	t.Parallel()
	vault := harness.StartRaftVault(t)
	vault.NewMount(t, "orphan").Read(t, "info")
	pid := strconv.Itoa(vault.PluginProcess(t, harness.PluginName))
	if runtime.GOOS == "linux" {
		limits, err := os.ReadFile("/proc/" + pid + "/limits")
		require.NoError(t, err)
		require.Regexp(t, "Max core file size +0 +0 ", string(limits))
	}
	require.NoError(t, syscall.Kill(vault.PID, syscall.SIGKILL))
	require.Eventually(t, func() bool {
		state, _ := exec.CommandContext(t.Context(), "ps", "-o", "stat=", "-p", pid).Output()
		// Process 1 of a container need not wait for orphans, which then remain as zombies.
		return len(state) == 0 || state[0] == 'Z'
	}, 10*time.Second, 50*time.Millisecond, "the plugin has ended")
}

// TestPlugin_WrongVersionIsRejected: the registered version must be the one that the binary
// reports.
func TestPlugin_WrongVersionIsRejected(t *testing.T) {
	t.Parallel()
	vault := harness.Vault()
	client := vault.NewClient(t)
	require.Error(t,
		vault.RegisterPlugin(t.Context(), client, "jwt-wrong", harness.PluginName, "v9.9.9"))
	secrets := &api.ListPluginsInput{Type: api.PluginTypeSecrets}
	listed, err := client.Sys().ListPluginsWithContext(t.Context(), secrets)
	require.NoError(t, err)
	require.NotContains(t, listed.PluginsByType[api.PluginTypeSecrets], "jwt-wrong")
}
