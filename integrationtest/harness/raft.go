package harness

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
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
	Name string // the raft node's

	unsealKey      string
	clusterAddress string
}

// Cluster is the nodes of one storage, each with the plugin in its own plugin directory.
type Cluster []*RaftVault

// StartRaftVault starts a server and stops it when the test ends. Its log is searched for secrets.
func StartRaftVault(t *testing.T) *RaftVault {
	t.Helper()
	return StartCluster(t, 1, ClusterSettings{})[0]
}

// ClusterSettings are lines of each node's configuration.
type ClusterSettings struct {
	Server string
	Raft   string // of the storage stanza
}

// StartCluster starts a number of nodes and stops them when the test ends.
func StartCluster(t *testing.T, nodes int, settings ClusterSettings) Cluster {
	t.Helper()
	plugin, err := os.ReadFile(filepath.Join(Vault().PluginDirectory(), PluginName))
	require.NoError(t, err)
	var c Cluster
	for i := range nodes {
		v := newRaftVault(t, fmt.Sprintf("node-%d", i+1))
		c = append(c, v)
		v.AddPlugin(t, PluginName, plugin)
	}
	for _, v := range c {
		v.configure(t, c, settings)
		require.NoError(t, v.launch())
	}
	c[0].initialize(t)
	for i, v := range c {
		v.RootToken, v.unsealKey = c[0].RootToken, c[0].unsealKey
		v.Unseal(t)
		if i == 0 {
			v.setUp(t)
		}
	}
	c.awaitVoters(t)
	return c
}

func newRaftVault(t *testing.T, name string) *RaftVault {
	t.Helper()
	dir, err := temporaryDirectory()
	require.NoError(t, err)
	v := &RaftVault{
		VaultServer: &VaultServer{Host: Vault().Host, Binary: Vault().Binary, Dir: dir}, Name: name,
	}
	t.Cleanup(func() {
		if v.PID != 0 {
			_ = syscall.Kill(-v.PID, syscall.SIGKILL)
			<-v.exited
		}
		log, err := os.ReadFile(v.LogFile())
		require.NoError(t, err)
		Detector().Record("the log of "+name+" of "+t.Name(), string(log))
		require.NoError(t, os.RemoveAll(dir))
	})
	require.NoError(t, v.createFolders())
	v.Address, err = freeAddress()
	require.NoError(t, err)
	v.clusterAddress, err = freeAddress()
	require.NoError(t, err)
	return v
}

// AddPlugin writes a binary into the node's plugin directory.
func (v *RaftVault) AddPlugin(t *testing.T, command string, binary []byte) {
	t.Helper()
	path := filepath.Join(v.PluginDirectory(), command)
	require.NoError(t, os.WriteFile(path, binary, 0o700))
}

func (v *RaftVault) configure(t *testing.T, c Cluster, settings ClusterSettings) {
	t.Helper()
	data := filepath.Join(v.Dir, "raft")
	require.NoError(t, os.Mkdir(data, 0o700))
	var join strings.Builder
	for _, peer := range c {
		if peer != v && v != c[0] {
			fmt.Fprintf(&join, "retry_join { leader_api_addr = %q }\n", peer.URL())
		}
	}
	config := fmt.Sprintf(`
		plugin_directory     = %q
		raw_storage_endpoint = true
		disable_mlock        = true
		log_level            = "debug"
		api_addr             = "http://%s"
		cluster_addr         = "http://%s"
		%s
		listener "tcp" {
			address         = "%s"
			cluster_address = "%s"
			tls_disable     = true
		}
		storage "raft" {
			path                   = %q
			node_id                = %q
			performance_multiplier = 1
			%s
			%s
		}`, v.PluginDirectory(), v.Address, v.clusterAddress, settings.Server, v.Address,
		v.clusterAddress, data, v.Name, settings.Raft, join.String())
	require.NoError(t, os.WriteFile(v.configFile(), []byte(config), 0o600))
}

func (v *RaftVault) initialize(t *testing.T) {
	t.Helper()
	client, err := v.Client(nil)
	require.NoError(t, err)
	var initialized *api.InitResponse
	require.Eventually(t, func() bool {
		request := &api.InitRequest{SecretShares: 1, SecretThreshold: 1}
		initialized, err = client.Sys().InitWithContext(t.Context(), request)
		return err == nil
	}, startTimeout, 50*time.Millisecond, "vault operator init")
	v.RootToken, v.unsealKey = initialized.RootToken, initialized.KeysB64[0]
}

