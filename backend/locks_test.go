package backend

import (
	"context"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/hashicorp/vault/sdk/logical"
	"github.com/stretchr/testify/require"
)

// holdAll holds every lock of a set, and returns what releases them.
func holdAll(t *testing.T, held locks) (release func()) {
	t.Helper()
	for _, shard := range held {
		require.NoError(t, shard.Acquire(t.Context(), 1))
	}
	return func() {
		for _, shard := range held {
			shard.Release(1)
		}
	}
}

func TestLocks_CanceledRequestStopsWaitingAndChangesNothing(t *testing.T) {
	t.Parallel()
	roleLocks := func(m *mount) locks { return m.roleLocks }
	keyLocks := func(m *mount) locks { return m.keyLocks }
	mountLocks := func(m *mount) locks { return m.mountLocks }
	private, _ := newPEM(t)
	for name, test := range map[string]struct {
		held      func(*mount) locks
		operation logical.Operation
		path      string
		data      map[string]any
	}{
		"create a key":             {keyLocks, logical.UpdateOperation, "keys/new", map[string]any{"type": "ed25519"}},
		"update a key":             {keyLocks, logical.UpdateOperation, "keys/myapi", map[string]any{"client_id": "new"}},
		"patch a key":              {keyLocks, logical.PatchOperation, "keys/myapi", map[string]any{"client_id": "new"}},
		"delete a key":             {keyLocks, logical.DeleteOperation, "keys/unused", nil},
		"import a key":             {keyLocks, logical.UpdateOperation, "keys/new/import", map[string]any{"private_key": private}},
		"rotate a key":             {keyLocks, logical.UpdateOperation, "keys/unused/rotate", nil},
		"activate a version":       {keyLocks, logical.UpdateOperation, "keys/myapi/activate", map[string]any{"force": true}},
		"destroy a version":        {keyLocks, logical.UpdateOperation, "keys/myapi/destroy", map[string]any{"version": 2}},
		"create a role":            {roleLocks, logical.UpdateOperation, "roles/new", map[string]any{"key": "myapi"}},
		"create a role, key held":  {keyLocks, logical.UpdateOperation, "roles/new", map[string]any{"key": "myapi"}},
		"delete a role":            {roleLocks, logical.DeleteOperation, "roles/myapi", nil},
		"delete a role, key held":  {keyLocks, logical.DeleteOperation, "roles/myapi", nil},
		"write the configuration":  {mountLocks, logical.UpdateOperation, "config", map[string]any{"max_retries": 1}},
		"delete the configuration": {mountLocks, logical.DeleteOperation, "config", nil},
		"create the wrapping key":  {mountLocks, logical.ReadOperation, "wrapping_key", nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				m := newMount(t)
				m.generateQuickly()
				m.write("keys/myapi", map[string]any{"type": "ed25519"})
				m.write("keys/myapi/rotate", nil)
				m.write("keys/unused", map[string]any{"type": "ed25519", "deletion_allowed": true})
				m.write("roles/myapi", nil)
				before := m.storage.entries(t)
				release := holdAll(t, test.held(m))
				ctx, cancel := context.WithCancel(t.Context())
				var err error
				var wait sync.WaitGroup
				wait.Go(func() { _, err = m.handle(ctx, test.operation, test.path, test.data) })
				synctest.Wait() // it waits for the lock
				require.NoError(t, err)
				cancel()
				wait.Wait()
				require.ErrorContains(t, err, "canceled while it waited for another write; nothing was changed")
				require.Equal(t, http.StatusGatewayTimeout, err.(logical.HTTPCodedError).Code()) //nolint:errorlint // a bare one
				require.Equal(t, before, m.storage.entries(t))
				release()
				m.do(test.operation, test.path, test.data)
			})
		})
	}
}

func TestLocks_CanceledWaitHoldsNothing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := newLocks()
		unlock, err := l.lock(t.Context(), "a", "a")
		require.NoError(t, err, "a name may be given twice")
		ctx, cancel := context.WithCancel(t.Context())
		var wait sync.WaitGroup
		wait.Go(func() { _, err = l.lock(ctx, "b", "a", "c") })
		synctest.Wait()
		cancel()
		wait.Wait()
		require.Error(t, err)
		unlock()
		unlock, err = l.lock(t.Context(), "a", "b", "c")
		require.NoError(t, err)
		unlock()
	})
}
