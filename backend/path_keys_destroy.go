package backend

import (
	"context"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"

	"github.com/bcgov/vault-plugin-bcgov-jwt/backend/internal/keyring"
)

func (b *backend) pathKeysDestroy() *framework.Path {
	return keyActionPath("destroy", map[string]*framework.FieldSchema{
		"version": {Type: framework.TypeInt, Description: "The version to remove: a staged or a retired one.", Required: true},
	}, &framework.PathOperation{
		Callback: b.destroyVersion, Summary: "Remove a staged or retired version at once.",
		DisplayAttrs: &framework.DisplayAttributes{OperationVerb: "destroy", OperationSuffix: "key-version"},
	}, "Remove a staged or retired version at once.", destroyHelp)
}

func (b *backend) destroyVersion(ctx context.Context, req *logical.Request, data *framework.FieldData) (*logical.Response, error) {
	name, err := nameIn(data, "name")
	if err != nil {
		return nil, err
	}
	doomed, given, err := versionIn(req.Data)
	if err != nil {
		return nil, err
	}
	if !given {
		return nil, userErrorf("version: is required; vault read %skeys/%s lists the versions", req.MountPoint, name)
	}
	defer lock(b.keyLocks, name)()
	key, err := loadKeyToChange(ctx, req, name)
	if err != nil {
		return nil, err
	}
	version := key.Version(doomed)
	if version == nil {
		return nil, noSuchVersion(key, doomed)
	}
	now := b.now()
	if key.State(version, now) == keyring.Active {
		return nil, userErrorf("version: %d is the active one; rotate and activate another first, or stop the key's use with: vault write %skeys/%s disabled=true",
			doomed, req.MountPoint, name)
	}
	after := key.Destroy(doomed)
	defer b.dropTokens(key.Name())
	if err := b.storeKey(ctx, req.Storage, key, after); err != nil {
		return nil, err
	}
	b.Logger().Info("a version was destroyed", "key", name, "version", doomed, "request_id", req.ID)
	return b.keyResponse(ctx, req, after, afterDestruction(after, doomed))
}

const destroyHelp = `
Removes a staged or retired version and its private key at once. The active version is
refused: rotate and activate another one first.

The provider is not told: it goes on accepting the key until its public key is replaced
in the portal, or, with registration=jwks, until it reads the key set again.
`
