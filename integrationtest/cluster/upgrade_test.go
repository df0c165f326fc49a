package cluster

import (
	"crypto/sha256"
	"encoding/hex"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"
	"github.com/stretchr/testify/require"

	"github.com/bcgov/vault-plugin-bcgov-jwt/integrationtest/harness"
)

const (
	oldVersion = "v1.0.0-test" // of the harness
	newVersion = "v1.0.1-test"
	newCommand = harness.PluginName + "-" + newVersion
)

// TestUpgrade_AsDocumented upgrades as docs/operating.md says.
func TestUpgrade_AsDocumented(t *testing.T) {
	t.Parallel()
	require.NoError(t, harness.Vault().BuildPlugin(t.Context(), newCommand, newVersion))
	t.Run("readers, leases and entries survive", func(t *testing.T) {
		t.Parallel()
		upgradeUnderReaders(t)
	})
	t.Run("a node lacks the binary", func(t *testing.T) {
		t.Parallel()
		upgradeWithoutBinary(t)
	})
}

// upgradeUnderReaders upgrades, downgrades and upgrades again while creds of every delivery is read
// through every node. Entries of format 1 and leases go on.
func upgradeUnderReaders(t *testing.T) {
	t.Helper()
	c := harness.StartCluster(t, 3, harness.ClusterSettings{})
	u := newUpgrade(t, c)
	registerNewVersion(t, c, c)
	leases := []string{u.lease(t)}
	for _, version := range []string{newVersion, oldVersion, newVersion} {
		readers, stop := u.startReaders(t)
		begun := time.Now()
		tuneAndReload(t, c, version)
		u.eventually(t, seenWithin, "info", func(got harness.Response) bool {
			return got.Data["version"] == version
		})
		recovered := map[*reader]time.Time{}
		for _, r := range readers {
			recovered[r] = r.awaitSuccess(t, time.Now())
		}
		u.requireFormat1(t)
		leases = append(leases, u.lease(t))
		stop()
		requireRight(t, readers)
		failed := 0
		for r, at := range recovered {
			failed += r.requireOutage(t, begun, at)
		}
		t.Logf("to %s: %d reads failed", version, failed)
	}
	for i, lease := range leases {
		require.NoError(t, u.on[0].Client.Sys().RevokeWithOptionsWithContext(t.Context(),
			&api.RevokeOptions{LeaseID: lease, Sync: true}))
		require.Equal(t, i+1, u.requests.count("revoke"))
	}
	u.on[0].Write(t, "keys/ed25519/rotate", nil)
	u.recordPrivateKeys(t)
}

// upgradeWithoutBinary upgrades where one node lacks the new binary. Where standbys serve, it alone
// no longer does; elsewhere nobody does while it is active. With the binary a reload of that node
// is enough.
func upgradeWithoutBinary(t *testing.T) {
	t.Helper()
	c := harness.StartCluster(t, 3, harness.ClusterSettings{})
	u := newUpgrade(t, c)
	active := c.Active(t)
	lacking, other := c.Except(active)[0], c.Except(active)[1]
	registerNewVersion(t, c, c.Except(lacking))
	tuneAndReload(t, c, newVersion)
	u.except(lacking).eventually(t, seenWithin, "info", func(got harness.Response) bool {
		return got.Data["version"] == newVersion
	})
	served := func(m *harness.Mount) int {
		return m.Do(t, http.MethodGet, "creds/myapi-unleased", nil, nil).Status
	}
	if standbysServe() {
		require.Eventually(t, func() bool {
			return served(u.through(lacking)) == http.StatusNotFound
		}, seenWithin, pause)
	} else {
		require.Equal(t, http.StatusOK, served(u.through(lacking)))
	}

	other.Kill(t)
	stepDown(t, active)
	harness.Cluster{lacking}.Active(t)
	require.Equal(t, http.StatusNotFound, served(u.through(lacking)))
	require.Positive(t, logged(t, lacking, "skipping plugin-based mount entry"))
	require.Eventually(t, func() bool {
		status := served(u.through(active))
		return standbysServe() && status == http.StatusOK ||
			!standbysServe() && status == http.StatusNotFound
	}, seenWithin, pause)
	addPlugin(t, lacking)
	lacking.MustRun(t, "plugin", "reload", "-plugin", harness.PluginName)
	other.Restart(t)
	for _, m := range u.on {
		require.Eventually(t, func() bool { return served(m) == http.StatusOK }, seenWithin, pause)
		requireServes(t, m, "myapi")
	}
	u.requireFormat1(t)
	u.recordPrivateKeys(t)
}

