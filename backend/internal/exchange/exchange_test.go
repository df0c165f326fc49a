package exchange

import (
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bcgov/vault-plugin-bcgov-jwt/backend/internal/keyring"
)

func TestTokenEndpoint_DiscoveredUnlessKeyNamesIt(t *testing.T) {
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
				}
			})
			for range 3 {
				f.token(t, f.request())
			}
			require.Len(t, f.provider.received(discoveryPath), test.discovers, "cached")
			require.Len(t, f.provider.received(tokenPath), 3)
			endpoint, err := TokenEndpoint(t.Context(), f.client, f.key)
			require.NoError(t, err)
			require.Equal(t, f.provider.URL+tokenPath, endpoint)
		})
	}
}

func TestToken_GrantedScopesComparedWithRequested(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		member  string
		scope   string
		missing []string
	}{
		"absent: as requested": {``, "read write", nil},
		"as requested":         {`,"scope":"read write"`, "read write", nil},
		"wider, another order": {`,"scope":"email write read"`, "email write read", nil},
		"narrower":             {`,"scope":"write"`, "write", []string{"read"}},
		"none":                 {`,"scope":""`, "", []string{"read", "write"}},
		"part of a name": {
			`,"scope":"read:all writer"`, "read:all writer", []string{"read", "write"},
		},
		"another letter case": {`,"scope":"Read write"`, "Read write", []string{"read"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t)
			f.provider.responses[tokenPath] = `{"access_token":"opaque","token_type":"Bearer",` +
				`"expires_in":60` + test.member + `}`
			token := f.token(t, f.request("read", "write"))
			require.Equal(t, test.scope, token.Scope)
			require.Equal(t, test.missing, token.MissingScopes)
		})
	}
}

func TestTokenEndpoint_DiscoveryFailureSendsNoAssertion(t *testing.T) {
	t.Parallel()
	f := newFixture(t, func(s *keyring.Settings) {
		s.Issuer += "/" // the document names another issuer
	})
	_, err := f.Token(t.Context(), f.client, f.request())
	require.ErrorContains(t, err, "a different issuer")
	require.Empty(t, f.provider.received(tokenPath))
	err = f.Revoke(t.Context(), f.client, f.key, f.key.Active(time.Now()), "token")
	require.ErrorContains(t, err, "a different issuer")
	require.Empty(t, f.provider.received(revocationPath))
}

func TestToken_IsNeverPrinted(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	token := f.token(t, f.request())
	require.NotContains(t, token.String(), token.AccessToken)
	require.NotContains(t, token.GoString(), token.AccessToken)
}

func TestToken_ConcurrentRequestsShareDiscovery(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.provider.responses[tokenPath] = opaqueToken
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			if _, err := f.Token(context.Background(), f.client, f.request("read")); err != nil {
				t.Error(err)
			}
			f.Statistics()
		})
	}
	wg.Wait()
	require.Equal(t, int64(50), f.Statistics().Exchanges)
	require.Len(t, f.provider.received(discoveryPath), 1, "one discovery for all")
}
