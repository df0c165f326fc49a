package backend

import (
	"context"
	"strings"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"

	"github.com/bcgov/vault-plugin-bcgov-jwt/backend/internal/keyring"
)

func (b *backend) pathWrappingKey() *framework.Path {
	return &framework.Path{
		Pattern:      "wrapping_key",
		DisplayAttrs: &framework.DisplayAttributes{OperationPrefix: operationPrefix},
		Operations: map[logical.Operation]framework.OperationHandler{
			logical.ReadOperation: &framework.PathOperation{
				Callback: b.readWrappingKey, Summary: "Read the public key that imported keys are wrapped for.",
				Responses: okResponse("The wrapping key.", responseSchemas([]responseField{
					{name: "public_key", kind: framework.TypeString, description: "An RSA-4096 public key, as PEM."},
				})),
				// The first read makes the key.
				ForwardPerformanceStandby: true, ForwardPerformanceSecondary: true,
				DisplayAttrs: &framework.DisplayAttributes{OperationVerb: "read", OperationSuffix: "wrapping-key"},
			},
		},
		HelpSynopsis:    "The public key that imported keys are wrapped for.",
		HelpDescription: strings.TrimSpace(wrappingKeyHelp),
	}
}

func (b *backend) readWrappingKey(ctx context.Context, req *logical.Request, _ *framework.FieldData) (*logical.Response, error) {
	wrappingKey, err := b.mountWrappingKey(ctx, req.Storage)
	if err != nil {
		return nil, err
	}
	publicKey, err := wrappingKey.PublicKeyPEM()
	if err != nil {
		return nil, err
	}
	return &logical.Response{Data: map[string]any{"public_key": publicKey}}, nil
}

// mountWrappingKey returns the mount's wrapping key, and makes it when it is first asked for.
func (b *backend) mountWrappingKey(ctx context.Context, storage logical.Storage) (*keyring.WrappingKey, error) {
	wrappingKey, err := b.wrappingKey.get(ctx, storage, keyring.WrappingKeyStoragePath)
	if err != nil || wrappingKey != nil {
		return wrappingKey, err
	}
	b.wrappingLock.Lock()
	defer b.wrappingLock.Unlock()
	if wrappingKey, err = b.wrappingKey.get(ctx, storage, keyring.WrappingKeyStoragePath); err != nil || wrappingKey != nil {
		return wrappingKey, err
	}
	defer b.wrappingKey.drop(keyring.WrappingKeyStoragePath)
	return keyring.CreateWrappingKey(ctx, storage)
}

const wrappingKeyHelp = `
An RSA-4096 key of this mount for keys/<name>/import with ciphertext. It is made on the
first read, and wire-compatible with transit's: vault transit import uses it by itself.
`
