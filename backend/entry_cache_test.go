package backend

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/vault/sdk/helper/consts"
	"github.com/hashicorp/vault/sdk/logical"
	"github.com/stretchr/testify/require"
)

func TestEntryCache_LoadsOnceUntilDropped(t *testing.T) {
	t.Parallel()
	loads := 0
	s := entryCache[int]{load: func(context.Context, logical.Storage, string) (*int, error) {
		loads++
		value := loads
		return &value, nil
	}}
	for range 3 {
		value, err := s.get(t.Context(), nil, "a")
		require.NoError(t, err)
		require.Equal(t, 1, *value)
	}
	s.drop("b")
	value, err := s.get(t.Context(), nil, "a")
	require.NoError(t, err)
	require.Equal(t, 1, *value, "another name's drop leaves it alone")
	s.drop("a")
	value, err = s.get(t.Context(), nil, "a")
	require.NoError(t, err)
	require.Equal(t, 2, *value)
	s.clear()
	value, err = s.get(t.Context(), nil, "a")
	require.NoError(t, err)
	require.Equal(t, 3, *value)
}

func TestEntryCache_AbsenceAndErrorsAreNotCached(t *testing.T) {
	t.Parallel()
	loads := 0
	present := 42
	s := entryCache[int]{load: func(context.Context, logical.Storage, string) (*int, error) {
		switch loads++; loads {
		case 1:
			return nil, nil
		case 2:
			return nil, errors.New("down")
		default:
			return &present, nil
		}
	}}
	value, err := s.get(t.Context(), nil, "a")
	require.NoError(t, err)
	require.Nil(t, value)
	_, err = s.get(t.Context(), nil, "a")
	require.EqualError(t, err, "down")
	value, err = s.get(t.Context(), nil, "a")
	require.NoError(t, err)
	require.Equal(t, &present, value)
}

func TestEntryCache_LoadOvertakenByDropIsRepeated(t *testing.T) {
	t.Parallel()
	for name, drop := range map[string]func(*entryCache[string]){
		"drop":  func(s *entryCache[string]) { s.drop("a") },
		"clear": func(s *entryCache[string]) { s.clear() },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var s entryCache[string]
			stored, loads := "old", 0
			s.load = func(context.Context, logical.Storage, string) (*string, error) {
				loads++
				value := stored
				if loads == 1 { // another node writes, and this one is notified while it is still reading
					stored = "new"
					drop(&s)
				}
				return &value, nil
			}
			value, err := s.get(t.Context(), nil, "a")
			require.NoError(t, err)
			require.Equal(t, "new", *value)
			require.Equal(t, 2, loads)
		})
	}
}

func TestEntryCache_DroppedValuesAreDiscardedOnce(t *testing.T) {
	t.Parallel()
	var discarded []string
	s := entryCache[string]{
		load:    func(_ context.Context, _ logical.Storage, name string) (*string, error) { return &name, nil },
		discard: func(value *string) { discarded = append(discarded, *value) },
	}
	for _, name := range []string{"a", "b"} {
		_, err := s.get(t.Context(), nil, name)
		require.NoError(t, err)
	}
	s.drop("a")
	s.drop("a")
	s.drop("never there")
	s.clear()
	s.clear()
	require.Equal(t, []string{"a", "b"}, discarded)
}

func TestEntryCache_NeverReturnsValueOlderThanLastDrop(t *testing.T) {
	t.Parallel()
	var stored, dropped atomic.Int64
	s := entryCache[int64]{load: func(context.Context, logical.Storage, string) (*int64, error) {
		value := stored.Load()
		return &value, nil
	}}
	var readers, writer sync.WaitGroup
	done := make(chan struct{})
	writer.Go(func() {
		for n := int64(1); n <= 2000; n++ {
			stored.Store(n)
			s.drop("a")
			dropped.Store(n)
		}
		close(done)
	})
	for range 4 {
		readers.Go(func() {
			for {
				least := dropped.Load()
				value, err := s.get(context.Background(), nil, "a")
				if err != nil || *value < least {
					t.Errorf("got %d, %v after %d was dropped", *value, err, least)
					return
				}
				select {
				case <-done:
					return
				default:
				}
			}
		})
	}
	writer.Wait()
	readers.Wait()
}

