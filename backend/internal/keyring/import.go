package keyring

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1" //nolint:gosec // transit's import accepts it for OAEP, where it is not broken
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"encoding/asn1"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"hash"
	"strings"
	"unicode"

	"github.com/bcgov/vault-plugin-bcgov-jwt/backend/internal/storage"
	"github.com/hashicorp/vault/sdk/logical"
	"github.com/tink-crypto/tink-go/v2/kwp/subtle"
)

// maxPrivateKeySize is far above what the largest accepted key needs, in any encoding.
const maxPrivateKeySize = 16 << 10

// errNotParsed distinguishes input that is not a key from a key that is not accepted.
var errNotParsed = errors.New("it is damaged")

// Material is a private key for a new version: generated, or imported and checked.
type Material struct {
	redacted

	private crypto.Signer
	keyType Type
	origin  Origin
}

// Type returns the type of the key pair.
func (m *Material) Type() Type { return m.keyType }

// KeyID returns the kid that the imported version will have.
func (m *Material) KeyID() (string, error) {
	spki, err := spkiOf(m.private)
	return keyIDOf(spki), err
}

// ParsePEM parses one unencrypted private key in PKCS#8 (RFC 5958), PKCS#1 (RFC 8017 appendix
// A.1.2) or SEC 1 (RFC 5915) form. Its errors say what the text is instead, and quote none of it.
func ParsePEM(text string) (*Material, error) {
	if len(text) > maxPrivateKeySize {
		return nil, fmt.Errorf("is %d bytes long; the maximum is %d", len(text), maxPrivateKeySize)
	}
	block, rest := pem.Decode([]byte(text))
	if block != nil && block.Type == "EC PARAMETERS" { // openssl ecparam writes it before the key
		block, rest = pem.Decode(rest)
	}
	switch {
	case block == nil && len(text) < 256 && !strings.ContainsFunc(text, unicode.IsSpace):
		return nil, errors.New("is not PEM; to pass a file, put @ before its name, such as " +
			"private_key=@client.key")
	case block == nil:
		return nil, errors.New("is not PEM: it must be one block, such as " +
			"-----BEGIN PRIVATE KEY-----, with its line breaks")
	case len(bytes.TrimSpace(rest)) > 0:
		return nil, errors.New("has data after the first PEM block: it must be one private key")
	}
	private, err := parseBlock(block)
	if err != nil {
		return nil, err
	}
	return newMaterial(private)
}

func parseBlock(block *pem.Block) (any, error) {
	if block.Headers["DEK-Info"] != "" || block.Type == "ENCRYPTED PRIVATE KEY" {
		return nil, errors.New("is encrypted; decrypt it with: " +
			"openssl pkey -in client.key -out plain.key")
	}
	var parse func([]byte) (any, error)
	switch block.Type {
	case "PRIVATE KEY":
		parse = x509.ParsePKCS8PrivateKey
	case "RSA PRIVATE KEY":
		parse = func(der []byte) (any, error) { return x509.ParsePKCS1PrivateKey(der) }
	case "EC PRIVATE KEY":
		parse = func(der []byte) (any, error) { return x509.ParseECPrivateKey(der) }
	case "OPENSSH PRIVATE KEY":
		return nil, errors.New("is in OpenSSH's format; convert a copy of an RSA or EC key " +
			`with: ssh-keygen -p -N "" -m PKCS8 -f copy.key`)
	case "PUBLIC KEY", "RSA PUBLIC KEY":
		return nil, errors.New("is a public key; pass its private key")
	case "CERTIFICATE":
		return nil, errors.New("is a certificate; pass its private key")
	default:
		return nil, fmt.Errorf("is a PEM block of type %.40q; accepted types are PRIVATE KEY, "+
			"RSA PRIVATE KEY and EC PRIVATE KEY", block.Type)
	}
	if !oneDERValue(block.Bytes) {
		return nil, fmt.Errorf("has a PEM block that is not one DER value: %w", errNotParsed)
	}
	private, err := parse(block.Bytes)
	if err != nil {
		// The cause can reveal contents of the key.
		return nil, fmt.Errorf("is not a valid %s block: %w, or its type is not supported "+
			"(accepted types are %s)", block.Type, errNotParsed, typeNames())
	}
	return private, nil
}

func oneDERValue(der []byte) bool {
	rest, err := asn1.Unmarshal(der, new(asn1.RawValue))
	return err == nil && len(rest) == 0
}

// parsePKCS8 is ParsePEM for PKCS#8 in DER.
func parsePKCS8(der []byte) (*Material, error) {
	private, err := parseBlock(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
	if err != nil {
		return nil, err
	}
	return newMaterial(private)
}

func newMaterial(private any) (*Material, error) {
	switch key := private.(type) {
	case *rsa.PrivateKey:
		keyType, err := rsaType(key)
		return &Material{private: key, keyType: keyType, origin: Imported}, err
	case *ecdsa.PrivateKey:
		keyType, err := curveType(key.Curve)
		return &Material{private: key, keyType: keyType, origin: Imported}, err
	case ed25519.PrivateKey:
		return &Material{private: key, keyType: ED25519, origin: Imported}, nil
	}
	return nil, fmt.Errorf("is not a key that can sign; accepted types are %s", typeNames())
}

func curveType(curve elliptic.Curve) (Type, error) {
	switch curve {
	case elliptic.P256():
		return ECDSAP256, nil
	case elliptic.P384():
		return ECDSAP384, nil
	case elliptic.P521():
		return ECDSAP521, nil
	}
	return "", fmt.Errorf("is on the curve %s; accepted curves are P-256, P-384 and P-521",
		curve.Params().Name)
}

func rsaType(key *rsa.PrivateKey) (Type, error) {
	if len(key.Primes) != 2 {
		return "", fmt.Errorf("is an RSA key of %d primes; it must have two", len(key.Primes))
	}
	// An e below 65537 is weak (NIST SP 800-56B); x509 parses none above 31 bits.
	if key.E < 65537 {
		return "", fmt.Errorf("is an RSA key with the public exponent %d; "+
			"it must be at least 65537", key.E)
	}
	keyType := map[int]Type{2048: RSA2048, 3072: RSA3072, 4096: RSA4096}[key.N.BitLen()]
	if keyType == "" {
		return "", fmt.Errorf("is an RSA key of %d bits; accepted sizes are 2048, 3072 and 4096",
			key.N.BitLen())
	}
	if err := key.Validate(); err != nil {
		return "", errors.New("is an RSA key with inconsistent parameters")
	}
	// FIPS 186-5 §5.1 and appendix A.1. Validate checks neither.
	for _, prime := range key.Primes {
		if 2*prime.BitLen() != key.N.BitLen() || !prime.ProbablyPrime(20) {
			return "", errors.New("is not a sound RSA key: its factors are not two primes of " +
				"half its length")
		}
	}
	return keyType, nil
}

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
