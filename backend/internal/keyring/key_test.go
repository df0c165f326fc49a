package keyring

import (
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/stretchr/testify/require"
)

func start() time.Time { return time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC) }

func testKey(t *testing.T, keyType Type) *Key {
	t.Helper()
	settings := Settings{
		CommonName: "myapi", Algorithm: keyType.DefaultAlgorithm(), SendKeyID: true,
	}
	key, err := New(generate(t, keyType), "myapi", settings, start())
	require.NoError(t, err)
	return key
}

// rsaMaterial serves all tests: RSA keys take long to generate.
var rsaMaterial = map[Type]func() (*Material, error){
	RSA2048: sync.OnceValues(func() (*Material, error) { return Generate(RSA2048) }),
	RSA3072: sync.OnceValues(func() (*Material, error) { return Generate(RSA3072) }),
	RSA4096: sync.OnceValues(func() (*Material, error) { return Generate(RSA4096) }),
}

func generate(t *testing.T, keyType Type) *Material {
	t.Helper()
	generate, shared := rsaMaterial[keyType]
	if !shared {
		generate = func() (*Material, error) { return Generate(keyType) }
	}
	material, err := generate()
	require.NoError(t, err)
	return material
}

func TestKey_NewHasOneActiveVersion(t *testing.T) {
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

func TestKey_IDDiffersForKeysOfOneName(t *testing.T) {
	t.Parallel()
	first, second := testKey(t, ED25519), testKey(t, ED25519)
	require.NotEqual(t, first.ID(), second.ID())
}

func TestKey_UnknownTypeIsAnError(t *testing.T) {
	t.Parallel()
	_, err := Generate("rsa-1024")
	require.ErrorContains(t, err, `unknown key type "rsa-1024"`)
	require.False(t, Type("rsa-1024").Valid())
	require.Empty(t, Type("rsa-1024").Algorithms())
}

func TestKey_AlgorithmMustFitType(t *testing.T) {
	t.Parallel()
	for _, keyType := range Types() {
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

func TestKey_WithSettingsLeavesOriginalUnchanged(t *testing.T) {
	t.Parallel()
	before := testKey(t, ECDSAP256)
	after, err := before.WithSettings(Settings{ClientID: "a", Algorithm: jose.ES256})
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

func TestKey_AcceptanceBelongsToClient(t *testing.T) {
	t.Parallel()
	key := testKey(t, ED25519).Accept(1, start())
	settings := key.Settings()
	settings.AssertionTTL = time.Minute
	same, err := key.WithSettings(settings)
	require.NoError(t, err)
	require.Equal(t, start(), same.Version(1).AcceptedTime())
	settings.ClientID = "another"
	other, err := key.WithSettings(settings)
	require.NoError(t, err)
	require.Zero(t, other.Version(1).AcceptedTime())
}

func TestClient_TokenEndpointIsKnownUnlessAudienceForbidsDiscovery(t *testing.T) {
	t.Parallel()
	const issuer, other = "https://idp.example", "https://other.example"
	for client, known := range map[Client]bool{
		{}:                                 true,
		{Issuer: issuer}:                   true,
		{Audience: other}:                  true,
		{Issuer: issuer, Audience: issuer}: true,
		{Issuer: issuer, Audience: other}:  false,
		{Issuer: issuer, Audience: other, TokenEndpoint: issuer + "/token"}: true,
	} {
		require.Equal(t, known, client.TokenEndpointKnown(), "%+v", client)
	}
}

func TestKey_AudienceDefaultsToIssuer(t *testing.T) {
	t.Parallel()
	settings := Settings{Issuer: "https://idp.example/realm", Algorithm: jose.EdDSA}
	key, err := testKey(t, ED25519).WithSettings(settings)
	require.NoError(t, err)
	require.Equal(t, "https://idp.example/realm", key.Audience())
	settings.Audience = "https://idp.example/token"
	key, err = key.WithSettings(settings)
	require.NoError(t, err)
	require.Equal(t, "https://idp.example/token", key.Audience())
}
