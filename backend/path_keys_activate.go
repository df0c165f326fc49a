package backend

import (
	"context"
	"fmt"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"

	"github.com/bcgov/vault-plugin-bcgov-jwt/backend/internal/keyring"
)

func (b *backend) pathKeysActivate() *framework.Path {
	return keyActionPath("activate", map[string]*framework.FieldSchema{
		"force": {Type: framework.TypeBool, Description: "Activate without trying the version at the provider first. Default: false."},
	}, &framework.PathOperation{
		Callback: b.activateKey, Summary: "Make the staged version the active one.",
		DisplayAttrs: &framework.DisplayAttributes{OperationVerb: "activate", OperationSuffix: "key"},
	}, "Make the staged version the active one now.", activateHelp)
}

func (b *backend) activateKey(ctx context.Context, req *logical.Request, data *framework.FieldData) (*logical.Response, error) {
	name, err := nameIn(data, "name")
	if err != nil {
		return nil, err
	}
	key, err := loadKeyToChange(ctx, req, name)
	if err != nil {
		return nil, err
	}
	staged := key.Staged(b.now())
	if staged == nil {
		return nil, userErrorf("key %q has no staged version to activate: version %d is the newest, and active; to make another: vault write -f %skeys/%s/rotate",
			name, versionNumber(key.Active(b.now())), req.MountPoint, name)
	}
	force, err := convert(framework.TypeBool, req.Data["force"])
	if err != nil {
		return nil, err
	}
	probed := force != true
	if probed {
		if err := b.probe(ctx, req, key, staged); err != nil {
			return nil, err
		}
	}
	return b.activateStaged(ctx, req, key, staged, probed)
}

// probe obtains a token with the staged version, and discards it.
func (b *backend) probe(ctx context.Context, req *logical.Request, key *keyring.Key, staged *keyring.Version) error {
	if err := checkUsable(req.MountPoint, key); err != nil {
		return err
	}
	names, err := b.rolesOf(ctx, req.Storage, key.Name())
	if err != nil {
		return err
	}
	if len(names) == 0 {
		return userErrorf("key %q has no role to test version %d with; create one with: vault write %sroles/… key=%s, or activate it untested with force=true",
			key.Name(), staged.Number(), req.MountPoint, key.Name())
	}
	role, err := b.roles.get(ctx, req.Storage, names[0])
	if err != nil {
		return err
	}
	if role == nil {
		return userErrorf("role %q, which version %d was to be tested with, was deleted in the meantime; try again",
			names[0], staged.Number())
	}
	r, err := b.newTokenRequest(ctx, req, names[0], role)
	if err != nil {
		return err
	}
	r.key = key // as stored; the cached one may be older
	ctx, cancel := r.config.client.WithTimeout(ctx)
	defer cancel()
	if _, err := r.try(ctx, staged); err != nil {
		return r.failed(fmt.Errorf("version %d was not activated, because no token could be obtained with it (force=true skips this test): %w",
			staged.Number(), err))
	}
	return nil
}

// activateStaged stores the activation, unless the key was changed while the probe was on the network.
func (b *backend) activateStaged(ctx context.Context, req *logical.Request, before *keyring.Key, staged *keyring.Version, probed bool) (*logical.Response, error) {
	defer lock(b.keyLocks, before.Name())()
	key, err := loadKeyToChange(ctx, req, before.Name())
	if err != nil {
		return nil, err
	}
	now := b.now()
	if key.ID() != before.ID() || key.Version(staged.Number()) == nil {
		return nil, userErrorf("version %d of key %q was destroyed in the meantime", staged.Number(), key.Name())
	}
	if probed && key.Settings() != before.Settings() {
		return nil, userErrorf("key %q was changed while its version %d was tried; try again", key.Name(), staged.Number())
	}
	after := key
	if key.State(key.Version(staged.Number()), now) == keyring.Staged {
		after = key.Activate(staged.Number(), keyring.ByOperator, now)
	}
	if probed {
		after = after.Accept(staged.Number(), now)
	}
	if after == key {
		return b.keyResponse(ctx, req, key)
	}
	defer b.dropTokens(key.Name())
	if err := b.storeKey(ctx, req.Storage, key, after); err != nil {
		return nil, err
	}
	b.Logger().Info("a version was activated", "key", key.Name(), "from", versionNumber(key.Active(now)), "to", staged.Number(), "probed", probed, "request_id", req.ID)
	return b.keyResponse(ctx, req, after, fmt.Sprintf("Version %d signs from now on. Look at each version's state at the provider: vault read %scheck/<role>",
		staged.Number(), req.MountPoint))
}

const activateHelp = `
Makes the staged version the active one now, once a token was got with it: register its
public key first. With force=true it is not tried; if the provider does not know the key,
the version before goes on signing, as long as it is there.

There is seldom a need for it: a read of creds switches over by itself when the provider
refuses the old key (registration=manual), or at its time (registration=jwks).
`
