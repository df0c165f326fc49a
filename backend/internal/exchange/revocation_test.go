package exchange

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bcgov/vault-plugin-bcgov-jwt/backend/internal/keyring"
)

func TestRevoke_AuthenticatesAndSendsToken(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		set       bool
		discovers int
	}{"discovered": {false, 1}, "set": {true, 0}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t, func(s *keyring.Settings) {
				if test.set {
					s.TokenEndpoint = s.Issuer + strings.TrimPrefix(tokenPath, realmPath)
					s.RevocationEndpoint = s.Issuer + strings.TrimPrefix(revocationPath, realmPath)
				}
			})
			token := f.token(t, f.request())
			for range 2 { // revoking a token twice is no error
				version := f.key.Active(time.Now())
				revoked, err := f.Revoke(t.Context(), f.client, f.key, version, token.AccessToken)
				require.NoError(t, err)
				require.True(t, revoked)
			}
			sent := f.provider.received(revocationPath)
			require.Equal(t, token.AccessToken, sent[0].Get("token"))
			require.Equal(t, "access_token", sent[0].Get("token_type_hint"))
			require.Equal(t, "my-client", sent[0].Get("client_id"))
			require.NotContains(t, sent[0], "grant_type")
			require.Len(t, f.provider.received(discoveryPath), test.discovers)
		})
	}
}

func TestRevoke_WithoutEndpointDoesNothing(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.provider.responses[discoveryPath] = `{"issuer":"` + f.provider.issuer() +
		`","token_endpoint":"` + f.provider.URL + tokenPath + `"}`
	revoked, err := f.Revoke(t.Context(), f.client, f.key, f.key.Active(time.Now()), "token")
	require.NoError(t, err)
	require.False(t, revoked)
	require.Empty(t, f.provider.received(revocationPath))
}

func TestRevoke_ReportsRejection(t *testing.T) {
	t.Parallel()
	f := newFixture(t, func(s *keyring.Settings) { s.ClientID = "unknown" })
	revoked, err := f.Revoke(t.Context(), f.client, f.key, f.key.Active(time.Now()), "hunter2")
	require.ErrorContains(t, err, "HTTP 401")
	require.NotContains(t, err.Error(), "hunter2")
	require.False(t, revoked)
	require.Zero(t, f.Statistics(), "a revocation is not an exchange")
}
