package rotation

import (
	"crypto/rand"
	"encoding/pem"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bcgov/vault-plugin-bcgov-jwt/integrationtest/harness"
	"github.com/bcgov/vault-plugin-bcgov-jwt/integrationtest/keycloak"
)

// TestManualRotation_FailsNoRead replaces the registered key in Keycloak, back, and forth again,
// while creds is read all the time. A unit test, which moves the clock, checks that the old private
// key is deleted from storage after overlap_period: the minimum of that, and the background run every
// minute, are too long to wait for here.
func TestManualRotation_FailsNoRead(t *testing.T) {
	t.Parallel()
	kc := harness.Keycloak(t)
	m := newMount(t, kc)
	name := "rotated-" + rand.Text() // unique, as all tests share the server's log
	clientID := m.NewClient(t, kc, name, nil)
	reads := m.StartLoad(t, name)
	first := m.EventuallyAccepted(t, name, 1, promptly)

	rotated := m.Write(t, "keys/"+name+"/rotate", nil)
	require.Equal(t, 2, rotated.Number(t, "staged_version"))
	require.Equal(t, 1, rotated.Number(t, "active_version"))
	require.NotEqual(t, first.Text(t, "public_key"), rotated.Text(t, "public_key"))
	harness.Sleep(t, randomDuration(t, 2*time.Second))
	require.Equal(t, first.Text(t, "key_id"), m.Read(t, "creds/"+name).Text(t, "key_id"),
		"until the new key is registered")

	paste(t, m, kc, clientID, name, rotated)
	m.EventuallyActive(t, name, 2, promptly)
	switched := m.Versions(t, name)
	require.Equal(t, "provider", switched.Version(t, 2, "activated_by"))
	require.NotEmpty(t, switched.Version(t, 2, "accepted_time"))
	require.Equal(t, "retired", switched.Version(t, 1, "state"))
	require.NotEmpty(t, switched.Version(t, 1, "expire_time"))
	stored := m.Stored(t, "key/"+name)
	harness.Sleep(t, 2*time.Second)
	require.Equal(t, stored, m.Stored(t, "key/"+name), "stored once")
	lines := activationsOf(t, name)
	require.Equal(t, []string{"1→2"}, directions(lines))
	require.Equal(t, name, lines[0].role)

	// The old key is pasted again. Its activation is stored at most a minute after the previous
	// one; the reads do not wait for that.
	paste(t, m, kc, clientID, name, first)
	m.EventuallyActive(t, name, 1, 70*time.Second)
	back := m.Versions(t, name)
	require.Equal(t, "staged", back.Version(t, 2, "state"), "the rejected one is staged again")
	require.Empty(t, back.Version(t, 2, "accepted_time"))
	lines = activationsOf(t, name)
	require.Equal(t, []string{"1→2", "2→1"}, directions(lines))
	require.GreaterOrEqual(t, lines[1].at.Sub(lines[0].at), betweenSwitches)

	paste(t, m, kc, clientID, name, rotated)
	harness.Sleep(t, time.Second)
	reads.End(t)
}

// TestManualRotation_ProviderNodesDisagree has a load balancer in front of one node that knows the
// old key, and one that knows the new key. A read tries each version twice, so that one in 16 meets
// the wrong node each time; without a second version every other one would.
func TestManualRotation_ProviderNodesDisagree(t *testing.T) {
	t.Parallel()
	balancers := map[string]func(*testing.T) func() int{
		"in turns": func(*testing.T) func() int {
			var requests atomic.Int64
			return func() int { return int(requests.Add(1) % 2) }
		},
		"at random": func(t *testing.T) func() int {
			return func() int { return int(randomDuration(t, 2)) }
		},
	}
	for how, balancer := range balancers {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			p, nodes := twoNodes(t, balancer(t))
			m := harness.NewMount(t, p.Config)
			name := "torn-" + rand.Text()
			clientID := m.NewClient(t, p, name, map[string]any{"type": "ecdsa-p256"})
			reads := m.StartLoad(t, name)
			m.EventuallyAccepted(t, name, 1, promptly)

			rotated := m.Write(t, "keys/"+name+"/rotate", nil)
			client := keycloak.PortalClient(clientID, rotated.Text(t, "public_key"))
			require.NoError(t, nodes[1].PutClient(harness.Realm, client))
			m.EventuallyActive(t, name, 2, promptly)
			if harness.Slow() {
				harness.Sleep(t, 3*time.Minute)
			} else {
				harness.Sleep(t, 25*time.Second)
			}
			reads.EndWith(t, 0.2)

			lines := activationsOf(t, name)
			require.NotEmpty(t, lines)
			require.Equal(t, "1→2", directions(lines)[0])
			for i := range lines[1:] {
				require.GreaterOrEqual(t, lines[i+1].at.Sub(lines[i].at), betweenSwitches,
					"stored activations: %v", directions(lines))
			}
			require.Len(t, m.Versions(t, name).Data["keys"], 2,
				"nothing that a node accepts is lost")
		})
	}
}

