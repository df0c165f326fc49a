package integrationtest

import (
	"net/http"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"
	"github.com/stretchr/testify/require"
)

// TestPluginSurvivesACrashAndAnUpgrade has an entry of its own in the catalog, so that its process is not the other tests'.
func TestPluginSurvivesACrashAndAnUpgrade(t *testing.T) {
	t.Parallel()
	const name, oldVersion, newVersion = "jwt-life", "v1.1.0-test", "v1.2.0-test"
	oldCommand, newCommand := name+"-"+oldVersion, name+"-"+newVersion
	vault := shared.Vault
	client, err := vault.client(shared.witness)
	require.NoError(t, err)
	require.NoError(t, vault.buildPlugin(t.Context(), oldCommand, oldVersion))
	require.NoError(t, vault.register(t.Context(), client, name, oldCommand, oldVersion))

	p := embeddedProvider(t)
	m := mountPlugin(t, name, oldVersion)
	m.write(t, "config", p.config)
	m.newClient(t, p, "myapi", map[string]any{"algorithm": "PS256"})
	m.read(t, "creds/myapi")
	key, role := m.read(t, "keys/myapi").data, m.read(t, "roles/myapi").data
	requireUnchanged := func(version string) {
		t.Helper()
		require.Equal(t, version, m.read(t, "info").text(t, "version"))
		require.Equal(t, key, m.read(t, "keys/myapi").data)
		require.Equal(t, role, m.read(t, "roles/myapi").data)
		m.read(t, "creds/myapi")
	}

	before := vault.pluginProcess(t, oldCommand)
	require.NoError(t, syscall.Kill(before, syscall.SIGKILL))
	requireGone(t, before)
	m.eventuallyServed(t)
	m.read(t, "creds/myapi")
	require.NotEqual(t, before, vault.pluginProcess(t, oldCommand))
	requireUnchanged(oldVersion)

	require.NoError(t, vault.buildPlugin(t.Context(), newCommand, newVersion))
	require.NoError(t, vault.register(t.Context(), client, name, newCommand, newVersion))
	requireUnchanged(oldVersion)
	m.succeeds(t, "secrets", "tune", "-plugin-version="+newVersion, "{mount}")
	m.succeeds(t, "plugin", "reload", "-plugin="+name)
	requireUnchanged(newVersion)
	vault.pluginProcess(t, newCommand)
	leases, err := client.Logical().ListWithContext(t.Context(), "sys/leases/lookup/"+m.path+"/creds/myapi")
	require.NoError(t, err)
	require.NotNil(t, leases, "the leases of the old version")
	require.NoError(t, client.Sys().RevokePrefixWithContext(t.Context(), m.path))
}

// TestWrongVersionIsRefused: what is registered must be what the binary says of itself.
func TestWrongVersionIsRefused(t *testing.T) {
	t.Parallel()
	client, err := shared.Vault.client(shared.witness)
	require.NoError(t, err)
	require.Error(t, shared.Vault.register(t.Context(), client, "jwt-wrong", pluginName, "v9.9.9"))
	listed, err := client.Sys().ListPluginsWithContext(t.Context(), &api.ListPluginsInput{Type: api.PluginTypeSecrets})
	require.NoError(t, err)
	require.NotContains(t, listed.PluginsByType[api.PluginTypeSecrets], "jwt-wrong")
}

// pluginProcess finds the server's one process of a plugin command.
func (v *vaultServer) pluginProcess(t *testing.T, command string) int {
	t.Helper()
	table, err := exec.CommandContext(t.Context(), "ps", "-A", "-o", "pid=,ppid=,args=").Output()
	require.NoError(t, err)
	var found []int
	for line := range strings.Lines(string(table)) {
		columns := strings.Fields(line)
		if len(columns) < 3 || columns[1] != strconv.Itoa(v.PID) || !strings.HasSuffix(columns[2], "/"+command) {
			continue
		}
		pid, err := strconv.Atoi(columns[0])
		require.NoError(t, err)
		found = append(found, pid)
	}
	require.Len(t, found, 1, "processes of %s", command)
	return found[0]
}

// eventuallyServed waits until Vault asks a new process, and no longer the one that it has seen die.
func (m *mount) eventuallyServed(t *testing.T) {
	t.Helper()
	require.Eventually(t, func() bool { return m.do(t, http.MethodGet, "info", nil, nil).status == http.StatusOK }, 10*time.Second, 20*time.Millisecond)
}

// requireGone waits until the server has noticed the end of its child.
func requireGone(t *testing.T, pid int) {
	t.Helper()
	require.Eventually(t, func() bool { return syscall.Kill(pid, 0) != nil }, 10*time.Second, 20*time.Millisecond)
}
