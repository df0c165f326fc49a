package exchange

import (
	"context"
	"strings"
	"sync"
	"testing"

	"github.com/bcgov/vault-plugin-bcgov-jwt/backend/internal/keyring"
	"github.com/bcgov/vault-plugin-bcgov-jwt/backend/internal/tokenendpoint"
	"github.com/stretchr/testify/require"
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
			require.ElementsMatch(t, test.missing, token.MissingScopes)
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
		})
	}
	wg.Wait()
	require.Len(t, f.observed.of("exchanged"), 50)
	require.Len(t, f.provider.received(discoveryPath), 1, "one discovery for all")
}

func TestToken_FailuresAreObserved(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	_, err := f.Token(t.Context(), f.client, f.request("nope"))
	var failure *tokenendpoint.Error
	require.ErrorAs(t, err, &failure)
	require.Equal(t, tokenendpoint.KindRejected, failure.Reason.Kind())
	require.Equal(t, "invalid_scope", failure.Code)
	require.Equal(t, []string{"exchanged: " + err.Error()}, f.observed.of("exchanged"))

	gone, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = f.Token(gone, f.client, f.request())
	require.ErrorIs(t, err, context.Canceled)
	require.Len(t, f.observed.of("exchanged"), 2)
}
