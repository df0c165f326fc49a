package backend

import (
	"context"
	"strings"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"

	"github.com/bcgov/vault-plugin-bcgov-jwt/backend/internal/keyring"
)

func (b *backend) pathWrappingKey() *framework.Path {
	const synopsis = "Read the public key for wrapping imported keys."
	return &framework.Path{
		Pattern: "wrapping_key",
		Operations: map[logical.Operation]framework.OperationHandler{
			logical.ReadOperation: forwarded(operation(b.readWrappingKey, synopsis,
				okResponse("The wrapping key.", responseSchemas([]responseField{
					stringField("public_key", "An RSA-4096 public key, as PEM."),
				})), "read", "wrapping-key")),
		},
		HelpSynopsis:    synopsis,
		HelpDescription: strings.TrimSpace(wrappingKeyHelp),
	}
}

// readWrappingKey returns the mount's wrapping key, which the first read creates.
func (b *backend) readWrappingKey(
	ctx context.Context, req *logical.Request, _ *framework.FieldData,
) (*logical.Response, error) {
	const path = keyring.WrappingKeyStoragePath
	b.wrappingLock.Lock()
	defer b.wrappingLock.Unlock()
	key, err := b.wrappingKey.get(ctx, req.Storage, path)
	if err == nil && key == nil {
		defer b.wrappingKey.drop(path)
		key, err = keyring.CreateWrappingKey(ctx, req.Storage)
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

const wrappingKeyHelp = `
Returns the mount's RSA-4096 public key, which the first read creates. Wrap the private
key for ciphertext of keys/<name>/import with it, as vault transit import does.
`
