package backend

import (
	"cmp"
	"context"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"

	"github.com/bcgov/vault-plugin-bcgov-jwt/backend/internal/keyring"
)

func (b *backend) pathKeysImport() *framework.Path {
	fields := declaredFields("import parameters")
	fields["type"].AllowedValues = allowed(keyring.Types())
	fields["hash_function"].AllowedValues = allowed(keyring.HashFunctions())
	return keyActionPath("import", "key", "Import a private key as a new key.", help("keys-import"),
		b.importKey, fields)
}

func (b *backend) importKey(
	ctx context.Context, req *logical.Request, name string,
) (*logical.Response, error) {
	material, err := b.materialParam(ctx, req)
	if err != nil {
		return nil, err
	}
	if keyType, err := typeParam(req.Data, material.Type()); err != nil {
		return nil, err
	} else if keyType != material.Type() {
		return nil, userErrorf("type: the private key is %s, not %s", material.Type(), keyType)
	}
	keyID, err := material.KeyID()
	if err != nil {
		return nil, err
	}
	// The key ID's lock prevents concurrent imports of one private key under two names.
	unlock, err := b.keyLocks.lock(ctx, name, keyID)
	if err != nil {
		return nil, err
	}
	defer unlock()
	if err := b.checkImportable(ctx, req, name, keyID); err != nil {
		return nil, err
	}
	key, err := keyring.New(material, name, defaultKeySettings(name, material.Type()), b.now())
	if err != nil {
		return nil, err
	}
	return b.storeNewKey(ctx, req, key, importWarning(req.MountPoint, name))
}

// materialParam returns the private key in a request, whether in plaintext or wrapped.
func (b *backend) materialParam(
	ctx context.Context, req *logical.Request,
) (*keyring.Material, error) {
	text, _ := req.Data["private_key"].(string)
	ciphertext, _ := req.Data["ciphertext"].(string)
	hashName, _ := req.Data["hash_function"].(string)
	switch {
	case text == "" && ciphertext == "":
		return nil, userErrorf("private_key: is required, unless ciphertext is set; pass a PEM " +
			"file with private_key=@client.key")
	case text != "" && ciphertext != "":
		return nil, userErrorf("private_key: cannot be combined with ciphertext")
	case text != "" && hashName != "":
		return nil, userErrorf("hash_function: applies to ciphertext only")
	case text != "":
		material, err := keyring.ParsePEM(text)
		if err != nil {
			err = userErrorf("private_key: %w", err)
		}
		return material, err
	}
	hashName = cmp.Or(hashName, keyring.HashFunctions()[0])
	newHash := keyring.HashFunction(hashName)
	if newHash == nil {
		return nil, userErrorf("hash_function: %s is not supported; use one of %s",
			quoted(hashName), join(keyring.HashFunctions()))
	}
	wrappingKey, err := b.wrappingKey.get(ctx, req.Storage, keyring.WrappingKeyStoragePath)
	if err != nil {
		return nil, err
	}
	if wrappingKey == nil { // nothing was wrapped with it
		return nil, userErrorf("ciphertext: %w", keyring.ErrUnwrap)
	}
	material, err := wrappingKey.Unwrap(ciphertext, newHash)
	if err != nil {
		err = userErrorf("ciphertext: %w", err)
	}
	return material, err
}

// checkImportable keeps private keys that someone may know out of existing keys, and one private
// key from having two names.
func (b *backend) checkImportable(
	ctx context.Context, req *logical.Request, name, keyID string,
) error {
	key, err := keyring.Load(ctx, req.Storage, name)
	if err != nil {
		return err
	}
	if key != nil {
		return userErrorf("name: key %q already exists and cannot import another version; use "+
			"another name, or rotate with: vault write -f %skeys/%[1]s/rotate",
			name, req.MountPoint)
	}
	other, err := keyring.NameByKeyID(ctx, req.Storage, keyID)
	if err == nil && other != "" {
		err = userErrorf("private_key: this key already exists as %q", other)
	}
	return err
}
