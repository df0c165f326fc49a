package backend

import (
	"context"
	"crypto/rand"
	"errors"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/hashicorp/vault/sdk/logical"
	"github.com/stretchr/testify/require"
)

// publishKey creates a key with registration=jwks, and returns its ID.
func (m *mount) publishKey(name string) string {
	m.tb.Helper()
	m.write("keys/"+name, map[string]any{"type": "ed25519", "registration": "jwks", "deletion_allowed": true})
	key, err := m.keys.get(m.tb.Context(), m.storage, name)
	require.NoError(m.tb, err)
	return key.ID()
}

// isPublished reports whether a key set is served under an ID.
func (m *mount) isPublished(id string) bool {
	m.tb.Helper()
	return m.jwks(logical.ReadOperation, id) != nil
}

func (m *mount) knownIDs() (count int) {
	m.backend.keyIDs.Range(func(any, any) bool { count++; return true })
	return count
}

func TestKeyIDs_WarmRequestsCallNothingAndKeepNothing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) { // the clock stands still, and with it what is cached of replication
		m := newMount(t)
		id, manual := m.publishKey("myapi"), m.publishKey("manual")
		m.write("keys/manual", map[string]any{"registration": "manual"})
		for _, id := range []string{id, manual, rand.Text()} {
			m.jwks(logical.ReadOperation, id)
		}
		stored, system := m.storage.calls(), m.system.calls.Load()
		for range 1000 {
			require.False(t, m.isPublished(rand.Text()))
			require.False(t, m.isPublished(manual))
			require.True(t, m.isPublished(id))
		}
		require.Equal(t, stored, m.storage.calls())
		require.Equal(t, system, m.system.calls.Load())
		require.Equal(t, 2, m.knownIDs(), "the keys'")
		require.Len(t, m.keyNames.values, 2)
	})
}

func TestKeyIDs_StorageIsListedOnce(t *testing.T) {
	t.Parallel()
	source := newMount(t)
	id := source.publishKey("myapi")
	synctest.Test(t, func(t *testing.T) {
		m := mountOver(t, newStorage(), &clock{})
		m.storage.InmemStorage = source.storage.InmemStorage
		listing := make(chan struct{})
		m.storage.intercept(func(v verb, _ string) error {
			if v == list {
				<-listing
			}
			return nil
		})
		var wait sync.WaitGroup
		for range 50 {
			wait.Go(func() { m.isPublished(rand.Text()) })
			wait.Go(func() { m.isPublished(id) })
		}
		synctest.Wait()
		close(listing)
		wait.Wait()
		require.Equal(t, 1, m.storage.counts[list])
		require.Equal(t, 1, m.knownIDs())
	})
}

// TestKeyIDs_FollowOtherNodes: each change elsewhere is announced by entry, in any order, and only that one is read.
func TestKeyIDs_FollowOtherNodes(t *testing.T) {
	t.Parallel()
	for name, announced := range map[string]func(id string) []string{
		"key first":   func(id string) []string { return []string{"key/new", "key-id/" + id} },
		"index first": func(id string) []string { return []string{"key-id/" + id, "key/new"} },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			here := newMount(t)
			there := mountOver(t, here.storage, here.clock)
			first := here.publishKey("first")
			require.True(t, here.isPublished(first))
			here.storage.intercept(func(_ verb, path string) error {
				require.NotEqual(t, "key-id/", path, "it is not listed again")
				return nil
			})

			id := there.publishKey("new")
			require.False(t, here.isPublished(id), "not announced yet")
			for _, path := range announced(id) {
				here.InvalidateKey(t.Context(), path)
			}
			require.True(t, here.isPublished(id))
			there.write("keys/new", map[string]any{"registration": "manual"})
			here.InvalidateKey(t.Context(), "key/new")
			require.False(t, here.isPublished(id))
			there.write("keys/new", map[string]any{"registration": "jwks"})
			here.InvalidateKey(t.Context(), "key/new")
			require.True(t, here.isPublished(id))

			there.delete("keys/new")
			for _, path := range announced(id) {
				here.InvalidateKey(t.Context(), path)
			}
			require.False(t, here.isPublished(id))
			calls := here.storage.calls()
			require.False(t, here.isPublished(id))
			require.Equal(t, calls, here.storage.calls(), "a deleted key's ID is unknown again")
			require.True(t, here.isPublished(first))
			require.Equal(t, 1, here.knownIDs())
		})
	}
}

