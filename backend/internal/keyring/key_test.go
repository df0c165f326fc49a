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

func start() time.Time { return time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC) }

func testKey(t *testing.T, keyType Type) *Key {
	t.Helper()
	key, err := New("myapi", keyType, Settings{CommonName: "myapi", Algorithm: keyType.DefaultAlgorithm(), SendKeyID: true}, start())
	require.NoError(t, err)
	return key
}

// quickTypes spares tests that are not about RSA the time that larger RSA keys take to make.
func quickTypes() []Type { return []Type{RSA2048, ECDSAP256, ECDSAP384, ECDSAP521, ED25519} }

func TestNewKeyIsActiveAtOnceWithOneVersion(t *testing.T) {
	t.Parallel()
	for _, keyType := range Types() {
		t.Run(string(keyType), func(t *testing.T) {
			t.Parallel()
			key := testKey(t, keyType)
			require.Equal(t, "myapi", key.Name())
			require.Equal(t, keyType, key.Type())
			require.GreaterOrEqual(t, len(key.ID()), 26, "128 random bits in base32")
			require.Len(t, key.Versions(), 1)
			require.Equal(t, 1, key.Active(start()).Number())
			require.Nil(t, key.Staged(start()))
			require.Equal(t, Generated, key.Active(start()).Origin())
		})
	}
}

func TestTwoKeysOfOneNameHaveDifferentIDs(t *testing.T) {
	t.Parallel()
	first, second := testKey(t, ED25519), testKey(t, ED25519)
	require.NotEqual(t, first.ID(), second.ID())
}

func TestUnknownTypeMakesNoKey(t *testing.T) {
	t.Parallel()
	_, err := New("myapi", "rsa-1024", Settings{}, start())
	require.ErrorContains(t, err, `unknown key type "rsa-1024"`)
	require.False(t, Type("rsa-1024").Valid())
	require.Empty(t, Type("rsa-1024").Algorithms())
}

func TestAlgorithmMustFitTheType(t *testing.T) {
	t.Parallel()
	for _, keyType := range quickTypes() {
		key := testKey(t, keyType)
		for _, other := range Types() {
			for _, algorithm := range append(other.Algorithms(), jose.HS256, "none") {
				fits := false
				for _, own := range keyType.Algorithms() {
					fits = fits || own == algorithm
				}
				_, err := key.WithSettings(Settings{Algorithm: algorithm})
				require.Equal(t, fits, err == nil, "%s with %s: %v", keyType, algorithm, err)
			}
		}
	}
}

func TestWithSettingsLeavesTheOldSnapshotAlone(t *testing.T) {
	t.Parallel()
	before := testKey(t, ECDSAP256)
	after, err := before.WithSettings(Settings{ClientID: "a", Algorithm: jose.ES256, SendKeyID: false})
	require.NoError(t, err)
	require.Empty(t, before.Settings().ClientID)
	require.Equal(t, before.ID(), after.ID())

	signed, err := before.Active(start()).Signer().Sign([]byte("{}"))
	require.NoError(t, err)
	require.Equal(t, before.Active(start()).KeyID(), header(t, signed).KeyID)
	signed, err = after.Active(start()).Signer().Sign([]byte("{}"))
	require.NoError(t, err)
	require.Empty(t, header(t, signed).KeyID)
}

func TestAudienceIsTheIssuerUnlessSet(t *testing.T) {
	t.Parallel()
	key, err := testKey(t, ED25519).WithSettings(Settings{Issuer: "https://idp.example/realm", Algorithm: jose.EdDSA})
	require.NoError(t, err)
	require.Equal(t, "https://idp.example/realm", key.Audience())
	key, err = key.WithSettings(Settings{Issuer: "https://idp.example/realm", Audience: "https://idp.example/token", Algorithm: jose.EdDSA})
	require.NoError(t, err)
	require.Equal(t, "https://idp.example/token", key.Audience())
}

