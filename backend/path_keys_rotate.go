package backend

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"time"

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

// keyActionPath describes an action on a key: an update of keys/<name>/<action> that answers with the key.
func keyActionPath(action string, fields map[string]*framework.FieldSchema, update *framework.PathOperation, synopsis, help string) *framework.Path {
	update.Responses = ok("The key's settings and public material.", keyAnswerFields())
	update.ForwardPerformanceStandby, update.ForwardPerformanceSecondary = true, true
	all := map[string]*framework.FieldSchema{
		"name": {Type: framework.TypeString, Description: "The key's name.", Required: true},
	}
	maps.Copy(all, fields)
	return &framework.Path{
		Pattern:         "keys/(?P<name>[^/]+)/" + action,
		DisplayAttrs:    &framework.DisplayAttributes{OperationPrefix: operationPrefix},
		Fields:          all,
		Operations:      map[logical.Operation]framework.OperationHandler{logical.UpdateOperation: update},
		HelpSynopsis:    synopsis,
		HelpDescription: strings.TrimSpace(help),
	}
}

// loadKeyToChange reads the key that a request names, from storage. It is called under the key's lock.
func loadKeyToChange(ctx context.Context, req *logical.Request, name string) (*keyring.Key, error) {
	key, err := keyring.Load(ctx, req.Storage, name)
	if err == nil && key == nil {
		err = userErrorf("name: there is no key %q; make it with: vault write -f %skeys/%s", name, req.MountPoint, name)
	}
	return key, err
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
		return b.keyAnswer(ctx, req, key, fmt.Sprintf("Version %d was staged already, and may be registered by now: no other was made. %s",
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
	return b.keyAnswer(ctx, req, rotated, nextAfterRotation(req.MountPoint, rotated, now))
}

// nextAfterRotation tells what to do with the staged version.
func nextAfterRotation(mount string, key *keyring.Key, now time.Time) string {
	staged := key.Staged(now)
	switch {
	case staged == nil: // with jwks and no delay
		return fmt.Sprintf("Version %d is published, and signs from now on.", key.Active(now).Number())
	case key.Settings().Registration == keyring.ByJWKS:
		return fmt.Sprintf("Version %d is published at %s, and signs from %s on. There is nothing to do.",
			staged.Number(), jwksPath(mount, key), timestamp(staged.ActivationTime()))
	default:
		return fmt.Sprintf("Next: replace the public key in the API Services Portal with public_key of version %d (not certificate); "+
			"vault read -field=public_key %skeys/%s prints it alone. The next read of creds after that switches over by itself; until then version %d signs.",
			staged.Number(), mount, key.Name(), number(key.Active(now)))
	}
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
