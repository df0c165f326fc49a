package clientauth

import (
	"encoding/json"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/bcgov/vault-plugin-bcgov-jwt/backend/internal/keyring"
	"github.com/go-jose/go-jose/v4"
	"github.com/stretchr/testify/require"
)

func issuedAt() time.Time { return time.Date(2026, 5, 1, 12, 0, 0, 999_000_000, time.UTC) }

func newVersion(t testing.TB, keyType keyring.Type) *keyring.Version {
	t.Helper()
	settings := keyring.Settings{
		CommonName: "myapi", Algorithm: keyType.DefaultAlgorithm(), SendKeyID: true,
	}
	material, err := keyring.Generate(keyType)
	require.NoError(t, err)
	key, err := keyring.New(material, "myapi", settings, issuedAt())
	require.NoError(t, err)
	return key.Active(issuedAt())
}

func claimsOf(t *testing.T, compact string) map[string]any {
	t.Helper()
	signed, err := jose.ParseSignedCompact(compact, []jose.SignatureAlgorithm{jose.EdDSA})
	require.NoError(t, err)
	var claims map[string]any
	require.NoError(t, json.Unmarshal(signed.UnsafePayloadWithoutVerification(), &claims))
	return claims
}

func TestAssertion_HasOnlyClaimsOfRFC7523(t *testing.T) {
	t.Parallel()
	signer := newVersion(t, keyring.ED25519).Signer()
	assertion, err := NewAssertion(
		signer, "gwa-client", "https://idp.example/realm", issuedAt(), 45*time.Second)
	require.NoError(t, err)

	iat := issuedAt().Unix() - 5
	require.Equal(t, map[string]any{
		"iss": "gwa-client",
		"sub": "gwa-client",
		"aud": "https://idp.example/realm",
		"iat": float64(iat),
		"nbf": float64(iat),
		"exp": float64(iat + 45),
		"jti": assertion.JTI,
	}, claimsOf(t, assertion.Compact()))
	require.Equal(t, iat+45, assertion.ExpiresAt.Unix())
}

func TestAssertion_IDIsUnique(t *testing.T) {
	t.Parallel()
	version := newVersion(t, keyring.ED25519)
	seen := map[string]bool{}
	for range 1000 {
		assertion, err := NewAssertion(version.Signer(), "a", "b", issuedAt(), time.Minute)
		require.NoError(t, err)
		require.GreaterOrEqual(t, len(assertion.JTI), 26, "128 random bits in base32")
		require.False(t, seen[assertion.JTI])
		seen[assertion.JTI] = true
	}
}

func TestAssertion_PrintsRedacted(t *testing.T) {
	t.Parallel()
	signer := newVersion(t, keyring.ED25519).Signer()
	assertion, err := NewAssertion(signer, "a", "b", issuedAt(), time.Minute)
	require.NoError(t, err)
	for _, value := range []any{assertion, *assertion} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q"} {
			require.Equal(t, "[assertion]", fmt.Sprintf(verb, value))
		}
	}
	encoded, err := json.Marshal(assertion)
	require.NoError(t, err)
	require.NotContains(t, string(encoded), "eyJ")
}

type brokenSigner struct{}

func (brokenSigner) Sign([]byte) (string, error) { return "", errors.New("no entropy") }

func TestAssertion_SignerErrorIsReturned(t *testing.T) {
	t.Parallel()
	_, err := NewAssertion(brokenSigner{}, "a", "b", issuedAt(), time.Minute)
	require.ErrorContains(t, err, "sign the assertion: no entropy")
}
