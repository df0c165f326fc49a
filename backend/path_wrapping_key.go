package backend

import (
	"context"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"

	"github.com/bcgov/vault-plugin-bcgov-jwt/backend/internal/keyring"
)

func (b *backend) pathWrappingKey() *framework.Path {
	response := okResponse("The wrapping key.", declaredFields("wrapping key"))
	return singlePath("wrapping_key", help("wrapping-key"), nil, logical.ReadOperation,
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
