package backend

import (
	"context"
	"errors"
	"fmt"

	"github.com/bcgov/vault-plugin-bcgov-jwt/backend/internal/exchange"
	"github.com/bcgov/vault-plugin-bcgov-jwt/backend/internal/keyring"
	"github.com/bcgov/vault-plugin-bcgov-jwt/backend/internal/storage"
	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"
)

func (b *backend) pathKeysActivate() *framework.Path {
	return keyActionPath("activate", "key", "Activate the staged version.", textOf("keys-activate"),
		b.activateKey, declaredFields("activate parameters"))
}

func (b *backend) activateKey(
	ctx context.Context, req *logical.Request, name string,
) (*logical.Response, error) {
	key, err := loadForUpdate(ctx, req, name)
	if err != nil {
		return nil, err
	}
	staged := key.Staged(b.now())
	if staged == nil {
		return nil, userErrorf("key %q has no staged version; version %d is the newest, and "+
			"active. Create another with: vault write -f %skeys/%[1]s/rotate",
			name, versionNumber(key.Active(b.now())), req.MountPoint)
	}
	force, _ := convert(framework.TypeBool, req.Data["force"]) // checkInput rejects other values
	role := ""                                                 // that the version was tested with
	if force != true {
		if role, err = b.probe(ctx, req, key, staged); err != nil {
			return nil, err
		}
	}
	return b.activateStaged(ctx, req, key, staged, role)
}

// maxProbes is how many roles a version is tested with.
const maxProbes = 3

// probe obtains a token with the staged version, discards it, and returns the role that it was for.
// A role that fails because of its own settings leaves the test to the next one.
func (b *backend) probe(
	ctx context.Context, req *logical.Request, key *keyring.Key, staged *keyring.Version,
) (role string, err error) {
	if err := checkUsable(req.MountPoint, key); err != nil {
		return "", err
	}
	names, err := b.rolesOf(ctx, req.Storage, key.Name())
	if err != nil {
		return "", err
	}
	if len(names) == 0 {
		return "", userErrorf("key %q has no role to test version %d with; create one with: vault "+
			"write %sroles/… key=%[1]s, or activate it untested with force=true",
			key.Name(), staged.Number(), req.MountPoint)
	}
	client, err := b.clients.get(ctx, req.Storage, configStoragePath)
	if err != nil {
		return "", err
	}
	ctx, cancel := client.WithTimeout(ctx)
	defer cancel()
	var first error
	for _, name := range names[:min(len(names), maxProbes)] {
		next, err := b.probeWith(ctx, req, key, staged, name)
		switch {
		case err == nil:
			return name, nil
		case !next:
			return "", err
		case first == nil:
			first = err
		}
	}
	return "", first
}

// probeWith is probe with one role. After an error, next reports whether another may succeed.
func (b *backend) probeWith(
	ctx context.Context, req *logical.Request, key *keyring.Key, staged *keyring.Version,
	name string,
) (next bool, err error) {
	role, err := b.roles.get(ctx, req.Storage, name)
	if err != nil {
		return storage.Unreadable(err), err
	}
	if role == nil {
		return true, userErrorf("role %q was deleted before version %d was tested with it; try "+
			"again", name, staged.Number())
	}
	r, err := b.newTokenRequest(ctx, req, name, role, key)
	if err != nil {
		return false, err
	}
	_, rejection := r.try(ctx, staged)
	if rejection == nil {
		return false, nil
	}
	err = r.failed(fmt.Errorf("version %d was not activated, because no token could be obtained "+
		"with it for role %q (force=true skips this test): %w", staged.Number(), name, rejection))
	_, fixable := errors.AsType[userError](err)
	return fixable && !exchange.KeyRejected(rejection), err
}

// activateStaged stores the activation, unless the key changed during the probe.
func (b *backend) activateStaged(
	ctx context.Context, req *logical.Request, before *keyring.Key, staged *keyring.Version,
	role string,
) (*logical.Response, error) {
	unlock, err := b.keyLocks.lock(ctx, before.Name())
	if err != nil {
		return nil, err
	}
	defer unlock()
	key, err := loadForUpdate(ctx, req, before.Name())
	if err != nil {
		return nil, err
	}
	now := b.now()
	if key.ID() != before.ID() || key.Version(staged.Number()) == nil {
		return nil, userErrorf("version %d was destroyed before it could be activated; list the "+
			"versions with: vault list -detailed %skeys/%s/versions",
			staged.Number(), req.MountPoint, before.Name())
	}
	if settings := key.Settings(); role != "" && !settings.Equal(before.Settings()) {
		return nil, userErrorf("key %q was changed while version %d was being tested; try again",
			key.Name(), staged.Number())
	}
	after := key
	if key.State(key.Version(staged.Number()), now) == keyring.Staged {
		after = key.Activate(staged.Number(), keyring.ByOperator, now)
	}
	if role != "" {
		after = after.Accept(staged.Number(), now)
	}
	if after == key {
		return b.keyResponse(ctx, req, key)
	}
	defer b.dropTokens(key.Name())
	if err := b.storeKey(ctx, req.Storage, key, after); err != nil {
		return nil, err
	}
	b.Logger().Info("key version activated", "key", key.Name(),
		"from", versionNumber(key.Active(now)), "to", staged.Number(),
		"tested_with", role, "request_id", req.ID)
	return b.keyResponse(ctx, req, after)
}
