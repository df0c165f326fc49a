package backend

import (
	"context"
	"fmt"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"

	"github.com/bcgov/vault-plugin-bcgov-jwt/backend/internal/keyring"
)

func (b *backend) pathKeysRotate() *framework.Path {
	return keyActionPath("rotate", "key", "Create the key's next version.", help("keys-rotate"),
		b.rotateKey, nil)
}

func (b *backend) rotateKey(
	ctx context.Context, req *logical.Request, name string,
) (*logical.Response, error) {
	key, err := loadForUpdate(ctx, req, name)
	if err != nil {
		return nil, err
	}
	if resp, err := b.unrotatable(ctx, req, key); resp != nil || err != nil {
		return resp, err
	}
	material, unlock, err := b.generateThenLock(ctx, key.Type(), b.keyLocks, name)
	if err != nil {
		return nil, err
	}
	defer unlock()
	key, err = loadForUpdate(ctx, req, name)
	if err != nil {
		return nil, err
	}
	if resp, err := b.unrotatable(ctx, req, key); resp != nil || err != nil {
		return resp, err
	}
	now := b.now()
	rotated, err := key.Expire(now).Rotate(material, now)
	if err != nil {
		return nil, err
	}
	if err := b.storeKey(ctx, req.Storage, key, rotated); err != nil {
		return nil, err
	}
	return b.keyResponse(ctx, req, rotated)
}

// unrotatable returns what to answer for a key that needs no new version or has no room for one;
// nil otherwise.
func (b *backend) unrotatable(
	ctx context.Context, req *logical.Request, key *keyring.Key,
) (*logical.Response, error) {
	now := b.now()
	if staged := key.Staged(now); staged != nil {
		return b.keyResponse(ctx, req, key, fmt.Sprintf("Version %d was staged before and may be "+
			"registered by now: no other was created.", staged.Number()))
	}
	if len(key.Live(now)) >= keyring.MaxVersions {
		return nil, userErrorf("key %q has %d versions, the maximum; first destroy a retired one: "+
			"vault write %skeys/%[1]s/destroy version=…",
			key.Name(), keyring.MaxVersions, req.MountPoint)
	}
	return nil, nil
}
