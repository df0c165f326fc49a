package harness

import (
	"bytes"
	"crypto"
	"crypto/aes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"os/exec"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/tink-crypto/tink-go/v2/kwp/subtle"
)

const aesKeySize = 2 * aes.BlockSize

// OpenSSL runs openssl and returns its standard output.
func OpenSSL(t *testing.T, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "openssl", args...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	output, err := cmd.Output()
	require.NoError(t, err, "openssl %s: %s", strings.Join(args, " "), stderr.String())
	return string(output)
}

// RecordKeyFile records the private key in a file and returns it as PKCS#8 DER.
func RecordKeyFile(t *testing.T, file string) []byte {
	t.Helper()
	der := []byte(OpenSSL(t, "pkcs8", "-topk8", "-nocrypt", "-in", file, "-outform", "DER"))
	key, err := parsePKCS8(der)
	require.NoError(t, err)
	require.NoError(t, Detector().AddPrivateKey(key))
	return der
}

// WrapKey wraps a private key as `vault transit import` does, and records the ciphertext.
func (m *Mount) WrapKey(t *testing.T, pkcs8 []byte) (ciphertext string) {
	t.Helper()
	block, _ := pem.Decode([]byte(m.Read(t, "wrapping_key").Text(t, "public_key")))
	require.NotNil(t, block)
	parsed, err := x509.ParsePKIXPublicKey(block.Bytes)
	require.NoError(t, err)
	wrappingKey, ok := parsed.(*rsa.PublicKey)
	require.True(t, ok)
	require.Equal(t, 4096, wrappingKey.N.BitLen())
	aesKey := make([]byte, aesKeySize)
	_, _ = rand.Read(aesKey)
	kwp, err := subtle.NewKWP(aesKey)
	require.NoError(t, err)
	wrapped, err := kwp.Wrap(pkcs8)
	require.NoError(t, err)
	sealed, err := rsa.EncryptOAEP(sha256.New(), rand.Reader, wrappingKey, aesKey, nil)
	require.NoError(t, err)
	ciphertext = base64.StdEncoding.EncodeToString(append(sealed, wrapped...))
	Detector().AddToken(kindWrappedKey, ciphertext)
	return ciphertext
}

// PublicPEM returns the public half of a private key as PEM.
func PublicPEM(t *testing.T, key crypto.Signer) string {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	require.NoError(t, err)
	return string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
}

// NewPrivateKey creates a P-256 key outside Vault, records it, and returns it also as PEM.
func NewPrivateKey(t *testing.T) (key crypto.Signer, privatePEM string) {
	t.Helper()
	created, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	require.NoError(t, Detector().AddPrivateKey(created))
	der, err := x509.MarshalPKCS8PrivateKey(created)
	require.NoError(t, err)
	return created, string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
}