func TestKeyIDs_FollowOwnWrites(t *testing.T) {
	t.Parallel()
	m := newMount(t)
	require.False(t, m.isPublished(rand.Text())) // lists
	id := m.publishKey("myapi")
	require.True(t, m.isPublished(id))
	m.storage.failNth(1, verb.writes)
	m.failed(500, logical.DeleteOperation, "keys/myapi", nil)
	m.storage.intercept(nil)
	require.True(t, m.isPublished(id), "the key was not deleted")
	m.storage.failNth(2, verb.writes)
	m.failed(500, logical.DeleteOperation, "keys/myapi", nil)
	m.storage.intercept(nil)
	require.False(t, m.isPublished(id), "only its index was not")

	id = m.publishKey("myapi")
	require.True(t, m.isPublished(id))
	m.delete("keys/myapi")
	calls := m.storage.calls()
	require.False(t, m.isPublished(id))
	require.Equal(t, calls, m.storage.calls())
}

// overtakenStorage runs a function after a list was read and before it is returned.
type overtakenStorage struct {
	logical.Storage
	overtake func()
}

func (s *overtakenStorage) List(ctx context.Context, prefix string) ([]string, error) {
	names, err := s.Storage.List(ctx, prefix)
	s.overtake()
	return names, err
}

func TestKeyIDs_WriteThatOvertakesTheListCounts(t *testing.T) {
	t.Parallel()
	source := newMount(t)
	deleted := source.publishKey("deleted")
	m := mountOver(t, source.storage, source.clock)
	var created string
	s := &overtakenStorage{m.storage, func() {
		created = m.publishKey("created")
		m.delete("keys/deleted")
	}}
	_, err := m.HandleRequest(t.Context(), &logical.Request{
		Operation: logical.ReadOperation, Path: "jwks/" + rand.Text(), MountPoint: mountPoint, Storage: s,
	})
	require.NoError(t, err)
	require.True(t, m.isPublished(created))
	require.False(t, m.isPublished(deleted))
	require.Equal(t, 1, m.knownIDs())
}

func TestKeyIDs_StorageFaultIsLoggedAndNotTold(t *testing.T) {
	t.Parallel()
	source := newMount(t)
	id := source.publishKey("myapi")
	var texts []string
	for _, path := range []string{"key-id/", "key-id/" + id, "key/myapi"} {
		m := mountOver(t, source.storage, source.clock)
		m.storage.intercept(func(_ verb, called string) error {
			if called == path {
				return errors.New("secret detail")
			}
			return nil
		})
		_, err := m.HandleRequest(t.Context(), &logical.Request{
			Operation: logical.ReadOperation, Path: "jwks/" + id, MountPoint: mountPoint, Storage: m.storage, ID: "request-1",
		})
		m.storage.intercept(nil)
		coded, ok := err.(logical.HTTPCodedError) //nolint:errorlint // only a bare one keeps its code on the way to Vault
		require.True(t, ok, "%v", err)
		require.Equal(t, 500, coded.Code())
		texts = append(texts, err.Error())
		require.Contains(t, m.log.String(), "key set could not be read: request_id=request-1")
		require.Contains(t, m.log.String(), "secret detail")
		require.True(t, m.isPublished(id), "the next request reads again")
	}
	const fixed = "the key set could not be read; the cause is in Vault's log"
	require.Equal(t, []string{fixed, fixed, fixed}, texts)
}