// TestDestroy_VersionStaysGone destroys the version that a read signed with, before the provider's
// response arrives.
func TestDestroy_VersionStaysGone(t *testing.T) {
	t.Parallel()
	rows := []struct {
		name      string
		activate  bool // version 2, so that version 1 is a retired one
		destroyed int
		remaining int
	}{
		{"the staged one, which the provider knows", false, 2, 1},
		{"the retired one, which the provider knows", true, 1, 2},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			hold := newTokenHold()
			p := heldProvider(t, hold)
			m := harness.NewMount(t, p.Config)
			name := "destroyed-" + rand.Text()
			clientID := m.NewClient(t, p, name, map[string]any{"type": "ecdsa-p256"})
			m.Read(t, "creds/"+name)
			rotated := m.Write(t, "keys/"+name+"/rotate", nil)
			m.RecordPrivateKeys(t)
			if row.activate {
				m.Write(t, "keys/"+name+"/activate", map[string]any{"force": true})
			} else {
				p.Register(t, clientID, rotated.Text(t, "public_key"))
			}

			responses := make(chan harness.Response, 1)
			hold.begin()
			go func() {
				got, err := m.Request(t.Context(), http.MethodGet, "creds/"+name, nil)
				if err != nil {
					got.Errors = append(got.Errors, err.Error())
				}
				responses <- got
			}()
			select {
			case <-hold.held:
			case <-time.After(10 * time.Second):
				require.Fail(t, "no token was requested that the provider issues")
			}
			m.Write(t, "keys/"+name+"/destroy", map[string]any{"version": row.destroyed})
			stored := m.Stored(t, "key/"+name)
			hold.release()
			got := <-responses
			require.Empty(t, got.Errors, "the token was valid")

			require.Equal(t, stored, m.Stored(t, "key/"+name), "the outcome of the read was stored")
			key := m.Read(t, "keys/"+name)
			require.Equal(t, row.remaining, key.Number(t, "active_version"))
			require.Zero(t, key.Number(t, "staged_version"))
			require.Len(t, m.Versions(t, name).Data["keys"], 1)
			require.Empty(t, activationsOf(t, name))
			requireVersionsStored(t, m, name, row.remaining)
			got = m.Do(t, http.MethodGet, "creds/"+name, nil, nil)
			require.Equal(t, http.StatusBadRequest, got.Status,
				"the provider knows the destroyed one only")
		})
	}
}

// TestRotate_NeverReusesNumber: an eleventh version requires that one is destroyed, and no number
// is used again.
func TestRotate_NeverReusesNumber(t *testing.T) {
	t.Parallel()
	m := harness.NewMount(t, nil)
	m.Write(t, "keys/myapi", map[string]any{"type": "ed25519"})
	seen := map[string]bool{}
	for version := 2; version <= 10; version++ {
		rotated := m.Write(t, "keys/myapi/rotate", nil)
		require.Equal(t, version, rotated.Number(t, "staged_version"))
		again := m.Write(t, "keys/myapi/rotate", nil)
		require.Equal(t, rotated.Text(t, "public_key"), again.Text(t, "public_key"),
			"one staged already")
		harness.RequireTexts(t, strings.Join(again.Warnings, " "),
			"Version "+strconv.Itoa(version)+" was staged before")
		require.False(t, seen[rotated.Text(t, "key_id")])
		seen[rotated.Text(t, "key_id")] = true
		m.Write(t, "keys/myapi/activate", map[string]any{"force": true})
	}
	m.RecordPrivateKeys(t)
	m.MustFailWith(t, "destroy", "write", "-f", "{mount}/keys/myapi/rotate")
	m.MustFailWith(t, "active", "write", "{mount}/keys/myapi/destroy", "version=10")
	m.MustRun(t, "write", "{mount}/keys/myapi/destroy", "version=3")
	require.Equal(t, 11, m.Write(t, "keys/myapi/rotate", nil).Number(t, "staged_version"))
	m.RecordPrivateKeys(t)
	m.MustRun(t, "write", "{mount}/keys/myapi/destroy", "version=11")
	require.Equal(t, 12, m.Write(t, "keys/myapi/rotate", nil).Number(t, "staged_version"))
	shown := m.Read(t, "keys/myapi").Text(t, "public_key")
	block, _ := pem.Decode([]byte(shown))
	require.NotNil(t, block)
	old := m.MustRun(t, "read", "-field=public_key", "{mount}/keys/myapi/versions/10")
	require.NotEqual(t, shown, old)
}
