package keyring

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1" //nolint:gosec // transit's import accepts it for OAEP, where it is not broken
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"hash"
	"strings"

	"github.com/hashicorp/vault/sdk/logical"
	"github.com/tink-crypto/tink-go/v2/kwp/subtle"

	"github.com/bcgov/vault-plugin-bcgov-jwt/backend/internal/storage"
)

// WrappingKeyStoragePath is the storage path of the mount's wrapping key.
const WrappingKeyStoragePath = "wrapping-key"

// WrappingKeyType is the type of the wrapping key.
const WrappingKeyType = RSA4096

// WrappingKey unwraps imported private keys, wire-compatible with transit's import.
type WrappingKey struct {
	redacted

	private *rsa.PrivateKey
}

type wrappingEntry struct {
	Format     int    `json:"format"`
	PrivateKey []byte `json:"private_key"` // PKCS#8
}

// LoadWrappingKey returns the mount's wrapping key, or nil before it is first created.
func LoadWrappingKey(ctx context.Context, s logical.Storage, _ string) (*WrappingKey, error) {
	var entry wrappingEntry
	found, err := storage.Get(ctx, s, WrappingKeyStoragePath, entryFormat, &entry)
	if err != nil {
		return nil, fmt.Errorf("the wrapping key: %w", err)
	}
	if !found {
		return nil, nil
	}
	parsed, err := x509.ParsePKCS8PrivateKey(entry.PrivateKey)
	if err != nil {
		return nil, errors.New("the stored wrapping key cannot be parsed")
	}
	private, ok := parsed.(*rsa.PrivateKey)
	if !ok {
		return nil, errors.New("the stored wrapping key is not an RSA key")
	}
	return &WrappingKey{private: private}, nil
}

// CreateWrappingKey stores a private key of WrappingKeyType as the wrapping key.
func CreateWrappingKey(
	ctx context.Context, s logical.Storage, material *Material,
) (*WrappingKey, error) {
	private, ok := material.private.(*rsa.PrivateKey)
	if !ok {
		return nil, errors.New("the new wrapping key is not an RSA key")
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return nil, fmt.Errorf("encode the wrapping key: %w", err)
	}
	entry := wrappingEntry{Format: entryFormat, PrivateKey: pkcs8}
	if err := storage.Put(ctx, s, WrappingKeyStoragePath, entry); err != nil {
		return nil, err
	}
	return &WrappingKey{private: private}, nil
}

// PublicKeyPEM returns the public key that private keys are wrapped with.
func (w *WrappingKey) PublicKeyPEM() (string, error) {
	spki, err := spkiOf(w.private)
	return pemOf("PUBLIC KEY", spki), err
}

// ErrUnwrap is the one error for any flaw of a wrapped key: more detail would help an attacker.
var ErrUnwrap = errors.New("cannot be unwrapped: it must be the base64 of an AES-256 key " +
	"encrypted with the wrapping key (RSA-OAEP with hash_function), followed by the private key " +
	"(PKCS#8 DER) wrapped with that AES key (AES-KWP, RFC 5649)")

// Unwrap unwraps what transit's import sends, in base64: an AES key encrypted with RSA-OAEP
// (RFC 8017 §7.1), then the private key in PKCS#8 DER wrapped with it (RFC 5649).
func (w *WrappingKey) Unwrap(ciphertext string, newHash func() hash.Hash) (*Material, error) {
	if len(ciphertext) > maxPrivateKeySize {
		return nil, ErrUnwrap
	}
	wrapped, err := base64.StdEncoding.DecodeString(strings.TrimSpace(ciphertext))
	if err != nil || len(wrapped) <= w.private.Size() {
		return nil, ErrUnwrap
	}
	encrypted, wrapped := wrapped[:w.private.Size()], wrapped[w.private.Size():]
	aesKey, err := rsa.DecryptOAEP(newHash(), rand.Reader, w.private, encrypted, nil)
	if err != nil || len(aesKey) != 32 {
		return nil, ErrUnwrap
	}
	kwp, err := subtle.NewKWP(aesKey)
	if err != nil {
		return nil, ErrUnwrap
	}
	pkcs8, err := kwp.Unwrap(wrapped)
	if err != nil {
		return nil, ErrUnwrap
	}
	material, err := parsePKCS8(pkcs8)
	if errors.Is(err, errNotParsed) {
		return nil, ErrUnwrap
	}
	return material, err
}

// HashFunctions returns transit's names for the OAEP hash, the default first.
func HashFunctions() []string { return []string{"SHA256", "SHA1", "SHA224", "SHA384", "SHA512"} }

// HashFunction returns the hash of one of those names, or nil.
func HashFunction(name string) func() hash.Hash {
	return map[string]func() hash.Hash{
		"SHA1": sha1.New, "SHA224": sha256.New224, "SHA256": sha256.New,
		"SHA384": sha512.New384, "SHA512": sha512.New,
	}[strings.ToUpper(name)]
}
