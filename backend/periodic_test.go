package backend

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bcgov/vault-plugin-bcgov-jwt/backend/internal/keyring"
	"github.com/hashicorp/vault/sdk/helper/consts"
	"github.com/hashicorp/vault/sdk/logical"
	"github.com/stretchr/testify/require"
)

const waits = "Automatic rotation is due but waiting"

func TestPeriodic_RotationWaitsForTheProvider(t *testing.T) {
	t.Parallel()
	m, p := newJWKSMount(t, map[string]any{"auto_rotate_period": 3600})
	pass(m, p, time.Hour)
	m.runPeriodic()
	require.Equal(t, map[string]string{"1": "active"}, m.states(), "the first version was not accepted yet")
	require.Contains(t, strings.Join(m.read("keys/myapi").Warnings, "\n"), waits)

	require.Equal(t, 1, m.signedBy())
	require.NotContains(t, strings.Join(m.read("keys/myapi").Warnings, "\n"), waits)
	m.runPeriodic()
	require.Equal(t, map[string]string{"1": "active", "2": "staged"}, m.states(), "it continues after the acceptance")
	require.Contains(t, m.log.String(), "key version created by auto_rotate_period: key=myapi version=2")
	m.runPeriodic()
	require.Len(t, m.states(), 2, "one at a time")

	pass(m, p, 5*time.Minute)
	require.Equal(t, map[string]string{"1": "retired", "2": "active"}, m.states())
	pass(m, p, 2*time.Hour)
	m.runPeriodic()
	require.Len(t, m.states(), 2, "the second was not accepted yet")
	require.Contains(t, strings.Join(m.read("keys/myapi").Warnings, "\n"), waits)
	require.Equal(t, 2, m.signedBy())
	m.runPeriodic()
	require.Equal(t, map[string]string{"1": "retired", "2": "active", "3": "staged"}, m.states())
}

func TestPeriodic_RotationIsOnTime(t *testing.T) {
	t.Parallel()
	m, p := newJWKSMount(t, map[string]any{"auto_rotate_period": 3600})
	require.Equal(t, 1, m.signedBy())
	pass(m, p, time.Hour-2*time.Second)
	m.runPeriodic()
	require.Len(t, m.states(), 1)
	pass(m, p, 3*time.Second)
	m.runPeriodic()
	require.Len(t, m.states(), 2)
}

func TestPeriodic_FirstRunAfterAStartCatchesUp(t *testing.T) {
	t.Parallel()
	m, p := newJWKSMount(t, map[string]any{"auto_rotate_period": 3600})
	require.Equal(t, 1, m.signedBy())
	pass(m, p, 2*time.Hour)
	restarted := mountOver(t, m.storage, m.clock)
	restarted.runPeriodic()
	require.Equal(t, map[string]string{"1": "active", "2": "staged"}, restarted.states())
	m.runPeriodic()
	require.Len(t, restarted.privateKeys(), 2, "what another node created is not created twice")
}

func TestPeriodic_KeysWithNothingDueCostNoStorageRead(t *testing.T) {
	t.Parallel()
	m, p := newReadyMount(t)
	for i := range 50 {
		m.write(fmt.Sprintf("keys/k%d", i), map[string]any{"type": "ed25519"})
	}
	m.write("keys/myapi", map[string]any{"overlap_period": 3600})
	m.read("creds/myapi")
	m.write("keys/myapi/rotate", nil)
	p.registerVersion(m, 2)
	m.read("creds/myapi")
	m.runPeriodic() // checks every key once
	calls := m.storage.calls()
	for range 58 {
		pass(m, p, time.Minute)
		m.runPeriodic()
	}
	require.Equal(t, calls, m.storage.calls())
	pass(m, p, 3*time.Minute)
	m.runPeriodic()
	require.Equal(t, map[string]string{"2": "active"}, m.states(), "what came due was done")
}

func TestPeriodic_ReadOnlyNodeDoesNothing(t *testing.T) {
	t.Parallel()
	for name, state := range map[string]consts.ReplicationState{
		"performance standby": consts.ReplicationPerformanceStandby, "performance secondary": consts.ReplicationPerformanceSecondary,
		"DR secondary": consts.ReplicationDRSecondary,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m, p := newJWKSMount(t, map[string]any{"auto_rotate_period": 3600})
			require.Equal(t, 1, m.signedBy())
			pass(m, p, 2*time.Hour)
			node := nodeOver(t, m.storage, m.clock, state)
			calls := m.storage.calls()
			node.runPeriodic()
			require.Equal(t, calls, m.storage.calls())
		})
	}
}

