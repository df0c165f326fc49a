package backend

import (
	"context"
	"net/http"
	"slices"

	"github.com/bcgov/vault-plugin-bcgov-jwt/backend/internal/keyring"
	"github.com/hashicorp/vault/sdk/helper/locksutil"
	"github.com/hashicorp/vault/sdk/logical"
	"golang.org/x/sync/semaphore"
)

// locks are mutexes by name. Unlike locksutil's, they are waited for no longer than a request's
// context lasts.
type locks []*semaphore.Weighted

func newLocks() locks {
	shards := make(locks, locksutil.LockCount)
	for i := range shards {
		shards[i] = semaphore.NewWeighted(1)
	}
	return shards
}

// lock acquires the locks of these names, in a fixed order, and returns what releases them.
func (l locks) lock(ctx context.Context, names ...string) (unlock func(), err error) {
	var shards []uint8
	for _, name := range names {
		shards = append(shards, locksutil.LockIndexForKey(name))
	}
	slices.Sort(shards)
	var held locks
	unlock = func() {
		for _, shard := range held {
			shard.Release(1)
		}
	}
	for _, i := range slices.Compact(shards) {
		if err := l[i].Acquire(ctx, 1); err != nil {
			unlock()
			return nil, logical.CodedError(http.StatusGatewayTimeout,
				"the request was canceled while it waited for another write; nothing was changed")
		}
		held = append(held, l[i])
	}
	return unlock, nil
}

// generateThenLock generates a private key, which may take seconds, before it acquires a lock. What
// the caller decided earlier may no longer hold then.
func (b *backend) generateThenLock(
	ctx context.Context, keyType keyring.Type, l locks, name string,
) (material *keyring.Material, unlock func(), err error) {
	if material, err = b.generate(keyType); err != nil {
		return nil, nil, err
	}
	unlock, err = l.lock(ctx, name)
	return material, unlock, err
}
