package harness

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"
	"github.com/stretchr/testify/require"
)

// RaftVault is a Vault server for one test alone, whose data outlives its process. It has no audit
// log and logs no request, so that it can be used for loads.
type RaftVault struct {
	*VaultServer
	unsealKey string
}

// StartRaftVault starts a server and stops it when the test ends. Its log is searched for secrets.
func StartRaftVault(t *testing.T) *RaftVault {
	t.Helper()
	dir, err := temporaryDirectory()
	require.NoError(t, err)
	v := &RaftVault{VaultServer: &VaultServer{Host: Vault().Host, Binary: Vault().Binary, Dir: dir}}
	t.Cleanup(func() {
		if v.PID != 0 {
			_ = syscall.Kill(-v.PID, syscall.SIGKILL)
			<-v.exited
		}
		log, err := os.ReadFile(v.LogFile())
		require.NoError(t, err)
		Detector().Record("the log of the Vault of "+t.Name(), string(log))
		require.NoError(t, os.RemoveAll(dir))
	})
	require.NoError(t, v.createFolders())
	plugin, err := os.ReadFile(filepath.Join(Vault().PluginDirectory(), PluginName))
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(v.PluginDirectory(), PluginName), plugin, 0o700))
	v.configure(t)
	require.NoError(t, v.launch())
	v.initialize(t)
	v.unseal(t)
	require.NoError(t,
		v.RegisterPlugin(t.Context(), v.NewClient(t), PluginName, PluginName, pluginVersion))
	return v
}

func (v *RaftVault) configure(t *testing.T) {
	t.Helper()
	var err error
	v.Address, err = freeAddress()
	require.NoError(t, err)
	cluster, err := freeAddress()
	require.NoError(t, err)
	data := filepath.Join(v.Dir, "raft")
	require.NoError(t, os.Mkdir(data, 0o700))
	config := fmt.Sprintf(`
		plugin_directory     = %q
		raw_storage_endpoint = true
		disable_mlock        = true
		log_level            = "debug"
		api_addr             = "http://%s"
		cluster_addr         = "http://%s"
		listener "tcp" {
			address         = "%s"
			cluster_address = "%s"
			tls_disable     = true
		}
		storage "raft" {
			path                   = %q
			node_id                = "one"
			performance_multiplier = 1
		}`, v.PluginDirectory(), v.Address, cluster, v.Address, cluster, data)
	require.NoError(t, os.WriteFile(v.configFile(), []byte(config), 0o600))
}

func (v *RaftVault) initialize(t *testing.T) {
	t.Helper()
	client, err := v.client(nil)
	require.NoError(t, err)
	var initialized *api.InitResponse
	require.Eventually(t, func() bool {
		request := &api.InitRequest{SecretShares: 1, SecretThreshold: 1}
		initialized, err = client.Sys().InitWithContext(t.Context(), request)
		return err == nil
	}, startTimeout, 50*time.Millisecond, "vault operator init")
	v.RootToken, v.unsealKey = initialized.RootToken, initialized.KeysB64[0]
}

func (v *RaftVault) unseal(t *testing.T) {
	t.Helper()
	client, err := v.client(nil)
	require.NoError(t, err)
	require.Eventually(t, func() bool {
		status, err := client.Sys().UnsealWithContext(t.Context(), v.unsealKey)
		return err == nil && !status.Sealed
	}, startTimeout, 50*time.Millisecond, "vault operator unseal")
	require.Eventually(t, func() bool {
		health, err := client.Sys().HealthWithContext(t.Context())
		return err == nil && !health.Sealed && !health.Standby
	}, startTimeout, 50*time.Millisecond, "active")
}

// NewMount mounts the plugin in this server. The mount ends with the server: a test that does not
// call UnmountAfterTest records the private keys itself.
func (v *RaftVault) NewMount(t *testing.T, path string) *Mount {
	t.Helper()
	m := &Mount{Path: path, Client: v.NewClient(t)}
	input := &api.MountInput{Type: PluginName}
	require.NoError(t, m.Client.Sys().MountWithContext(t.Context(), m.Path, input))
	m.findStorage(t)
	return m
}

// Kill ends the server and its plugins as a power failure does.
func (v *RaftVault) Kill(t *testing.T) {
	t.Helper()
	require.NoError(t, syscall.Kill(-v.PID, syscall.SIGKILL))
	<-v.exited
}

// Restart starts the server again on its data.
func (v *RaftVault) Restart(t *testing.T) {
	t.Helper()
	require.NoError(t, v.launch())
	v.unseal(t)
}
