package backend

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/bcgov/vault-plugin-bcgov-jwt/backend/internal/keyring"
	"github.com/bcgov/vault-plugin-bcgov-jwt/backend/internal/storage"
	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"
)

func (b *backend) pathKeysList() *framework.Path {
	return listPath("keys", "type, client_id, issuer, active and staged version and state",
		keyring.List, b.keyRow)
}

func (b *backend) pathKeys() *framework.Path {
	fields := fieldSchemas(keyFields(), declaredFields("key parameters"))
	fields["name"] = nameField("key")
	fields["type"].AllowedValues = allowed(keyring.Types())
	return &framework.Path{
		Pattern:        "keys/(?P<name>[^/]+)",
		ExistenceCheck: existence(&b.keys),
		Fields:         fields,
		Operations: entryOperations("key", "Update a key's settings.", keyResponseSchema(),
			b.readKey, b.writeKey, b.deleteKey),
		HelpSynopsis:    "Manage a key pair and its OAuth client.",
		HelpDescription: textOf("keys"),
	}
}

func keyResponseSchema() map[int][]framework.Response {
	return okResponse("The key and its public key.", withSettings(keyFields(), "key"))
}

func (b *backend) readKey(
	ctx context.Context, req *logical.Request, name string,
) (*logical.Response, error) {
	key, err := b.keys.get(ctx, req.Storage, name)
	if err != nil || key == nil {
		return nil, err
	}
	return b.keyResponse(ctx, req, key)
}

func (b *backend) writeKey(
	ctx context.Context, req *logical.Request, name string,
) (*logical.Response, error) {
	key, err := b.keys.get(ctx, req.Storage, name)
	if err != nil {
		return nil, err
	}
	if key == nil && req.Operation != logical.PatchOperation {
		return b.createKey(ctx, req, name)
	}
	unlock, err := b.keyLocks.lock(ctx, name)
	if err != nil {
		return nil, err
	}
	defer unlock()
	key, err = keyring.Load(ctx, req.Storage, name)
	switch {
	case err != nil:
		return nil, err
	case key == nil:
		return nil, logical.CodedError(http.StatusNotFound, fmt.Sprintf("key %q does not exist; "+
			"create it with: vault write -f %skeys/%[1]s", name, req.MountPoint))
	}
	return b.updateKey(ctx, req, key)
}

// createKey decides again after the private key was generated.
func (b *backend) createKey(
	ctx context.Context, req *logical.Request, name string,
) (*logical.Response, error) {
	keyType, err := typeParam(req.Data, keyring.Types()[0])
	if err != nil {
		return nil, err
	}
	defaults := defaultKeySettings(name, keyType)
	if _, err := b.newKeySettings(ctx, req, name, keyType, defaults); err != nil {
		return nil, err
	}
	material, unlock, err := b.generateThenLock(ctx, keyType, b.keyLocks, name)
	if err != nil {
		return nil, err
	}
	defer unlock()
	key, err := keyring.Load(ctx, req.Storage, name)
	if err != nil {
		return nil, err
	}
	if key != nil { // created in the meantime
		return b.updateKey(ctx, req, key)
	}
	settings, err := b.newKeySettings(ctx, req, name, keyType, defaults)
	if err != nil {
		return nil, err
	}
	key, err = keyring.New(material, name, settings, b.now())
	if err != nil {
		return nil, err
	}
	return b.storeNewKey(ctx, req, key)
}

func (b *backend) storeNewKey(
	ctx context.Context, req *logical.Request, key *keyring.Key, warnings ...string,
) (*logical.Response, error) {
	defer b.keyChanged(key.Name())
	defer b.keyIDChanged(key.ID())
	if err := keyring.Create(ctx, req.Storage, key); err != nil {
		return nil, err
	}
	return b.keyResponse(ctx, req, key, warnings...)
}

