package backend

import (
	"sync"
	"time"

	"github.com/hashicorp/vault/sdk/helper/consts"
	"github.com/hashicorp/vault/sdk/logical"
)

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
