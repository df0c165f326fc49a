package backend

import (
	"sync"
	"time"

	"github.com/hashicorp/vault/sdk/helper/consts"
	"github.com/hashicorp/vault/sdk/logical"
)

// replicationMemory is how long the answers about replication are remembered. A change of them (a promotion, a step-down)
// is seen this much later; a write in between fails with Vault's own read-only error.
const replicationMemory = time.Second

// rememberedSystem spares two calls to Vault on every request: framework.Backend asks for the replication state, and on
// forwarded operations for whether the mount is local, each a round trip between the plugin and Vault.
type rememberedSystem struct {
	logical.SystemView
	state remembered[consts.ReplicationState]
	local remembered[bool]
}

func rememberReplication(system logical.SystemView) logical.SystemView {
	if system == nil {
		return nil
	}
	return &rememberedSystem{SystemView: system}
}

// ReplicationState is the node's role in replication, at most replicationMemory old.
func (s *rememberedSystem) ReplicationState() consts.ReplicationState {
	return s.state.get(s.SystemView.ReplicationState)
}

// LocalMount says whether the mount is not replicated, at most replicationMemory old.
func (s *rememberedSystem) LocalMount() bool {
	return s.local.get(s.SystemView.LocalMount)
}

type remembered[T any] struct {
	mu      sync.Mutex
	value   T
	askedAt time.Time
}

func (r *remembered[T]) get(ask func() T) T {
	r.mu.Lock()
	value, fresh := r.value, time.Since(r.askedAt) < replicationMemory
	r.mu.Unlock()
	if fresh {
		return value
	}
	askedAt := time.Now()
	value = ask()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.value, r.askedAt = value, askedAt
	return value
}