func TestStateFollowsStoredInstants(t *testing.T) {
	t.Parallel()
	at := func(offset time.Duration) time.Time { return start().Add(offset) }
	never := time.Time{}
	for name, test := range map[string]struct {
		activations []time.Time
		states      []State // of versions 1, 2, …
	}{
		"one version":                              {[]time.Time{at(-time.Hour)}, []State{Active}},
		"activated this very instant":              {[]time.Time{at(0)}, []State{Active}},
		"a newer one without a date is staged":     {[]time.Time{at(-time.Hour), never}, []State{Active, Staged}},
		"a newer one of the future is staged":      {[]time.Time{at(-time.Hour), at(time.Second)}, []State{Active, Staged}},
		"a newer one whose time has come is it":    {[]time.Time{at(-time.Hour), at(-time.Second)}, []State{Retired, Active}},
		"the newest whose time has come is active": {[]time.Time{at(-time.Hour), at(-time.Minute), never}, []State{Retired, Active, Staged}},
		"the older one again":                      {[]time.Time{at(-time.Hour), never, never}, []State{Active, Staged, Staged}},
		"a clock that was set back":                {[]time.Time{at(time.Hour), at(2 * time.Hour)}, []State{Active, Staged}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			key := &Key{}
			for i, activation := range test.activations {
				key.versions = append(key.versions, &Version{number: i + 1, activationTime: activation})
			}
			for i, v := range key.versions {
				require.Equal(t, test.states[i], key.State(v, start()), "version %d", v.number)
			}
			newest := key.versions[len(key.versions)-1]
			if key.State(newest, start()) == Staged {
				require.Equal(t, newest, key.Staged(start()))
			} else {
				require.Nil(t, key.Staged(start()))
			}
		})
	}
}

func TestPrintingShowsNothingOfAKey(t *testing.T) {
	t.Parallel()
	for _, keyType := range quickTypes() {
		key := testKey(t, keyType)
		version := key.Active(start())
		for _, value := range []any{key, *key, version, *version, version.Signer(), *version.Signer()} {
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

func TestPublicMaterial(t *testing.T) {
	t.Parallel()
	for _, keyType := range Types() {
		t.Run(string(keyType), func(t *testing.T) {
			t.Parallel()
			key := testKey(t, keyType)
			v := key.Active(start())
			require.True(t, strings.HasPrefix(v.PublicKeyPEM(), "-----BEGIN PUBLIC KEY-----\n"))
			require.True(t, strings.HasSuffix(v.PublicKeyPEM(), "-----END PUBLIC KEY-----\n"))
			block, rest := pem.Decode([]byte(v.PublicKeyPEM()))
			require.Empty(t, rest, "one block alone")
			public, err := x509.ParsePKIXPublicKey(block.Bytes)
			require.NoError(t, err)

			block, rest = pem.Decode([]byte(v.CertificatePEM()))
			require.Empty(t, rest)
			certificate, err := x509.ParseCertificate(block.Bytes)
			require.NoError(t, err)
			require.Equal(t, public, certificate.PublicKey)
			require.NoError(t, certificate.CheckSignature(certificate.SignatureAlgorithm, certificate.RawTBSCertificate, certificate.Signature))
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

func TestKeyIDIsTheSHA256OfThePublicKey(t *testing.T) {
	t.Parallel()
	// openssl pkey -pubout -outform DER | openssl dgst -sha256 -binary | base64, in base64url
	spki, err := base64.StdEncoding.DecodeString("MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEbkuY3UxRlyBG6FHKVp8xo/Mg4FHwRwcAMe1KxMWsJQ4mF/Vke42rOlCfje5ylECfg1gyWTh9fBcb6Sfaw9lnug==")
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

func TestEveryAlgorithmOfEveryTypeVerifies(t *testing.T) {
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

				signed, err := jose.ParseSignedCompact(compact, []jose.SignatureAlgorithm{algorithm})
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
