package soak

import (
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bcgov/vault-plugin-bcgov-jwt/integrationtest/harness"
)

const (
	tokenLife = 20 * time.Second // of the tokens of the manual key's client
	faultTime = 2 * time.Second
)

// soak is a mount in a cluster of three nodes, whose keys manual and jwks have a role for each
// delivery.
type soak struct {
	cluster    harness.Cluster
	nodes      map[*harness.RaftVault]*harness.Mount
	p          *provider
	clients    map[string]string // client ids by key
	keySetPath string
	readers    []*reader

	cycles, jwksRotations int
	faults                []window
	switches              []window // from when the provider knows a new key until all nodes do
}

func newSoak(t *testing.T) *soak {
	t.Helper()
	s := &soak{
		cluster: harness.StartCluster(t, 3, harness.ClusterSettings{}), nodes: map[*harness.RaftVault]*harness.Mount{},
		p: newProvider(t), clients: map[string]string{},
	}
	m := s.cluster.Active(t).NewMount(t, "soak")
	m.Write(t, "config", s.p.Config)
	m.Write(t, "config", map[string]any{"request_timeout": "45s"}) // on a busy machine
	m.NewClientWithTokenLifetime(t, s.p.Provider, "manual", tokenLife,
		map[string]any{"type": "ecdsa-p256"}, nil)
	m.NewJWKSClient(t, s.p.Provider, "jwks", s.cluster[0].URL(), map[string]any{
		"type": "ecdsa-p256", "prepublish_period": 5, "assertion_ttl": 30, "overlap_period": 105,
	})
	for _, name := range []string{"manual", "jwks"} {
		key := m.Read(t, "keys/"+name)
		s.clients[name], s.keySetPath = key.Text(t, "client_id"), key.Text(t, "jwks_path")
		for _, delivery := range deliveries() {
			m.Write(t, "roles/"+name+"-"+delivery, map[string]any{
				"key": name, "delivery": delivery, "revoke_tokens": delivery == "leased",
				"allow_assertion": true,
			})
		}
	}
	for _, v := range s.cluster {
		s.nodes[v] = m.On(t, v)
		s.readers = append(s.readers, s.newReaders(s.nodes[v].WithConnections(t, 9))...)
	}
	return s
}

// active returns the mount through the active node.
func (s *soak) active(t *testing.T) *harness.Mount {
	t.Helper()
	return s.nodes[s.cluster.Active(t)]
}

// fault lets something fail, and ends when all is up again.
func (s *soak) fault(t *testing.T, happen func()) {
	t.Helper()
	begin := time.Now()
	happen()
	s.settle(t)
	s.faults = append(s.faults, window{begin, time.Now()})
}

func (s *soak) cutProvider(t *testing.T) {
	s.fault(t, func() {
		s.p.cut()
		harness.Sleep(t, faultTime)
		s.p.listen(t)
	})
}

// slowProvider is no fault: every read succeeds.
func (s *soak) slowProvider(t *testing.T) {
	s.p.delay.Store(int64(faultTime / 2))
	harness.Sleep(t, faultTime)
	s.p.delay.Store(0)
}

// killPlugin kills that of one node after the other, where standbys have one.
func (s *soak) killPlugin(t *testing.T) {
	nodes := s.serving(t)
	v := nodes[s.cycles%len(nodes)]
	s.fault(t, func() { s.nodes[v].KillPlugin(t, v.VaultServer, harness.PluginName) })
}

func (s *soak) stepDown(t *testing.T) {
	old := s.cluster.Active(t)
	s.fault(t, func() {
		require.NoError(t, s.nodes[old].Client.Sys().StepDownWithContext(t.Context()))
		require.Eventually(t, func() bool {
			return slices.ContainsFunc(s.cluster.Except(old), func(v *harness.RaftVault) bool {
				return v.IsActive(t.Context())
			})
		}, time.Minute, 50*time.Millisecond, "another node is active")
	})
}

func (s *soak) writeSettings(t *testing.T) {
	m, odd := s.active(t), s.cycles%2
	m.Write(t, "config", map[string]any{"max_retries": 2 + odd})
	m.Write(t, "keys/manual", map[string]any{"assertion_ttl": 40 + odd})
	m.Write(t, "roles/jwks-shared", map[string]any{"refresh_margin": 280 + odd})
}

