package backend

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/vault/sdk/helper/consts"
	"github.com/hashicorp/vault/sdk/logical"
	"github.com/stretchr/testify/require"
)

// changingSystem returns what a test sets.
type changingSystem struct {
	logical.SystemView
	state atomic.Uint32
	local atomic.Bool
	calls atomic.Int64
}

func (s *changingSystem) ReplicationState() consts.ReplicationState {
	s.calls.Add(1)
	return consts.ReplicationState(s.state.Load())
}

func (s *changingSystem) PluginEnv(context.Context) (*logical.PluginEnvironment, error) {
	return nil, nil
}

func (s *changingSystem) LocalMount() bool {
	s.calls.Add(1)
	return s.local.Load()
}

func (s *changingSystem) GetConsumptionBillingManager() logical.ConsumptionBillingManager { return nil }

func TestReplication_IsCachedForASecond(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		vault := &changingSystem{}
		view := cacheReplication(vault)
		primary, secondary := consts.ReplicationPerformancePrimary, consts.ReplicationPerformanceSecondary
		vault.state.Store(uint32(primary))
		for range 100 {
			require.Equal(t, primary, view.ReplicationState())
			require.False(t, view.LocalMount())
		}
		require.EqualValues(t, 2, vault.calls.Load(), "one call each")

		vault.state.Store(uint32(secondary))
		vault.local.Store(true)
		time.Sleep(replicationCacheTTL - time.Nanosecond)
		require.Equal(t, primary, view.ReplicationState())
		require.False(t, view.LocalMount())
		time.Sleep(time.Nanosecond)
		require.Equal(t, secondary, view.ReplicationState())
		require.True(t, view.LocalMount())
		require.EqualValues(t, 4, vault.calls.Load())
	})
}

func TestReplication_CacheCountsFromRequest(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var value cached[int]
		calls := 0
		slow := func() int {
			calls++
			time.Sleep(replicationCacheTTL)
			return calls
		}
		require.Equal(t, 1, value.get(slow))
		require.Equal(t, 2, value.get(slow), "it was a second old when it arrived")
	})
}

func TestReplication_WithoutSystemView(t *testing.T) {
	t.Parallel()
	require.Nil(t, cacheReplication(nil))
}

func TestReplication_WritesOnSecondaryAreForwarded(t *testing.T) {
	t.Parallel()
	m := newMount(t)
	vault := &changingSystem{}
	vault.state.Store(uint32(consts.ReplicationPerformanceSecondary))
	require.NoError(t, m.Setup(t.Context(), &logical.BackendConfig{System: cacheReplication(vault)}))
	for _, operation := range []logical.Operation{logical.CreateOperation, logical.UpdateOperation, logical.PatchOperation, logical.DeleteOperation} {
		_, err := m.HandleRequest(t.Context(), &logical.Request{Operation: operation, Path: "keys/myapi", Storage: m.storage})
		require.Equal(t, logical.ErrReadOnly, err, operation)
	}
	require.Nil(t, m.read("keys/myapi"))
	require.Zero(t, m.storage.writes())
}
