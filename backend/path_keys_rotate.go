package backend

import (
	"context"
	"errors"
	"fmt"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"

	"github.com/bcgov/vault-plugin-bcgov-jwt/backend/internal/keyring"
)

func (b *backend) pathKeysRotate() *framework.Path {
	return keyActionPath("rotate", "key", "Create the key's next version.", rotateHelp,
		b.rotateKey, map[string]*framework.FieldSchema{})
}

func (b *backend) rotateKey(
	ctx context.Context, req *logical.Request, name string,
) (*logical.Response, error) {
	defer lock(b.keyLocks, name)()
	key, err := loadForUpdate(ctx, req, name)
	if err != nil {
		return nil, err
	}
	now := b.now()
	if staged := key.Staged(now); staged != nil {
		return b.keyResponse(ctx, req, key, fmt.Sprintf("Version %d is already staged, and may be "+
			"registered by now: no other was created. %s",
			staged.Number(), nextAfterRotation(req.MountPoint, key, now)))
	}
	rotated, err := key.Expire(now).Rotate(now)
	if errors.Is(err, keyring.ErrTooManyVersions) {
		return nil, userErrorf("key %q has %d versions, the maximum; first destroy a retired one: "+
			"vault write %skeys/%[1]s/destroy version=…",
			name, keyring.MaxVersions, req.MountPoint)
	}
	if err != nil {
		return nil, err
	}
	if err := b.storeKey(ctx, req.Storage, key, rotated); err != nil {
		return nil, err
	}
	return b.keyResponse(ctx, req, rotated, nextAfterRotation(req.MountPoint, rotated, now))
}

const rotateHelp = `
Creates a new key pair as the key's next version. The current version continues to sign.

registration=manual: replace the public key in the API Services Portal with the one in
the response. The next read of creds finds the old key rejected, signs with the new one
and switches over: no read fails.

registration=jwks: the new version is published immediately and signs after
activation_delay. No action is needed.

The previous version stays usable for retire_after once the new one is accepted.
`