// rotateManual does what an operator does; reads switch to the new version on their own.
func (s *soak) rotateManual(t *testing.T) {
	m := s.active(t)
	staged := m.Write(t, "keys/manual/rotate", nil)
	number := staged.Number(t, "staged_version")
	s.awaitEverywhere(t, "staged_version", number)
	begin := time.Now()
	s.p.RegisterWithTokenLifetime(t, s.clients["manual"], staged.Text(t, "public_key"), tokenLife)
	s.awaitEverywhere(t, "active_version", number)
	s.switches = append(s.switches, window{begin, time.Now()})
	m.RecordPrivateKeys(t)
	m.Write(t, "keys/manual/destroy", map[string]any{"version": number - 1})
}

func (s *soak) awaitEverywhere(t *testing.T, field string, number int) {
	t.Helper()
	for v, m := range s.nodes {
		require.Eventually(t, func() bool {
			key := m.Do(t, http.MethodGet, "keys/manual", nil, nil)
			return key.Data[field] == float64(number)
		}, time.Minute, 20*time.Millisecond, "%s %d through %s", field, number, v.Name)
	}
}

// rotateJWKS rotates once the provider has accepted the version before.
func (s *soak) rotateJWKS(t *testing.T) {
	m := s.active(t)
	key := m.Read(t, "keys/jwks")
	versions := m.Versions(t, "jwks")
	newest := max(key.Number(t, "active_version"), key.Number(t, "staged_version"))
	hasRoom := len(versions.Data["keys"].([]any)) < 10
	if hasRoom && versions.Version(t, newest, "accepted_time") != "" {
		m.RecordPrivateKeys(t)
		m.Write(t, "keys/jwks/rotate", nil)
		s.jwksRotations++
	}
}

// importKey imports a key, reads its creds, and deletes it.
func (s *soak) importKey(t *testing.T) {
	m, name, clientID := s.active(t), fmt.Sprint("imported-", s.cycles), harness.NewClientID()
	private, privatePEM := harness.NewPrivateKey(t)
	s.p.Register(t, clientID, harness.PublicPEM(t, private))
	m.Write(t, "keys/"+name+"/import", map[string]any{"private_key": privatePEM})
	m.Write(t, "keys/"+name, map[string]any{
		"client_id": clientID, "issuer": s.p.Issuer, "deletion_allowed": true,
	})
	m.Write(t, "roles/"+name, map[string]any{"delivery": "unleased"})
	begun := time.Now()
	accessToken := m.Read(t, "creds/"+name).Text(t, "access_token")
	require.NoError(t, s.p.check(accessToken, clientID, begun))
	m.Delete(t, "roles/"+name)
	m.Delete(t, "keys/"+name)
}

// serving returns the nodes that have a process of the plugin.
func (s *soak) serving(t *testing.T) harness.Cluster {
	t.Helper()
	if harness.Vault().Host == harness.OpenBao { // its standbys answer reads
		return s.cluster
	}
	return harness.Cluster{s.cluster.Active(t)}
}

// plugins returns the plugin's processes.
func (s *soak) plugins(t *testing.T) (processes []int) {
	t.Helper()
	for _, v := range s.serving(t) {
		processes = append(processes, v.PluginProcess(t, harness.PluginName))
	}
	return processes
}

// usage is what the plugin's processes use; the files include the connections to the provider.
type usage struct{ pages, threads, files int }

// usage is zero where there is no /proc.
func (s *soak) usage(t *testing.T) (used usage) {
	t.Helper()
	if runtime.GOOS != "linux" {
		return usage{}
	}
	for _, process := range s.plugins(t) {
		proc := fmt.Sprintf("/proc/%d/", process)
		statm, err := os.ReadFile(proc + "statm")
		require.NoError(t, err)
		var size, resident int
		_, err = fmt.Sscan(string(statm), &size, &resident)
		require.NoError(t, err)
		threads, err := os.ReadDir(proc + "task")
		require.NoError(t, err)
		files, err := os.ReadDir(proc + "fd")
		if !errors.Is(err, fs.ErrPermission) { // only root sees those of a process not dumpable
			require.NoError(t, err)
		}
		used.pages += resident
		used.threads += len(threads)
		used.files += len(files)
	}
	t.Logf("cycle %d: %+v", s.cycles, used)
	return used
}
