package backend

import (
	"context"
	"strings"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"

	"github.com/bcgov/vault-plugin-bcgov-jwt/backend/internal/keyring"
)

func (b *backend) pathKeysImport() *framework.Path {
	sensitive := &framework.DisplayAttributes{Sensitive: true}
	return keyActionPath("import", map[string]*framework.FieldSchema{
		"private_key": {
			Type: framework.TypeString, DisplayAttrs: sensitive,
			Description: "The private key as PEM: PKCS#8, PKCS#1 or SEC 1, not encrypted.",
		},
		"ciphertext": {
			Type: framework.TypeString, DisplayAttrs: sensitive,
			Description: "The private key wrapped for wrapping_key, as `vault transit import` sends it.",
		},
		"hash_function": {
			Type: framework.TypeString, AllowedValues: allowed(keyring.HashFunctions()),
			Description: "The hash of the RSA-OAEP of ciphertext. Default: SHA256.",
		},
		"type": {
			Type: framework.TypeString, AllowedValues: allowed(keyring.Types()),
			Description: "What kind of key it is; must match. Default: what it is.",
		},
	}, &framework.PathOperation{
		Callback: b.importKey, Summary: "Make a key from a private key that was made elsewhere.",
		DisplayAttrs: &framework.DisplayAttributes{OperationVerb: "import", OperationSuffix: "key"},
	}, "Make a key from a private key that was made elsewhere.", importHelp)
}

func (b *backend) importKey(ctx context.Context, req *logical.Request, data *framework.FieldData) (*logical.Response, error) {
	name, err := nameIn(data, "name")
	if err != nil {
		return nil, err
	}
	material, err := b.materialIn(ctx, req)
	if err != nil {
		return nil, err
	}
	if keyType, err := keyTypeIn(req.Data, material.Type()); err != nil {
		return nil, err
	} else if keyType != material.Type() {
		return nil, userErrorf("type: the private key is %s, not %s", material.Type(), keyType)
	}
	keyID, err := material.KeyID()
	if err != nil {
		return nil, err
	}
	// The key id's lock keeps one private key from being imported under two names at once.
	defer lock(b.keyLocks, name, keyID)()
	if err := b.checkImportable(ctx, req, name, keyID); err != nil {
		return nil, err
	}
	key, err := keyring.NewFrom(material, name, defaultKeySettings(name, material.Type()), b.now())
	if err != nil {
		return nil, err
	}
	if err := b.storeNewKey(ctx, req.Storage, key); err != nil {
		return nil, err
	}
	return b.keyResponse(ctx, req, key, nextAfterImport(req.MountPoint, name))
}

// materialIn reads the private key of a request, in the clear or wrapped.
func (b *backend) materialIn(ctx context.Context, req *logical.Request) (*keyring.Material, error) {
	text, _ := req.Data["private_key"].(string)
	ciphertext, _ := req.Data["ciphertext"].(string)
	hashName, _ := req.Data["hash_function"].(string)
	switch {
	case text == "" && ciphertext == "":
		return nil, userErrorf("private_key: is missing; give a PEM (private_key=@client.key), or ciphertext")
	case text != "" && ciphertext != "":
		return nil, userErrorf("private_key: give either private_key or ciphertext, not both")
	case text != "" && hashName != "":
		return nil, userErrorf("hash_function: belongs to ciphertext, not to private_key")
	case text != "":
		material, err := keyring.ParsePEM(text)
		if err != nil {
			return nil, userErrorf("private_key: %w", err)
		}
		return material, nil
	}
	if hashName == "" {
		hashName = keyring.HashFunctions()[0]
	}
	newHash := keyring.HashFunction(hashName)
	if newHash == nil {
		return nil, userErrorf("hash_function: %s is none of %s", quoted(hashName), strings.Join(keyring.HashFunctions(), ", "))
	}
	wrappingKey, err := b.wrappingKey.get(ctx, req.Storage, keyring.WrappingKeyStoragePath)
	if err != nil {
		return nil, err
	}
	if wrappingKey == nil { // nothing can have been wrapped for it
		return nil, userErrorf("ciphertext: %w", keyring.ErrUnwrap)
	}
	material, err := wrappingKey.Unwrap(ciphertext, newHash)
	if err != nil {
		return nil, userErrorf("ciphertext: %w", err)
	}
	return material, nil
}

// checkImportable keeps an existing key from being given a private key that someone knows, and one private key from
// having two names.
func (b *backend) checkImportable(ctx context.Context, req *logical.Request, name, keyID string) error {
	key, err := keyring.Load(ctx, req.Storage, name)
	if err != nil {
		return err
	}
	if key != nil {
		return userErrorf("name: there is a key %q already, and a private key that was made elsewhere can only be a new key's first version: "+
			"import it under another name, or make the next version here with: vault write -f %skeys/%s/rotate", name, req.MountPoint, name)
	}
	other, err := keyring.NameByKeyID(ctx, req.Storage, keyID)
	if err != nil {
		return err
	}
	if other != "" {
		return userErrorf("private_key: this key is here already, as %q", other)
	}
	return nil
}

const importHelp = `
Makes a new key whose first version is a private key that was made elsewhere, such as the
pair that the API Services Portal makes for an API with plain "client-jwt" credentials:

    vault write bcgov-jwt/keys/myapi/import private_key=@client.key

Wrapped, so that it is not in the clear outside Vault's TLS, in transit's way:

    openssl pkcs8 -topk8 -nocrypt -in client.key -outform DER | base64 -w0 > key.b64
    vault transit import bcgov-jwt/keys/myapi @key.b64 type=rsa-4096

An existing key cannot be given an imported version. Delete the file afterwards, and
rotate to a key that was never outside where the portal allows that.
`
