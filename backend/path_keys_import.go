package backend

import (
	"cmp"
	"context"

	"github.com/bcgov/vault-plugin-bcgov-jwt/backend/internal/keyring"
	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"
)

func (b *backend) pathKeysImport() *framework.Path {
	fields := declaredFields("import parameters")
	fields["type"].AllowedValues = allowed(keyring.Types())
	fields["hash_function"].AllowedValues = allowed(keyring.HashFunctions())
	return keyActionPath("import", "key", "Import a private key as a new key.",
		textOf("keys-import"), b.importKey, fields)
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

func (b *backend) pathWrappingKey() *framework.Path {
	response := okResponse("The wrapping key.", declaredFields("wrapping key"))
	return singlePath("wrapping_key", textOf("wrapping-key"), nil, logical.ReadOperation,
		forwarded(operation(b.readWrappingKey, "Read the public key for wrapping imported keys.",
			response, "read", "wrapping-key")))
}

// readWrappingKey returns the mount's wrapping key, which the first read creates.
func (b *backend) readWrappingKey(
	ctx context.Context, req *logical.Request, _ *framework.FieldData,
) (*logical.Response, error) {
	key, err := b.wrappingKey.get(ctx, req.Storage, keyring.WrappingKeyStoragePath)
	if err == nil && key == nil {
		key, err = b.createWrappingKey(ctx, req.Storage)
	}
	if err != nil {
		return nil, err
	}
	publicKey, err := key.PublicKeyPEM()
	if err != nil {
		return nil, err
	}
	return &logical.Response{Data: map[string]any{"public_key": publicKey}}, nil
}

// createWrappingKey creates the wrapping key, unless another read has by now.
func (b *backend) createWrappingKey(
	ctx context.Context, storage logical.Storage,
) (*keyring.WrappingKey, error) {
	const path = keyring.WrappingKeyStoragePath
	material, unlock, err := b.generateThenLock(ctx, keyring.WrappingKeyType, b.mountLocks, path)
	if err != nil {
		return nil, err
	}
	defer unlock()
	if key, err := b.wrappingKey.get(ctx, storage, path); err != nil || key != nil {
		return key, err
	}
	defer b.wrappingKey.drop(path)
	return keyring.CreateWrappingKey(ctx, storage, material)
}
