package backend

import (
	"context"
	"crypto/sha256"
	"hash"
	"sync"
	"time"

	"github.com/hashicorp/vault/sdk/helper/consts"
	"github.com/hashicorp/vault/sdk/logical"
)

// standbyTTL is how long a standby serves what it has read: it is not notified of changes that it
// received in a raft snapshot, with which a node catches up or a backup is restored (OpenBao 2.7).
const standbyTTL = time.Minute

// entryCache holds what was read from storage, so that a warm read costs no storage round trip. Its
// values are immutable.
type entryCache[T any] struct {
	load    loadFunc[T]
	discard func(*T)                    // may be nil
	now     func() time.Time            // nil: values do not expire
	expired func(readAt time.Time) bool // as now

	mu         sync.RWMutex
	values     map[string]cachedEntry[T]
	generation uint64 // counts drops: a value loaded while one happened may be stale
}

// loadFunc reads the value of a name from storage; nil if it does not exist.
type loadFunc[T any] func(ctx context.Context, storage logical.Storage, name string) (*T, error)

// newEntryCache returns a cache whose values expire while the node is a standby.
func newEntryCache[T any](b *backend, load loadFunc[T]) entryCache[T] {
	return entryCache[T]{load: load, now: b.now, expired: b.expired}
}

type cachedEntry[T any] struct {
	value  *T
	digest string // of the stored entry
	readAt time.Time
}

// get returns the value of a name, or nil if it does not exist.
func (c *entryCache[T]) get(ctx context.Context, storage logical.Storage, name string) (*T, error) {
	for {
		c.mu.RLock()
		cached, ok := c.values[name]
		generation := c.generation
		c.mu.RUnlock()
		if ok && (c.expired == nil || !c.expired(cached.readAt)) {
			return cached.value, nil
		}
		loaded, err := c.read(ctx, storage, name)
		if err != nil {
			return nil, err
		}
		if loaded.value == nil {
			if ok {
				c.drop(name)
			}
			return nil, nil
		}
		if kept, ok := c.keep(name, loaded, generation); ok {
			return kept, nil
		}
	}
}

func (c *entryCache[T]) read(
	ctx context.Context, storage logical.Storage, name string,
) (loaded cachedEntry[T], err error) {
	if c.now != nil {
		loaded.readAt = c.now()
	}
	digested := digestedStorage{storage, sha256.New()}
	loaded.value, err = c.load(ctx, digested, name)
	loaded.digest = string(digested.Sum(nil))
	return loaded, err
}

// digestedStorage digests the entries that are read.
type digestedStorage struct {
	logical.Storage
	hash.Hash
}

func (s digestedStorage) Get(ctx context.Context, path string) (*logical.StorageEntry, error) {
	entry, err := s.Storage.Get(ctx, path)
	if entry != nil {
		_, _ = s.Write(entry.Value) // never fails, by its documentation
	}
	return entry, err
}

// keep stores a loaded value and returns the one in place: for an unchanged entry the one before,
// which others refer to; false if a drop overtook the load.
func (c *entryCache[T]) keep(name string, loaded cachedEntry[T], generation uint64) (*T, bool) {
	c.mu.Lock()
	surplus, ok := loaded.value, c.generation == generation
	if ok {
		before := c.values[name]
		surplus = before.value
		if surplus != nil && before.digest == loaded.digest {
			loaded.value, surplus = before.value, loaded.value
		}
		if c.values == nil {
			c.values = make(map[string]cachedEntry[T])
		}
		c.values[name] = loaded
	}
	c.mu.Unlock()
	if surplus != nil && c.discard != nil {
		c.discard(surplus)
	}
	return loaded.value, ok
}

// all returns the values in memory.
func (c *entryCache[T]) all() []*T {
	c.mu.RLock()
	defer c.mu.RUnlock()
	values := make([]*T, 0, len(c.values))
	for _, cached := range c.values {
		values = append(values, cached.value)
	}
	return values
}

// drop removes a name and returns its value, if any; the next get reads it from storage.
func (c *entryCache[T]) drop(name string) *T {
	c.mu.Lock()
	value := c.values[name].value
	delete(c.values, name)
	c.generation++
	c.mu.Unlock()
	if value != nil && c.discard != nil {
		c.discard(value)
	}
	return value
}

func (c *entryCache[T]) clear() {
	c.mu.Lock()
	values := c.values
	c.values = nil
	c.generation++
	c.mu.Unlock()
	if c.discard == nil {
		return
	}
	for _, cached := range values {
		c.discard(cached.value)
	}
}

// replicationCacheTTL is how long replication state is cached. A change (a promotion, a step-down)
// is noticed up to this much later; a write in between fails with Vault's own read-only error.
const replicationCacheTTL = time.Second

// isStandby reports whether this node serves reads, but cannot write.
func (b *backend) isStandby() bool {
	return b.System().ReplicationState().HasState(consts.ReplicationPerformanceStandby)
}

// expired reports whether this node must read again what it read then.
func (b *backend) expired(readAt time.Time) bool {
	return b.now().Sub(readAt) >= standbyTTL && b.isStandby()
}

// cachedSystem saves two calls to Vault on every request: framework.Backend reads the replication
// state, and on forwarded operations whether the mount is local, each a round trip between the
// plugin and Vault.
type cachedSystem struct {
	logical.SystemView
	state cached[consts.ReplicationState]
	local cached[bool]
}

func cacheReplication(system logical.SystemView) logical.SystemView {
	if system == nil {
		return nil
	}
	return &cachedSystem{SystemView: system}
}

// ReplicationState returns the node's role in replication, at most replicationCacheTTL old.
func (s *cachedSystem) ReplicationState() consts.ReplicationState {
	return s.state.get(s.SystemView.ReplicationState)
}

// LocalMount reports whether the mount is not replicated, at most replicationCacheTTL old.
func (s *cachedSystem) LocalMount() bool {
	return s.local.get(s.SystemView.LocalMount)
}

type cached[T any] struct {
	mu        sync.Mutex
	value     T
	fetchedAt time.Time
}

func (c *cached[T]) get(fetch func() T) T {
	c.mu.Lock()
	value, fresh := c.value, time.Since(c.fetchedAt) < replicationCacheTTL
	c.mu.Unlock()
	if fresh {
		return value
	}
	fetchedAt := time.Now()
	value = fetch()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.value, c.fetchedAt = value, fetchedAt
	return value
}
