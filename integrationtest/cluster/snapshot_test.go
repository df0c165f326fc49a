package cluster

import (
	"bytes"
	"net/http"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/bcgov/vault-plugin-bcgov-jwt/integrationtest/harness"
)

// readAgainWithin is how long a standby may take to see what it was not notified of: a minute, on a
// busy machine.
const readAgainWithin = 90 * time.Second

// TestSnapshot_FollowerThatCatchesUpIsCurrent: a follower that has missed more than the log holds
// receives a snapshot, and is not notified of what changed. Neither as a standby nor as the active
// node does it serve what was before.
func TestSnapshot_FollowerThatCatchesUpIsCurrent(t *testing.T) {
	t.Parallel()
	c := harness.StartCluster(t, 3, harness.ClusterSettings{
		// OpenBao's own cache keeps what its standby had read before, even revoked tokens.
		Server: "disable_cache = true",
		Raft:   "snapshot_threshold = 50\ntrailing_logs = 20\nsnapshot_interval = \"1s\"",
	})
	p, _ := countedProvider(t)
	e := newEngine(t, c, "snapshot", p.Config)
	active := c.Active(t)
	restarted, frozen := c.Except(active)[0], c.Except(active)[1]

	first := newEntries(t, e, p, "restarted")
	restarted.Kill(t)
	first.change(t, e.through(active))
	outgrowLog(t, e, restarted)
	// What it serves before it has caught up must not stay.
	_, stop := startReaders(t, p, []*harness.Mount{e.through(restarted)}, rolesOf(first.name), "")
	restarted.Restart(t)
	stop()

	second := newEntries(t, e, p, "frozen")
	frozen.Freeze(t)
	second.change(t, e.through(active))
	outgrowLog(t, e, frozen)
	frozen.Thaw(t)
	for _, entries := range []entries{first, second} {
		entries.requireChanged(t, e)
	}
	for _, v := range []*harness.RaftVault{restarted, frozen} {
		require.Positive(t, logged(t, v, "Installed remote snapshot"), v.Name)
	}

	restarted.Kill(t)
	stepDown(t, active)
	require.Equal(t, frozen, c.Except(restarted).Except(active).Active(t))
	restarted.Restart(t)
	second.requireChanged(t, e)
}

// entries are a key with a role for each delivery, and one that will be deleted.
type entries struct {
	p                  *harness.Provider
	name, gone, absent string // keys; the last one does not exist yet
	goneJWKS           string
}

func newEntries(t *testing.T, e engine, p *harness.Provider, name string) entries {
	t.Helper()
	s := entries{p: p, name: name, gone: name + "-gone", absent: name + "-absent"}
	m := e.through(e.cluster.Active(t))
	newRoles(t, m, p, s.name)
	s.newPublished(t, m, s.gone)
	s.goneJWKS = m.Read(t, "keys/"+s.gone).Text(t, "jwks_path")
	e.awaitSame(t, seenWithin, "roles/"+s.gone)
	for _, m := range e.on {
		requireServes(t, m, s.name)
		requireJWKS(t, m, s.gone)
	}
	return s
}

func (s entries) newPublished(t *testing.T, m *harness.Mount, name string) {
	t.Helper()
	m.NewJWKSClient(t, s.p, name, m.Client.Address(), map[string]any{
		"type": "ecdsa-p256", "deletion_allowed": true,
	})
}

func (s entries) change(t *testing.T, m *harness.Mount) {
	t.Helper()
	m.Write(t, "config", map[string]any{"max_retries": 3})
	m.Write(t, "keys/"+s.name+"/rotate", nil)
	m.Write(t, "keys/"+s.name, map[string]any{"disabled": true})
	m.Write(t, "roles/"+s.name+"-shared", map[string]any{"refresh_margin": "20s"})
	m.RecordPrivateKeys(t)
	m.Delete(t, "roles/"+s.gone)
	m.Delete(t, "keys/"+s.gone)
	s.newPublished(t, m, s.absent)
}