// TestPeriodic_NodeThatDoesNotWriteKeepsNothing: other nodes' writes would otherwise add up there.
func TestPeriodic_NodeThatDoesNotWriteKeepsNothing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) { // what is cached of replication passes with the clock
		m := newMount(t)
		m.write("keys/myapi", map[string]any{"type": "ed25519"})
		standby := nodeOver(t, m.storage, m.clock, consts.ReplicationPerformanceStandby)
		for i := range 1000 {
			standby.InvalidateKey(t.Context(), fmt.Sprintf("key/k%d", i))
		}
		standby.runPeriodic()
		require.Empty(t, standby.schedule.takeDue(time.Now().AddDate(100, 0, 0)))

		dueForRotation(m)
		standby.InvalidateKey(t.Context(), "key/myapi")
		standby.runPeriodic()
		require.Len(t, m.states(), 1)
		standby.system.state = consts.ReplicationUnknown
		time.Sleep(replicationCacheTTL)
		standby.runPeriodic()
		require.Len(t, standby.states(), 2, "once it writes it does what is due")
	})
}

func TestPeriodic_FailureWithOneKeyDoesNotStopTheOthers(t *testing.T) {
	t.Parallel()
	m, p := newJWKSMount(t, map[string]any{"auto_rotate_period": 3600})
	require.Equal(t, 1, m.signedBy())
	require.NoError(t, m.storage.Put(t.Context(), &logical.StorageEntry{Key: "key/broken", Value: []byte(`{"format":2}`)}))
	pass(m, p, 2*time.Hour)
	restarted := mountOver(t, m.storage, m.clock)
	restarted.runPeriodic()
	require.Len(t, restarted.states(), 2)
	require.Contains(t, restarted.log.String(), "key maintenance failed; retrying in a minute: key=broken")
	require.JSONEq(t, `{"format":2}`, m.storage.entries(t)["key/broken"])
}

func TestPeriodic_InvalidatedKeyIsChecked(t *testing.T) {
	t.Parallel()
	m, p := newJWKSMount(t, nil)
	m.runPeriodic()
	other := mountOver(t, m.storage, m.clock)
	other.write("keys/myapi", map[string]any{"auto_rotate_period": 3600})
	require.Equal(t, 1, other.signedBy())
	pass(m, p, 2*time.Hour)
	m.runPeriodic()
	require.Len(t, other.privateKeys(), 1)
	m.InvalidateKey(t.Context(), "key/myapi")
	m.runPeriodic()
	require.Len(t, other.privateKeys(), 2)
}

func TestPeriodic_UnreadableStorageIsSeededLater(t *testing.T) {
	t.Parallel()
	m, p := newJWKSMount(t, map[string]any{"auto_rotate_period": 3600})
	require.Equal(t, 1, m.signedBy())
	pass(m, p, 2*time.Hour)
	restarted := mountOver(t, m.storage, m.clock)
	m.storage.failNth(1, func(v verb) bool { return v == list })
	_, err := restarted.HandleRequest(t.Context(), &logical.Request{Operation: logical.RollbackOperation, Storage: m.storage})
	require.ErrorContains(t, err, errStorage.Error())
	restarted.runPeriodic()
	require.Len(t, restarted.privateKeys(), 2)
}

// TestPeriodic_ChangeDuringARunIsCheckedInTheNext: the run saw a version that was not accepted, and must not schedule by it.
func TestPeriodic_ChangeDuringARunIsCheckedInTheNext(t *testing.T) {
	t.Parallel()
	m, p := newJWKSMount(t, map[string]any{"auto_rotate_period": 3600})
	asked := 0
	m.now = func() time.Time {
		if asked++; asked == 2 { // the key was read by now
			m.read("creds/myapi")
		}
		return m.clock.now()
	}
	m.runPeriodic()
	m.now = m.clock.now
	require.NotEmpty(t, m.version(1)["accepted_time"])
	pass(m, p, 2*time.Hour)
	m.runPeriodic()
	require.Equal(t, map[string]string{"1": "active", "2": "staged"}, m.states())
}

func TestPeriodic_RotationWaitsForRoom(t *testing.T) {
	t.Parallel()
	m, p := newJWKSMount(t, map[string]any{"auto_rotate_period": 3600, "overlap_period": 86400})
	for range 11 {
		require.NotZero(t, m.signedBy())
		m.runPeriodic()
		pass(m, p, 6*time.Minute)
		require.NotZero(t, m.signedBy())
		pass(m, p, time.Hour)
	}
	require.Len(t, m.states(), keyring.MaxVersions)
	require.Contains(t, strings.Join(m.read("keys/myapi").Warnings, "\n"), "automatic rotation waits until one expires")
	require.NotContains(t, m.log.String(), "key maintenance failed")
	pass(m, p, 24*time.Hour)
	m.runPeriodic()
	require.Equal(t, map[string]string{"10": "active", "11": "staged"}, m.states())
}
