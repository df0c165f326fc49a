package keyring

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"fmt"
	"slices"
	"strings"

	"github.com/go-jose/go-jose/v4"
)

// Type is the type of a key pair, named as in Vault's transit engine.
type Type string

// The key types. RSA keys sign RS* and PS* (RFC 7518 §3.3, §3.5), EC keys the ES* of their curve
// (RFC 7518 §3.4), Ed25519 keys EdDSA (RFC 8037 §3.1).
const (
	RSA2048   Type = "rsa-2048"
	RSA3072   Type = "rsa-3072"
	RSA4096   Type = "rsa-4096"
	ECDSAP256 Type = "ecdsa-p256"
	ECDSAP384 Type = "ecdsa-p384"
	ECDSAP521 Type = "ecdsa-p521"
	ED25519   Type = "ed25519"
)

// Types returns all key types, the default first.
func Types() []Type {
	return []Type{RSA2048, RSA3072, RSA4096, ECDSAP256, ECDSAP384, ECDSAP521, ED25519}
}

// Valid reports whether t is one of Types.
func (t Type) Valid() bool {
	return slices.Contains(Types(), t)
}

// Algorithms returns the JWS algorithms of this type, the default first; none for an unknown type.
func (t Type) Algorithms() []jose.SignatureAlgorithm {
	switch t {
	case RSA2048, RSA3072, RSA4096:
		return []jose.SignatureAlgorithm{
			jose.RS256, jose.RS384, jose.RS512, jose.PS256, jose.PS384, jose.PS512,
		}
	case ECDSAP256:
		return []jose.SignatureAlgorithm{jose.ES256}
	case ECDSAP384:
		return []jose.SignatureAlgorithm{jose.ES384}
	case ECDSAP521:
		return []jose.SignatureAlgorithm{jose.ES512}
	case ED25519:
		return []jose.SignatureAlgorithm{jose.EdDSA}
	}
	return nil
}

// DefaultAlgorithm returns the first of Algorithms.
func (t Type) DefaultAlgorithm() jose.SignatureAlgorithm {
	return t.Algorithms()[0]
}

// Generate generates a private key of this type. RSA takes up to seconds: hold no lock.
func Generate(t Type) (*Material, error) {
	private, err := t.generate()
	if err != nil {
		return nil, fmt.Errorf("generate a private key: %w", err)
	}
	return &Material{private: private, keyType: t, origin: Generated}, nil
}

func (t Type) generate() (crypto.Signer, error) {
	switch t {
	case RSA2048:
		return rsa.GenerateKey(rand.Reader, 2048)
	case RSA3072:
		return rsa.GenerateKey(rand.Reader, 3072)
	case RSA4096:
		return rsa.GenerateKey(rand.Reader, 4096)
	case ECDSAP256:
		return ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case ECDSAP384:
		return ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	case ECDSAP521:
		return ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	case ED25519:
		_, private, err := ed25519.GenerateKey(rand.Reader)
		return private, err
	}
	return nil, fmt.Errorf("unknown key type %q", t)
}

func typeNames() string {
	return strings.Join(strings.Fields(strings.Trim(fmt.Sprint(Types()), "[]")), ", ")
}