// TestEntryCache_StandbyReadsAgainAfterAMinute: a standby is not notified of what a snapshot brings.
func TestEntryCache_StandbyReadsAgainAfterAMinute(t *testing.T) {
	t.Parallel()
	active, p := newReadyMount(t)
	active.write("roles/myapi", map[string]any{"delivery": "shared", "allow_assertion": true})
	published := active.publishKey("published")
	deleted := active.publishKey("deleted")
	active.signedBy()
	standby := nodeOver(t, active.storage, active.clock, consts.ReplicationPerformanceStandby)
	token := standby.tokenID()
	require.True(t, standby.isPublished(published))
	require.True(t, standby.isPublished(deleted))

	active.write("keys/published", map[string]any{"registration": "manual"})
	active.delete("keys/deleted")
	created := active.publishKey("created")
	active.write("config", map[string]any{"max_retries": 1})
	active.write("roles/myapi", map[string]any{"scopes": "email"})
	active.write("keys/myapi", map[string]any{"disabled": true})
	active.clock.advance(standbyTTL - time.Second)
	require.Equal(t, token, standby.tokenID(), "it does not know yet")
	require.True(t, standby.isPublished(published))
	require.False(t, standby.isPublished(created))

	active.clock.advance(time.Second)
	require.Contains(t, standby.refused(logical.ReadOperation, "creds/myapi", nil), "disabled")
	require.Contains(t, standby.refused(logical.ReadOperation, "assertion/myapi", nil), "disabled")
	require.Equal(t, []string{"email"}, standby.read("roles/myapi").Data["scopes"])
	require.Equal(t, 1, standby.read("config").Data["max_retries"])
	require.False(t, standby.isPublished(published))
	require.False(t, standby.isPublished(deleted))
	require.True(t, standby.isPublished(created))
	require.Len(t, p.requests(tokenPath), 2)
}

// TestEntryCache_UnchangedEntriesKeepWhatDependsOnThem: connections, discovery, shared tokens.
func TestEntryCache_UnchangedEntriesKeepWhatDependsOnThem(t *testing.T) {
	t.Parallel()
	active, p := newSharedMount(t)
	active.tokenID()
	standby := nodeOver(t, active.storage, active.clock, consts.ReplicationPerformanceStandby)
	token := standby.tokenID()
	client := standby.clients.values[configStoragePath].value
	requests, discoveries := len(p.requests(tokenPath)), len(p.requests(discoveryPath))
	for range 3 {
		active.clock.advance(standbyTTL)
		require.Equal(t, token, standby.tokenID())
	}
	require.Same(t, client, standby.clients.values[configStoragePath].value)
	require.Len(t, p.requests(tokenPath), requests)
	require.Len(t, p.requests(discoveryPath), discoveries)

	calls := active.storage.calls()
	active.clock.advance(time.Hour)
	_, err := active.roles.get(t.Context(), active.storage, "myapi")
	require.NoError(t, err)
	require.Equal(t, calls, active.storage.calls(), "the active node reads nothing again")
}

func TestEntryCache_ExpiredValues(t *testing.T) {
	t.Parallel()
	storage := newStorage()
	put := func(text string) {
		require.NoError(t, storage.Put(t.Context(), &logical.StorageEntry{Key: "a", Value: []byte(text)}))
	}
	var discarded []string
	s := entryCache[string]{
		load: func(ctx context.Context, storage logical.Storage, name string) (*string, error) {
			entry, err := storage.Get(ctx, name)
			if err != nil || entry == nil {
				return nil, err
			}
			text := string(entry.Value)
			return &text, nil
		},
		discard: func(value *string) { discarded = append(discarded, *value) },
		now:     time.Now,
		expired: func(time.Time) bool { return true },
	}
	put("first")
	first, err := s.get(t.Context(), storage, "a")
	require.NoError(t, err)
	again, err := s.get(t.Context(), storage, "a")
	require.NoError(t, err)
	require.Same(t, first, again, "unchanged")
	require.Equal(t, []string{"first"}, discarded, "the one that was read again")
	put("second")
	second, err := s.get(t.Context(), storage, "a")
	require.NoError(t, err)
	require.Equal(t, "second", *second)
	require.Equal(t, []string{"first", "first"}, discarded)
	storage.failEach(func(v verb) bool { return v == get })
	_, err = s.get(t.Context(), storage, "a")
	require.ErrorIs(t, err, errStorage)
	storage.intercept(nil)
	require.NoError(t, storage.Delete(t.Context(), "a"))
	gone, err := s.get(t.Context(), storage, "a")
	require.NoError(t, err)
	require.Nil(t, gone)
	require.Equal(t, []string{"first", "first", "second"}, discarded)
	require.Empty(t, s.values)
}

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
