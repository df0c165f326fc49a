package keyring

import (
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/stretchr/testify/require"
)

func TestVersion_PublishesPublicKeyCertificateAndJWKS(t *testing.T) {
	t.Parallel()
	for _, keyType := range Types() {
		t.Run(string(keyType), func(t *testing.T) {
			t.Parallel()
			key := testKey(t, keyType)
			v := key.Active(start())
			require.True(t, strings.HasPrefix(v.PublicKeyPEM(), "-----BEGIN PUBLIC KEY-----\n"))
			require.True(t, strings.HasSuffix(v.PublicKeyPEM(), "-----END PUBLIC KEY-----\n"))
			block, rest := pem.Decode([]byte(v.PublicKeyPEM()))
			require.Empty(t, rest, "one block only")
			public, err := x509.ParsePKIXPublicKey(block.Bytes)
			require.NoError(t, err)

			block, rest = pem.Decode([]byte(v.CertificatePEM()))
			require.Empty(t, rest)
			certificate, err := x509.ParseCertificate(block.Bytes)
			require.NoError(t, err)
			require.Equal(t, public, certificate.PublicKey)
			require.NoError(t, certificate.CheckSignature(certificate.SignatureAlgorithm,
				certificate.RawTBSCertificate, certificate.Signature))
			require.Equal(t, "myapi", certificate.Subject.CommonName)
			require.Equal(t, start().Add(-5*time.Minute), certificate.NotBefore)
			require.Equal(t, start().Add(10*365*24*time.Hour), certificate.NotAfter)
			require.Equal(t, x509.KeyUsageDigitalSignature, certificate.KeyUsage)
			require.True(t, certificate.BasicConstraintsValid)
			require.False(t, certificate.IsCA)
			require.Len(t, v.CertificateSHA256(), 64)

			document, err := key.JWKS(start())
			require.NoError(t, err)
			var set jose.JSONWebKeySet
			require.NoError(t, json.Unmarshal([]byte(document), &set))
			require.Len(t, set.Keys, 1)
			require.Equal(t, v.KeyID(), set.Keys[0].KeyID)
			require.Equal(t, "sig", set.Keys[0].Use)
			require.Equal(t, public, set.Keys[0].Key)
			require.True(t, set.Keys[0].IsPublic())
			if strings.HasPrefix(string(keyType), "rsa") {
				require.Empty(t, set.Keys[0].Algorithm, "an RSA key serves several algorithms")
			} else {
				require.Equal(t, string(keyType.DefaultAlgorithm()), set.Keys[0].Algorithm)
			}
		})
	}
}

func TestVersion_KeyIDIsSHA256OfPublicKey(t *testing.T) {
	t.Parallel()
	// openssl pkey -pubout -outform DER | openssl dgst -sha256 -binary | base64, in base64url
	spki, err := base64.StdEncoding.DecodeString(
		"MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEbkuY3UxRlyBG6FHKVp8xo/Mg4FHw" +
			"RwcAMe1KxMWsJQ4mF/Vke42rOlCfje5ylECfg1gyWTh9fBcb6Sfaw9lnug==")
	require.NoError(t, err)
	require.Equal(t, "GOiTvnCY_oU5PNhUeRVORXt3OtT_sLa-pMYgAFfhPDk", keyIDOf(spki))
}

func header(t *testing.T, compact string) jose.Header {
	t.Helper()
	signed, err := jose.ParseSignedCompact(compact, allAlgorithms())
	require.NoError(t, err)
	return signed.Signatures[0].Protected
}

func allAlgorithms() []jose.SignatureAlgorithm {
	var all []jose.SignatureAlgorithm
	for _, keyType := range Types() {
		all = append(all, keyType.Algorithms()...)
	}
	return all
}

func TestSigner_EveryAlgorithmVerifies(t *testing.T) {
	t.Parallel()
	for _, keyType := range Types() {
		t.Run(string(keyType), func(t *testing.T) {
			t.Parallel()
			key := testKey(t, keyType)
			for _, algorithm := range keyType.Algorithms() {
				key, err := key.WithSettings(Settings{Algorithm: algorithm, SendKeyID: true})
				require.NoError(t, err)
				signer := key.Active(start()).Signer()
				compact, err := signer.Sign([]byte(`{"a":1}`))
				require.NoError(t, err)

				accepted := []jose.SignatureAlgorithm{algorithm}
				signed, err := jose.ParseSignedCompact(compact, accepted)
				require.NoError(t, err)
				payload, err := signed.Verify(key.Active(start()).private.Public())
				require.NoError(t, err)
				require.JSONEq(t, `{"a":1}`, string(payload))
				require.Equal(t, signer.KeyID(), header(t, compact).KeyID)
				require.Equal(t, "JWT", header(t, compact).ExtraHeaders[jose.HeaderType])
			}
		})
	}
}

func TestRedacted_PrintsAndMarshalsNothingOfAKey(t *testing.T) {
	t.Parallel()
	for _, keyType := range Types() {
		key := testKey(t, keyType)
		version := key.Active(start())
		for _, value := range []any{
			key, *key, version, *version, version.Signer(), *version.Signer(),
			Material{},
			&Material{},
			WrappingKey{},
			&WrappingKey{},
		} {
			for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
				require.Equal(t, "[private]", fmt.Sprintf(verb, value), "%s of %T", verb, value)
			}
			holder := struct{ Held any }{value}
			require.Equal(t, "{[private]}", fmt.Sprintf("%v", holder))
			encoded, err := json.Marshal(value)
			require.NoError(t, err)
			require.Equal(t, `"[private]"`, string(encoded))
		}
	}
}
