package backend

import (
	"context"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"

	"github.com/bcgov/vault-plugin-bcgov-jwt/backend/internal/keyring"
)

func (b *backend) pathKeysDestroy() *framework.Path {
	return keyActionPath("destroy", "key-version",
		"Permanently delete a staged or retired version.", help("keys-destroy"),
		b.destroyVersion, declaredFields("destroy parameters"))
}

func (b *backend) destroyVersion(
	ctx context.Context, req *logical.Request, name string,
) (*logical.Response, error) {
	number, err := versionParam(req.Data)
	if err != nil {
		return nil, err
	}
	if number == 0 {
		return nil, userErrorf("version: is required; list the versions with: vault list "+
			"-detailed %skeys/%s/versions", req.MountPoint, name)
	}
	unlock, err := b.keyLocks.lock(ctx, name)
	if err != nil {
		return nil, err
	}
	defer unlock()
	key, err := loadForUpdate(ctx, req, name)
	if err != nil {
		return nil, err
	}
	version := key.Version(number)
	if version == nil {
		return nil, unknownVersion(key, number)
	}
	if key.State(version, b.now()) == keyring.Active {
		return nil, userErrorf("version: %d is active; rotate and activate another first, or "+
			"disable the key with: vault write %skeys/%s disabled=true",
			number, req.MountPoint, name)
	}
	after := key.Destroy(number)
	defer b.dropTokens(key.Name())
	if err := b.storeKey(ctx, req.Storage, key, after); err != nil {
		return nil, err
	}
	b.Logger().Info("key version destroyed", "key", name, "version", number, "request_id", req.ID)
	return b.keyResponse(ctx, req, after, afterDestruction(after, number))
}