// Unseal unseals the server and waits until it serves. The key is accepted once: a node that joins
// the others unseals itself then, and another key would start it twice, as two standbys, one of
// which ignores that it is to step down.
func (v *RaftVault) Unseal(t *testing.T) {
	t.Helper()
	client, err := v.Client(nil)
	require.NoError(t, err)
	require.Eventually(t, func() bool {
		_, err := client.Sys().UnsealWithContext(t.Context(), v.unsealKey)
		return err == nil
	}, startTimeout, 50*time.Millisecond, "vault operator unseal")
	require.Eventually(t, func() bool { return v.serves(t.Context()) },
		startTimeout, 50*time.Millisecond, "active, or a standby of an active node")
}

// serves reports whether the server answers a request that needs an active node.
func (v *RaftVault) serves(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	client, err := v.Client(nil)
	if err != nil {
		return false
	}
	_, err = client.Logical().ReadWithContext(ctx, "sys/storage/raft/configuration")
	return err == nil
}

// setUp registers the plugin, and lets nodes that join vote after a second instead of ten.
func (v *RaftVault) setUp(t *testing.T) {
	t.Helper()
	client := v.NewClient(t)
	require.NoError(t, v.RegisterPlugin(t.Context(), client, PluginName, PluginName, PluginVersion))
	_, err := client.Logical().WriteWithContext(t.Context(),
		"sys/storage/raft/autopilot/configuration",
		map[string]any{"server_stabilization_time": "1s"})
	require.NoError(t, err)
}

// awaitVoters waits until each node votes: before, the cluster does not survive its first.
func (c Cluster) awaitVoters(t *testing.T) {
	t.Helper()
	client := c[0].NewClient(t)
	require.Eventually(t, func() bool {
		state, err := client.Sys().RaftAutopilotStateWithContext(t.Context())
		return err == nil && len(state.Voters) == len(c)
	}, startTimeout, 100*time.Millisecond, "voters")
}

// NewMount mounts the plugin in this server. The mount ends with the server: a test that does not
// call UnmountAfterTest records the private keys itself.
func (v *RaftVault) NewMount(t *testing.T, path string) *Mount {
	t.Helper()
	return v.NewMountIn(t, "", path)
}

// NewMountIn is NewMount for a namespace.
func (v *RaftVault) NewMountIn(t *testing.T, namespace, path string) *Mount {
	t.Helper()
	m := &Mount{Path: path, Client: v.NewClient(t).WithNamespace(namespace)}
	input := &api.MountInput{Type: PluginName}
	require.NoError(t, m.Client.Sys().MountWithContext(t.Context(), m.Path, input))
	m.findStorage(t)
	return m
}

// MustRun runs the unmodified vault command on this server as the root user; it must succeed.
func (v *RaftVault) MustRun(t *testing.T, args ...string) {
	t.Helper()
	cmd := v.Command(t.Context(), v.Binary, args...)
	cmd.Env = append(cmd.Env, v.ClientEnvironment(v.RootToken)...)
	result, err := Run(cmd)
	require.NoError(t, err)
	require.Zero(t, result.Code, "vault %s: %s", strings.Join(args, " "), result.Stderr)
}

// Seal seals the server, of whose plugins nothing is left.
func (v *RaftVault) Seal(t *testing.T) {
	t.Helper()
	require.NoError(t, v.NewClient(t).Sys().SealWithContext(t.Context()))
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
	v.Unseal(t)
}

// Freeze stops the server and its plugins in the middle of what they do, until Thaw: to the other
// nodes it is as if it were cut off, and it does not know itself.
func (v *RaftVault) Freeze(t *testing.T) {
	t.Helper()
	require.NoError(t, syscall.Kill(-v.PID, syscall.SIGSTOP))
}

// Thaw ends Freeze.
func (v *RaftVault) Thaw(t *testing.T) {
	t.Helper()
	require.NoError(t, syscall.Kill(-v.PID, syscall.SIGCONT))
}

// IsActive reports whether the server says that it is the active node.
func (v *RaftVault) IsActive(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	client, err := v.Client(nil)
	if err != nil {
		return false
	}
	health, err := client.Sys().HealthWithContext(ctx)
	return err == nil && !health.Sealed && !health.Standby
}

// Active waits for the cluster's active node and returns it.
func (c Cluster) Active(t *testing.T) *RaftVault {
	t.Helper()
	var active *RaftVault
	require.Eventually(t, func() bool {
		active = nil
		for _, v := range c {
			if v.IsActive(t.Context()) {
				active = v
			}
		}
		return active != nil
	}, startTimeout, 50*time.Millisecond, "an active node")
	return active
}

// Except returns the other nodes.
func (c Cluster) Except(node *RaftVault) Cluster {
	var others Cluster
	for _, v := range c {
		if v != node {
			others = append(others, v)
		}
	}
	return others
}

// On returns the mount as a client of this node uses it.
func (m *Mount) On(t *testing.T, v *RaftVault) *Mount {
	t.Helper()
	return m.Through(v.NewClient(t).WithNamespace(m.Client.Namespace()))
}
