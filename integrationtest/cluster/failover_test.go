package cluster

import (
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bcgov/vault-plugin-bcgov-jwt/integrationtest/harness"
)

// fault is a way in which a cluster loses its active node.
type fault struct {
	name       string
	begin, end func(*testing.T, *harness.RaftVault)
	serves     bool // the node itself goes on, as a standby
}

// TestFailover_NothingIsLost loses the active node while settings, roles, imports and rotations are
// written, and creds of every delivery is read through every node. No acknowledged write is lost,
// no token is wrong, and reads through the others fail only until there is an active node; where
// standbys serve, those that need none do not fail at all.
func TestFailover_NothingIsLost(t *testing.T) { //nolint:tparallel // one fault at a time
	t.Parallel()
	c := harness.StartCluster(t, 3, harness.ClusterSettings{})
	server := harness.NewEmbeddedServer(t)
	host := httptest.NewServer(server) // not observed: the tokens are too many
	t.Cleanup(host.Close)
	p := harness.ProviderAt(host.URL, server)
	e := newEngine(t, c, "failover", p.Config)
	newRoles(t, e.on[0], p, "steady")
	for _, name := range []string{settingsKey, rotatedKey} {
		e.on[0].NewClient(t, p, name, map[string]any{"type": "ecdsa-p256"})
	}
	e.awaitSame(t, seenWithin, "roles/"+rotatedKey)
	for _, f := range []fault{ //nolint:paralleltest // one fault at a time
		{
			name: "killed", begin: func(t *testing.T, v *harness.RaftVault) { v.Kill(t) },
			end: func(t *testing.T, v *harness.RaftVault) { v.Restart(t) },
		},
		{
			name: "stepped down", serves: true, begin: stepDown,
			end: func(*testing.T, *harness.RaftVault) {},
		},
		{
			name: "sealed", begin: func(t *testing.T, v *harness.RaftVault) { v.Seal(t) },
			end: func(t *testing.T, v *harness.RaftVault) { v.Unseal(t) },
		},
		{
			name: "cut off", begin: func(t *testing.T, v *harness.RaftVault) { v.Freeze(t) },
			end: func(t *testing.T, v *harness.RaftVault) { v.Thaw(t) },
		},
	} {
		t.Run(f.name, func(t *testing.T) { f.run(t, e, p) })
	}
	e.recordPrivateKeys(t)
}

func stepDown(t *testing.T, v *harness.RaftVault) {
	t.Helper()
	require.NoError(t, v.NewClient(t).Sys().StepDownWithContext(t.Context()))
}

func (f fault) run(t *testing.T, e engine, p *harness.Provider) {
	t.Helper()
	const before = 2 * time.Second
	lost := e.cluster.Active(t)
	others := e.except(lost)
	survivors := others
	if f.serves {
		survivors = e
	}
	stopped := "stopped-" + lost.Name + time.Now().Format("150405")
	newRoles(t, others.on[0], p, stopped)
	e.awaitSame(t, seenWithin, "roles/"+stopped+"-shared")
	clientID := e.on[0].Read(t, "keys/steady").Text(t, "client_id")
	readers, stopReaders := startReaders(t, p, e.on, rolesOf("steady"), clientID)
	w := newWriters(t, p, survivors.on)
	stopWriters := w.start(t, f.name[:3], others.on)

	harness.Sleep(t, before)
	begun := time.Now()
	f.begin(t, lost)
	others.cluster.Active(t)
	led := time.Now()
	recovered := map[*reader]time.Time{}
	for _, r := range readers {
		if survivors.has(r.m) {
			recovered[r] = r.awaitSuccess(t, led)
		}
	}
	others.on[0].Write(t, "keys/"+stopped, map[string]any{"disabled": true})
	harness.Sleep(t, before)
	f.end(t, lost)
	for _, r := range readers {
		r.awaitSuccess(t, time.Now())
	}
	harness.Sleep(t, before)
	stopWriters()
	stopReaders()

	requireRight(t, readers)
	failed, total, latest := map[string]int{}, map[string]int{}, begun
	for r, at := range recovered {
		failures := r.requireOutage(t, begun, at)
		if standbysServe() && r.role != "steady-leased" && others.has(r.m) {
			require.Zero(t, failures, "%s needs no active node", r.role)
		}
		failed[r.role] += failures
		total[r.role] += len(r.reads)
		if at.After(latest) {
			latest = at
		}
	}
	t.Logf("active after %s, all read again after %s; failed reads: %v of %v",
		led.Sub(begun).Round(time.Millisecond), latest.Sub(begun).Round(time.Millisecond), failed, total)
	w.requireKept(t, e)
	for _, delivery := range deliveries() {
		e.eventually(t, seenWithin, "creds/"+stopped+"-"+delivery, func(got harness.Response) bool {
			return got.Status == http.StatusBadRequest
		})
	}
}

// except returns the engine without one node.
func (e engine) except(node *harness.RaftVault) engine {
	others := engine{cluster: e.cluster.Except(node)}
	for _, v := range others.cluster {
		others.on = append(others.on, e.through(v))
	}
	return others
}

// has reports whether a mount is one of the engine's nodes'.
func (e engine) has(m *harness.Mount) bool {
	for _, v := range e.cluster {
		if v.URL() == m.Client.Address() {
			return true
		}
	}
	return false
}