// upgrade is a mount with entries of format 1 and a key myapi.
type upgrade struct {
	engine
	p        *harness.Provider
	requests *counter
	clientID string
	format1  map[string]any // of entries of format 1, before
}

func newUpgrade(t *testing.T, c harness.Cluster) *upgrade {
	t.Helper()
	p, requests := countedProvider(t)
	u := &upgrade{engine: newEngine(t, c, "upgrade", nil), p: p, requests: requests}
	m := u.through(c.Active(t))
	storeFormat1(t, m)
	m.Delete(t, "config") // whose hosts do not exist here
	m.Write(t, "config", p.Config)
	newRoles(t, m, p, "myapi")
	u.clientID = m.Write(t, "keys/myapi", map[string]any{
		"revocation_endpoint": p.Issuer + "/protocol/openid-connect/revoke",
	}).Text(t, "client_id")
	m.Write(t, "roles/myapi-leased", map[string]any{"revoke_tokens": true})
	client := harness.NewClientID()
	key := m.Write(t, "keys/ed25519", map[string]any{"client_id": client, "issuer": p.Issuer})
	p.Register(t, client, key.Text(t, "public_key"))
	u.awaitSame(t, seenWithin, "config", "keys/myapi", "roles/myapi-leased", "keys/ed25519")
	u.format1 = readFormat1(t, m)
	return u
}

// storeFormat1 writes the entries that the first version wrote.
func storeFormat1(t *testing.T, m *harness.Mount) {
	t.Helper()
	entries := os.DirFS(harness.InRepository("backend/testdata/format1"))
	err := fs.WalkDir(entries, ".", func(path string, file fs.DirEntry, err error) error {
		if err != nil || file.IsDir() || path == "README.md" {
			return err
		}
		value, err := fs.ReadFile(entries, path)
		if err == nil {
			_, err = m.Client.Logical().WriteWithContext(t.Context(), m.RawPath(path),
				map[string]any{"value": string(value)})
		}
		return err
	})
	require.NoError(t, err)
}

// readFormat1 reads with a key of format 1, and what else is there.
func readFormat1(t *testing.T, m *harness.Mount) map[string]any {
	t.Helper()
	return map[string]any{
		"keys":         m.Do(t, "LIST", "keys", nil, nil).Data["keys"],
		"roles":        m.Do(t, "LIST", "roles", nil, nil).Data["keys"],
		"wrapping_key": m.Read(t, "wrapping_key").Data["public_key"],
		"signed_by":    m.Read(t, "creds/unleased").Data["key_id"],
	}
}

func (u *upgrade) requireFormat1(t *testing.T) {
	t.Helper()
	for _, m := range u.on {
		require.Equal(t, u.format1, readFormat1(t, m))
	}
}

func (u *upgrade) lease(t *testing.T) (id string) {
	t.Helper()
	return u.on[0].ReadSecret(t, "creds/myapi-leased").LeaseID
}

func (u *upgrade) startReaders(t *testing.T) (readers []*reader, stop func()) {
	t.Helper()
	return startReaders(t, u.p, u.on, rolesOf("myapi"), u.clientID)
}

// registerNewVersion copies its binary to some of the nodes, and registers it.
func registerNewVersion(t *testing.T, c, nodes harness.Cluster) {
	t.Helper()
	var binary []byte
	for _, v := range nodes {
		binary = addPlugin(t, v)
	}
	sum := sha256.Sum256(binary)
	c.Active(t).MustRun(t, "plugin", "register", "-sha256="+hex.EncodeToString(sum[:]),
		"-version="+newVersion, "-command="+newCommand, "secret", harness.PluginName)
}

// addPlugin copies the new version's binary to a node.
func addPlugin(t *testing.T, v *harness.RaftVault) (binary []byte) {
	t.Helper()
	path := filepath.Join(harness.Vault().PluginDirectory(), newCommand)
	binary, err := os.ReadFile(path)
	require.NoError(t, err)
	v.AddPlugin(t, newCommand, binary)
	return binary
}

func tuneAndReload(t *testing.T, c harness.Cluster, version string) {
	t.Helper()
	active := c.Active(t)
	active.MustRun(t, "secrets", "tune", "-plugin-version="+version, "upgrade/")
	active.MustRun(t, "plugin", "reload", "-scope=global", "-plugin", harness.PluginName)
}
