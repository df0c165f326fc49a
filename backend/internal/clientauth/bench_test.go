package clientauth

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"testing"
	"time"

	"github.com/bcgov/vault-plugin-bcgov-jwt/backend/internal/keyring"
	"github.com/bcgov/vault-plugin-bcgov-jwt/integrationtest/bench"
	"github.com/stretchr/testify/require"
)

func sign(signer Signer) error {
	const issuer = "https://idp.example/realms/apigw"
	_, err := NewAssertion(signer, "gwa-client", issuer, time.Now(), 45*time.Second)
	return err
}

// BenchmarkAssertionAgainstRawSignature has the goal of a ratio of at most 1.05.
func BenchmarkAssertionAgainstRawSignature(b *testing.B) {
	signer := newVersion(b, keyring.RSA2048).Signer()
	raw, err := rsa.GenerateKey(rand.Reader, 2048)
	require.NoError(b, err)
	digest := sha256.Sum256(make([]byte, 300))
	bench.Compare(b,
		func() error {
			return sign(signer)
		},
		func() error {
			_, err := rsa.SignPKCS1v15(rand.Reader, raw, crypto.SHA256, digest[:])
			return err
		})
}

// BenchmarkAssertion counts allocations for each key type.
func BenchmarkAssertion(b *testing.B) {
	for _, keyType := range keyring.Types() {
		b.Run(string(keyType), func(b *testing.B) {
			signer := newVersion(b, keyType).Signer()
			b.ReportAllocs()
			for b.Loop() {
				if err := sign(signer); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
