package keyring

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1" //nolint:gosec // transit's import takes it for OAEP, where it is not broken
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

// WrappingKeyStoragePath is where the key is stored that imported keys are wrapped for.
const WrappingKeyStoragePath = "wrapping-key"

const wrappingKeyBits = 4096

// WrappingKey unwraps private keys on their way in, wire-compatible with transit's import.
type WrappingKey struct {
	redacted

	private *rsa.PrivateKey
}

type wrappingEntry struct {
	Format     int    `json:"format"`
	PrivateKey []byte `json:"private_key"` // PKCS#8
}

// LoadWrappingKey reads the mount's wrapping key; nil when none was made yet.
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
		return nil, errors.New("the stored wrapping key is no RSA key")
	}
	return &WrappingKey{private: private}, nil
}

// CreateWrappingKey makes and stores a wrapping key.
func CreateWrappingKey(ctx context.Context, s logical.Storage) (*WrappingKey, error) {
	private, err := rsa.GenerateKey(rand.Reader, wrappingKeyBits)
	if err != nil {
		return nil, fmt.Errorf("make the wrapping key: %w", err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return nil, fmt.Errorf("encode the wrapping key: %w", err)
	}
	if err := storage.Put(ctx, s, WrappingKeyStoragePath, wrappingEntry{Format: entryFormat, PrivateKey: pkcs8}); err != nil {
		return nil, err
	}
	return &WrappingKey{private: private}, nil
}

// PublicKeyPEM is what private keys are wrapped for.
func (w *WrappingKey) PublicKeyPEM() (string, error) {
	spki, err := spkiOf(w.private)
	return pemOf("PUBLIC KEY", spki), err
}

// ErrUnwrap is the one error for all that can be wrong with a wrapped key: telling more would help who tries.
var ErrUnwrap = errors.New("cannot be unwrapped: it must be base64 of an AES-256 key, encrypted for wrapping_key by RSA-OAEP with hash_function, " +
	"followed by the private key (PKCS#8 DER), wrapped with that AES key by AES-KWP (RFC 5649)")

// Unwrap opens what `vault transit import` sends: RSA-OAEP (RFC 8017 §7.1) of an AES key, then the private key in PKCS#8
// DER under that key (RFC 5649), in base64. Every failure is the same error.
func (w *WrappingKey) Unwrap(ciphertext string, newHash func() hash.Hash) (*Material, error) {
	if len(ciphertext) > maxPrivateKeySize {
		return nil, ErrUnwrap
	}
	wrapped, err := base64.StdEncoding.DecodeString(strings.TrimSpace(ciphertext))
	if err != nil || len(wrapped) <= w.private.Size() {
		return nil, ErrUnwrap
	}
	aesKey, err := rsa.DecryptOAEP(newHash(), rand.Reader, w.private, wrapped[:w.private.Size()], nil)
	if err != nil || len(aesKey) != 32 {
		return nil, ErrUnwrap
	}
	kwp, err := subtle.NewKWP(aesKey)
	if err != nil {
		return nil, ErrUnwrap
	}
	pkcs8, err := kwp.Unwrap(wrapped[w.private.Size():])
	if err != nil {
		return nil, ErrUnwrap
	}
	material, err := ParsePKCS8(pkcs8)
	if errors.Is(err, errNotParsed) {
		return nil, ErrUnwrap
	}
	return material, err
}

// HashFunctions are transit's names for the OAEP hash, the default first.
func HashFunctions() []string { return []string{"SHA256", "SHA1", "SHA224", "SHA384", "SHA512"} }

// HashFunction returns the hash of one of those names, or nil.
func HashFunction(name string) func() hash.Hash {
	return map[string]func() hash.Hash{
		"SHA1": sha1.New, "SHA224": sha256.New224, "SHA256": sha256.New, "SHA384": sha512.New384, "SHA512": sha512.New,
	}[strings.ToUpper(name)]
}
