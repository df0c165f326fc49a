package engine

import (
	"bytes"
	"encoding/pem"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/bcgov/vault-plugin-bcgov-jwt/integrationtest/harness"
)

// withFile replaces {key} in the arguments of a command.
func withFile(command []string, key string) []string {
	args := make([]string, len(command))
	for i := range command {
		args[i] = strings.ReplaceAll(command[i], "{key}", key)
	}
	return args
}

// keyFiles holds what people have in their folders.
type keyFiles struct {
	rsa, fresh, public, certificate, encrypted, encryptedPKCS1, padded string

	rsa1024, threePrimes, exponent3, p224, secp256k1, x25519 string

	rsaDER, freshDER []byte
}

func newKeyFiles(t *testing.T) *keyFiles {
	t.Helper()
	dir := t.TempDir()
	file := func(name string) string { return filepath.Join(dir, name) }
	create := func(name string, args ...string) string {
		harness.OpenSSL(t, append(args, "-out", file(name))...)
		text, err := os.ReadFile(file(name))
		require.NoError(t, err)
		return string(text)
	}
	rsaKey := func(name string, options ...string) string {
		args := []string{"genpkey", "-algorithm", "RSA"}
		for _, option := range options {
			args = append(args, "-pkeyopt", option)
		}
		return create(name, args...)
	}
	ecKey := func(name, curve string) string {
		return create(name, "genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:"+curve)
	}
	k := &keyFiles{
		rsa:         rsaKey("rsa", "rsa_keygen_bits:2048"),
		fresh:       rsaKey("fresh", "rsa_keygen_bits:2048"),
		rsa1024:     rsaKey("rsa1024", "rsa_keygen_bits:1024"),
		threePrimes: rsaKey("threePrimes", "rsa_keygen_bits:2048", "rsa_keygen_primes:3"),
		exponent3:   rsaKey("exponent3", "rsa_keygen_bits:2048", "rsa_keygen_pubexp:3"),
		p224:        ecKey("p224", "P-224"),
		secp256k1:   ecKey("secp256k1", "secp256k1"),
		x25519:      create("x25519", "genpkey", "-algorithm", "X25519"),
	}
	k.public = harness.OpenSSL(t, "pkey", "-in", file("fresh"), "-pubout")
	k.certificate = harness.OpenSSL(t, "req", "-x509", "-new", "-key", file("fresh"),
		"-subj", "/CN=test", "-days", "1")
	k.encrypted = harness.OpenSSL(t, "pkcs8", "-topk8", "-in", file("fresh"),
		"-passout", "pass:secret")
	k.encryptedPKCS1 = harness.OpenSSL(t, "rsa", "-traditional", "-aes128",
		"-passout", "pass:secret", "-in", file("fresh"))
	k.rsaDER = harness.RecordKeyFile(t, file("rsa"))
	k.freshDER = harness.RecordKeyFile(t, file("fresh"))
	padded := &pem.Block{Type: "PRIVATE KEY", Bytes: append(bytes.Clone(k.freshDER), 0, 0)}
	k.padded = string(pem.EncodeToMemory(padded))
	return k
}