func (s entries) requireChanged(t *testing.T, e engine) {
	t.Helper()
	for _, path := range []string{"config", "keys/" + s.name, "roles/" + s.name + "-shared"} {
		e.awaitSame(t, readAgainWithin, path)
	}
	e.awaitSame(t, readAgainWithin, "roles/"+s.absent)
	for _, m := range e.on {
		for _, role := range rolesOf(s.name) {
			for _, path := range []string{"creds/", "assertion/"} {
				got := m.Do(t, http.MethodGet, path+role, nil, nil)
				require.Equal(t, http.StatusBadRequest, got.Status, "%s through %s", path+role, m.Client.Address())
				require.Contains(t, got.ErrorText(), "is disabled")
			}
			require.Equal(t, false, m.Read(t, "check/"+role).Data["ok"])
		}
		status := func(path string) int {
			return m.DoOutside(t, http.MethodGet, strings.TrimPrefix(path, "/v1/")).Status
		}
		absentJWKS := m.Read(t, "keys/"+s.absent).Text(t, "jwks_path")
		// Each entry is read again a minute after the node has read it.
		require.Eventually(t, func() bool {
			return m.Do(t, http.MethodGet, "creds/"+s.gone, nil, nil).Status == http.StatusBadRequest &&
				status(s.goneJWKS) == http.StatusNotFound && status(absentJWKS) == http.StatusOK
		}, readAgainWithin, pause, "through %s", m.Client.Address())
		requireJWKS(t, m, s.absent)
	}
}

// outgrowLog writes until the active node has thrown away log entries that a follower has missed,
// and sends it a snapshot instead.
func outgrowLog(t *testing.T, e engine, follower *harness.RaftVault) {
	t.Helper()
	active := e.cluster.Except(follower).Active(t)
	m, sending := e.through(active), "installing snapshot on: peer="+follower.Name
	before, written := logged(t, active, sending), 0
	m.Write(t, "keys/filler", map[string]any{"type": "ecdsa-p256"})
	require.Eventually(t, func() bool {
		written++
		m.Write(t, "keys/filler", map[string]any{"common_name": strconv.Itoa(written)})
		return logged(t, active, sending) > before
	}, time.Minute, time.Millisecond, "a snapshot is sent")
}

// logged counts a text in a node's log.
func logged(t *testing.T, v *harness.RaftVault, text string) int {
	t.Helper()
	log, err := os.ReadFile(v.LogFile())
	require.NoError(t, err)
	return bytes.Count(log, []byte(text))
}

// TestSnapshot_RestoredOneIsServedByEveryNode restores a snapshot from before a rotation, which the
// provider has followed.
func TestSnapshot_RestoredOneIsServedByEveryNode(t *testing.T) {
	t.Parallel()
	c := harness.StartCluster(t, 3, harness.ClusterSettings{})
	p, _ := countedProvider(t)
	e := newEngine(t, c, "restore", p.Config)
	m := e.through(c.Active(t))
	newRoles(t, m, p, "myapi")
	for _, m := range e.on {
		m.Read(t, "creds/myapi-unleased")
	}
	m.Read(t, "creds/myapi-unleased")
	e.awaitSame(t, seenWithin, "keys/myapi")
	before := m.Read(t, "keys/myapi")
	var snapshot bytes.Buffer
	require.NoError(t, m.Client.Sys().RaftSnapshotWithContext(t.Context(), &snapshot))
	newRoles(t, m, p, "lost")
	requireRotates(t, e, p, m, "myapi")
	m.Write(t, "roles/myapi-shared", map[string]any{"refresh_margin": "20s"})
	for _, m := range e.on {
		requireServes(t, m, "myapi")
		requireServes(t, m, "lost")
	}
	e.recordPrivateKeys(t)

	require.NoError(t, m.Client.Sys().RaftSnapshotRestoreWithContext(t.Context(), &snapshot, true))
	e.eventually(t, readAgainWithin, "keys/myapi", func(got harness.Response) bool {
		return assert.ObjectsAreEqual(before.Data, got.Data)
	})
	e.eventually(t, readAgainWithin, "creds/lost-shared", func(got harness.Response) bool {
		return got.Status == http.StatusBadRequest
	})
	for _, role := range []string{"creds/myapi-leased", "creds/myapi-unleased", "creds/myapi-shared"} {
		e.eventually(t, readAgainWithin, role, func(got harness.Response) bool {
			return got.Status == http.StatusBadRequest
		})
	}
	p.Register(t, before.Text(t, "client_id"), before.Text(t, "public_key"))
	for _, m := range e.on {
		requireServes(t, m, "myapi")
		require.Equal(t, before.Text(t, "key_id"), m.Read(t, "creds/myapi-shared").Text(t, "key_id"))
	}
}