func (b *backend) updateKey(
	ctx context.Context, req *logical.Request, key *keyring.Key,
) (*logical.Response, error) {
	if keyType, err := typeParam(req.Data, key.Type()); err != nil {
		return nil, err
	} else if keyType != key.Type() {
		return nil, userErrorf("type: cannot be changed from %s; create another key with type=%s",
			key.Type(), keyType)
	}
	before := key.Settings()
	after, err := b.newKeySettings(ctx, req, key.Name(), key.Type(), before)
	if err != nil {
		return nil, err
	}
	if staged := key.Staged(b.now()); staged != nil && after.Registration != before.Registration {
		return nil, userErrorf("registration: cannot be changed while version %[1]d is staged; "+
			"first activate it (vault write -f %[2]skeys/%[3]s/activate) or destroy it (vault "+
			"write %[2]skeys/%[3]s/destroy version=%[1]d)",
			staged.Number(), req.MountPoint, key.Name())
	}
	if after.Equal(before) {
		return b.keyResponse(ctx, req, key)
	}
	changed, err := key.WithSettings(after)
	if err != nil {
		return nil, err
	}
	defer b.dropTokens(key.Name())
	if err := b.storeKey(ctx, req.Storage, key, changed); err != nil {
		return nil, err
	}
	b.registrationChanged(key, changed, req.ID)
	return b.keyResponse(ctx, req, changed)
}

func (b *backend) deleteKey(
	ctx context.Context, req *logical.Request, name string,
) (*logical.Response, error) {
	unlock, err := b.keyLocks.lock(ctx, name)
	if err != nil {
		return nil, err
	}
	defer unlock()
	key, err := keyring.Load(ctx, req.Storage, name)
	if storage.IsDamaged(err) {
		return nil, b.deleteDamagedKey(ctx, req, name)
	}
	if err != nil || key == nil {
		return nil, err
	}
	if !key.Settings().DeletionAllowed {
		return nil, userErrorf("key %q is protected, because deletion permanently destroys its "+
			"private key; to allow it: vault write %skeys/%[1]s deletion_allowed=true",
			name, req.MountPoint)
	}
	roles, err := b.rolesOf(ctx, req.Storage, name)
	if err != nil {
		return nil, err
	}
	if len(roles) > 0 {
		return nil, userErrorf("key %q is in use; first delete or change these roles: %s",
			name, abbreviate(roles))
	}
	defer b.exchanger.Forget(key.ID())
	defer b.keyChanged(name)
	defer b.keyNames.drop(key.ID())
	if err := keyring.Delete(ctx, req.Storage, key); err != nil {
		return nil, err
	}
	b.keyIDs.Delete(key.ID())
	return nil, nil
}

// deleteDamagedKey deletes a key that can never sign again, whether or not deletion_allowed was set
// or roles name it.
func (b *backend) deleteDamagedKey(
	ctx context.Context, req *logical.Request, name string,
) error {
	defer b.dropTokens(name)
	defer b.keyChanged(name)
	if err := keyring.DeleteDamaged(ctx, req.Storage, name); err != nil {
		return err
	}
	b.Logger().Warn("damaged key deleted", "key", name, "request_id", req.ID)
	return nil
}

// toRegister returns the version whose public key is to be registered now.
func toRegister(key *keyring.Key, now time.Time) *keyring.Version {
	return cmp.Or(key.Staged(now), key.Active(now))
}

// keyResponse returns a key with the public key of the version to register.
func (b *backend) keyResponse(
	ctx context.Context, req *logical.Request, key *keyring.Key, warnings ...string,
) (*logical.Response, error) {
	roles, err := b.rolesOf(ctx, req.Storage, key.Name())
	if err != nil {
		return nil, err
	}
	now := b.now()
	version := toRegister(key, now)
	settings := key.Settings()
	data := toResponse(keyFields(), &settings)
	data["type"] = string(key.Type())
	data["public_key"] = version.PublicKeyPEM()
	data["key_id"] = version.KeyID()
	data["public_key_version"] = version.Number()
	data["active_version"] = versionNumber(key.Active(now))
	data["staged_version"] = versionNumber(key.Staged(now))
	data["roles"] = roles
	data["jwks_path"] = jwksPath(ctx, key)
	data["next_step"] = nextStep(req.MountPoint, key, roles, now)
	warnings = append(warnings, keyWarnings(key, roles, now)...)
	return &logical.Response{Data: data, Warnings: warnings}, nil
}

// keyRow returns what a list shows of a key.
func (b *backend) keyRow(
	ctx context.Context, s logical.Storage, name string,
) (map[string]any, error) {
	key, err := keyring.LoadSummary(ctx, s, name, b.now())
	if err != nil || key == nil { // deleted since it was listed: the CLI panics on a null
		return map[string]any{}, err
	}
	return map[string]any{
		"type":           string(key.Type),
		"client_id":      key.Settings.ClientID,
		"issuer":         key.Settings.Issuer,
		"active_version": key.Active,
		"staged_version": key.Staged,
		"state":          string(stateOf(key)),
	}, nil
}
