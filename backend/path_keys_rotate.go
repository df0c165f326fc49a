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
	return keyActionPath("rotate", nil, &framework.PathOperation{
		Callback: b.rotateKey, Summary: "Make the key's next version.",
		DisplayAttrs: &framework.DisplayAttributes{OperationVerb: "rotate", OperationSuffix: "key"},
	}, "Make the key's next version.", rotateHelp)
}

func (b *backend) rotateKey(ctx context.Context, req *logical.Request, data *framework.FieldData) (*logical.Response, error) {
	name, err := nameIn(data, "name")
	if err != nil {
		return nil, err
	}
	defer lock(b.keyLocks, name)()
	key, err := loadKeyToChange(ctx, req, name)
	if err != nil {
		return nil, err
	}
	now := b.now()
	if staged := key.Staged(now); staged != nil {
		return b.keyResponse(ctx, req, key, fmt.Sprintf("Version %d was staged already, and may be registered by now: no other was made. %s",
			staged.Number(), nextAfterRotation(req.MountPoint, key, now)))
	}
	rotated, err := key.Expire(now).Rotate(now)
	if errors.Is(err, keyring.ErrTooManyVersions) {
		return nil, userErrorf("key %q has %d versions, the most it keeps: destroy a retired one first, with vault write %skeys/%s/destroy version=…",
			name, keyring.MaxVersions, req.MountPoint, name)
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
Makes a new key pair as the key's next version. The present version goes on signing.

registration=manual: replace the public key in the API Services Portal with the one that
the answer shows. The first read of creds after that finds the old key refused, signs
with the new one, and switches over: no read fails.

registration=jwks: the new version is published at once and signs after
activation_delay. There is nothing to do.

The version before stays usable for retire_after once the provider accepted the new one.
`
