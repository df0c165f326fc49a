package backend

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/vault/sdk/logical"

	"github.com/bcgov/vault-plugin-bcgov-jwt/backend/internal/keyring"
)

// keyIDs holds the IDs of all keys, so that a request for any other, which anyone can send, costs
// neither memory nor a call to Vault. Storage is listed once, by a standby once a minute; then each
// write changes one ID. A deleted key's may remain until it is requested.
type keyIDs struct {
	sync.Map

	listedAt atomic.Pointer[time.Time]
}

// listKeyIDs lists the stored IDs, unless that was done. Concurrent requests wait for one list.
func (b *backend) listKeyIDs(ctx context.Context, storage logical.Storage) error {
	listed := func() bool {
		at := b.keyIDs.listedAt.Load()
		return at != nil && !b.expired(*at)
	}
	if listed() {
		return nil
	}
	unlock, err := b.mountLocks.lock(ctx, keyring.IDPrefix)
	if err != nil {
		return err
	}
	defer unlock()
	if listed() {
		return nil
	}
	now := b.now()
	ids, err := keyring.ListIDs(ctx, storage)
	if err != nil {
		return err
	}
	for _, id := range ids {
		b.keyIDs.Store(id, nil)
	}
	b.keyIDs.listedAt.Store(&now)
	return nil
}

// keyByID returns the key with this ID, or nil.
func (b *backend) keyByID(
	ctx context.Context, storage logical.Storage, id string,
) (*keyring.Key, error) {
	if err := b.listKeyIDs(ctx, storage); err != nil {
		return nil, err
	}
	if _, known := b.keyIDs.Load(id); !known {
		return nil, nil
	}
	name, err := b.keyNames.get(ctx, storage, id)
	if err != nil {
		return nil, err
	}
	if name == nil { // deleted, and no later key has this ID
		b.keyIDs.Delete(id)
		return nil, nil
	}
	key, err := b.keys.get(ctx, storage, *name)
	if err != nil || key == nil || key.ID() != id { // where its index differs, the key counts
		return nil, err
	}
	return key, nil
}

// keyIDChanged notes that the index of an ID was written or deleted.
func (b *backend) keyIDChanged(id string) {
	b.keyIDs.Store(id, nil)
	b.keyNames.drop(id)
}
