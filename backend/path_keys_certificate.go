package backend

import (
	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"

	"github.com/bcgov/vault-plugin-bcgov-jwt/backend/internal/keyring"
)

func (b *backend) pathKeysCertificate() *framework.Path {
	return keyPath("certificate", help("keys-certificate"),
		map[string]*framework.FieldSchema{"version": {
			Type: framework.TypeInt, Query: true,
			Description: "Number of the version. Default: the one to register now.",
		}},
		logical.ReadOperation,
		operation(b.keyCallback(b.readCertificate), "Read a version's certificate and public key.",
			okResponse("The public cert.", responseFields("public cert")),
			"read", "key-certificate"))
}

func (b *backend) pathKeysJWKS() *framework.Path {
	return keyPath("jwks", help("keys-jwks"), nil, logical.ReadOperation,
		operation(b.keyCallback(b.readKeySet), "Read a key's JSON Web Key Set.",
			okResponse("The key set.", responseFields("key set")), "read", "key-set"))
}

func publicKeyResponse(version *keyring.Version) *logical.Response {
	return &logical.Response{Data: map[string]any{
		"version":            version.Number(),
		"public_key":         version.PublicKeyPEM(),
		"certificate":        version.CertificatePEM(),
		"certificate_sha256": version.CertificateSHA256(),
		"key_id":             version.KeyID(),
	}}
}

func (b *backend) readCertificate(
	data *framework.FieldData, key *keyring.Key,
) (*logical.Response, error) {
	version, err := b.versionIn(data, key)
	if err != nil {
		return nil, err
	}
	return publicKeyResponse(version), nil
}

func (b *backend) readKeySet(
	_ *framework.FieldData, key *keyring.Key,
) (*logical.Response, error) {
	jwks, err := key.JWKS(b.now())
	if err != nil {
		return nil, err
	}
	return &logical.Response{Data: map[string]any{"jwks": jwks}}, nil
}
