package exchange

import (
	"context"
	"errors"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/bcgov/vault-plugin-bcgov-jwt/backend/internal/clientauth"
	"github.com/bcgov/vault-plugin-bcgov-jwt/backend/internal/keyring"
	"github.com/go-jose/go-jose/v4"
	"github.com/stretchr/testify/require"
)

func TestForm_HoldsOnlyWhatWasRequested(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	request := f.request("read", "write")
	request.Parameters = url.Values{
		"resource": {"https://a.example/?x=1&y=2"}, "audience": {"a b+c"},
	}
	token := f.token(t, request)
	require.Equal(t, "read write", token.Scope)
	require.Empty(t, token.MissingScopes)
	require.Equal(t, f.key.Active(time.Now()).KeyID(), token.KeyID)
	require.Equal(t, 300*time.Second, token.Lifetime)

	form := f.provider.received(tokenPath)[0]
	require.NotEmpty(t, form.Get("client_assertion"))
	form.Del("client_assertion")
	require.Equal(t, url.Values{
		"grant_type": {"client_credentials"}, "client_id": {"my-client"},
		"client_assertion_type": {clientauth.AssertionType}, "scope": {"read write"},
		"resource": {"https://a.example/?x=1&y=2"}, "audience": {"a b+c"},
	}, form)
}

func TestForm_ParameterMayBeRepeated(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.provider.responses[tokenPath] = opaqueToken
	request := f.request()
	resources := []string{"https://a.example", "https://b.example"}
	request.Parameters = url.Values{"resource": resources}
	f.token(t, request)
	require.Equal(t, []string{"https://a.example", "https://b.example"},
		f.provider.received(tokenPath)[0]["resource"])
	require.Equal(t, url.Values{"resource": {"https://a.example", "https://b.example"}},
		request.Parameters, "the request is unchanged")
}

func TestForm_OmitsScopeIfNoneRequested(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.token(t, f.request())
	require.NotContains(t, f.provider.received(tokenPath)[0], "scope")
}

func TestForm_EachAttemptHasItsOwnAssertion(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.provider.refuse = 1
	f.token(t, f.request())
	sent := f.provider.received(tokenPath)
	require.Len(t, sent, 2)
	require.NotEqual(t, sent[0].Get("client_assertion"), sent[1].Get("client_assertion"))
	require.Len(t, f.observed.of("exchanged"), 1, "one exchange, however many attempts")
}

func TestForm_AssertionFollowsKeySettings(t *testing.T) {
	t.Parallel()
	f := newFixture(t, func(s *keyring.Settings) {
		s.SendKeyID, s.AssertionTTL = false, 2*time.Minute
	})
	f.provider.responses[tokenPath] = opaqueToken
	f.token(t, f.request())
	assertion := f.provider.received(tokenPath)[0].Get("client_assertion")
	jws, err := jose.ParseSignedCompact(assertion, []jose.SignatureAlgorithm{jose.EdDSA})
	require.NoError(t, err)
	require.Empty(t, jws.Signatures[0].Header.KeyID)
	payload := string(jws.UnsafePayloadWithoutVerification())
	require.Contains(t, payload, `"aud":"`+f.provider.issuer()+`"`)
	require.Contains(t, payload, `"iss":"my-client","sub":"my-client"`)
}

func withRevocation(s *keyring.Settings) {
	s.RevocationEndpoint = s.Issuer + strings.TrimPrefix(revocationPath, realmPath)
}

func TestRevoke_AuthenticatesAndSendsToken(t *testing.T) {
	t.Parallel()
	f := newFixture(t, withRevocation)
	token := f.token(t, f.request())
	for range 2 { // revoking a token twice is no error
		version := f.key.Active(time.Now())
		require.NoError(t, f.Revoke(t.Context(), f.client, f.request(), version, token.AccessToken))
	}
	sent := f.provider.received(revocationPath)
	require.Equal(t, token.AccessToken, sent[0].Get("token"))
	require.Equal(t, "access_token", sent[0].Get("token_type_hint"))
	require.Equal(t, "my-client", sent[0].Get("client_id"))
	require.NotContains(t, sent[0], "grant_type")
}

func TestRevoke_EndpointIsNeverDiscovered(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	err := f.Revoke(t.Context(), f.client, f.request(), f.key.Active(time.Now()), "token")
	require.ErrorIs(t, err, ErrNoRevocationEndpoint)
	require.Empty(t, f.provider.received(discoveryPath))
	require.Empty(t, f.provider.received(revocationPath))
}

func TestRevoke_ReportsRejection(t *testing.T) {
	t.Parallel()
	f := newFixture(t, withRevocation, func(s *keyring.Settings) { s.ClientID = "unknown" })
	err := f.Revoke(t.Context(), f.client, f.request(), f.key.Active(time.Now()), "hunter2")
	require.ErrorContains(t, err, "HTTP 401")
	require.NotContains(t, err.Error(), "hunter2")
	require.Empty(t, f.observed.of(""), "a revocation is not an exchange")
}

// TestSign_KeyIsLookedAtBeforeEachSignature covers what lasts between the read of a key and a
// signature: discovery, and the attempts before a retry.
func TestSign_KeyIsLookedAtBeforeEachSignature(t *testing.T) {
	t.Parallel()
	errDisabled := errors.New("disabled")
	for name, operation := range map[string]func(*fixture, Request) error{
		"retry of a token request": func(f *fixture, r Request) error {
			_, err := f.Token(t.Context(), f.client, r)
			return err
		},
		"retry with one version": func(f *fixture, r Request) error {
			_, err := f.Try(t.Context(), f.client, r, f.key.Version(1))
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t)
			f.provider.refuse = 1
			request := f.request()
			request.Current = func(context.Context) (*keyring.Key, error) {
				if len(f.provider.received(tokenPath)) > 0 {
					return nil, errDisabled
				}
				return f.key, nil
			}
			require.ErrorIs(t, operation(f, request), errDisabled)
			require.Len(t, f.provider.received(tokenPath), 1)
		})
	}
	t.Run("assertion and revocation", func(t *testing.T) {
		t.Parallel()
		f := newFixture(t, withRevocation)
		request := f.request()
		request.Current = func(context.Context) (*keyring.Key, error) { return nil, errDisabled }
		_, err := f.Assertion(t.Context(), f.client, request, time.Minute)
		require.ErrorIs(t, err, errDisabled)
		err = f.Revoke(t.Context(), f.client, request, f.key.Version(1), "token")
		require.ErrorIs(t, err, errDisabled)
		require.Empty(t, f.provider.received(revocationPath))
	})
}

// TestSign_KeyThatBecameAnotherClientsSignsAsThat starts with the former client's key, as a request
// does that a write overtakes.
func TestSign_KeyThatBecameAnotherClientsSignsAsThat(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	settings := f.key.Settings()
	settings.ClientID = "former"
	former, err := f.key.WithSettings(settings)
	require.NoError(t, err)
	request := Request{
		Key:     former,
		Current: func(context.Context) (*keyring.Key, error) { return f.key, nil },
	}
	token, err := f.Token(t.Context(), f.client, request)
	require.NoError(t, err)
	require.NotEmpty(t, token.AccessToken)
	sent := f.provider.received(tokenPath)
	require.Len(t, sent, 1)
	require.Equal(t, "my-client", sent[0].Get("client_id"))
	assertion, err := f.Assertion(t.Context(), f.client, request, time.Minute)
	require.NoError(t, err)
	require.NotNil(t, assertion)
	_, err = f.Try(t.Context(), f.client, request, former.Version(1))
	require.ErrorIs(t, err, ErrKeyChanged)
}
