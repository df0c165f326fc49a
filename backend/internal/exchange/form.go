package exchange

import (
	"context"
	"maps"
	"net/url"
	"strings"
	"time"

	"github.com/bcgov/vault-plugin-bcgov-jwt/backend/internal/clientauth"
	"github.com/bcgov/vault-plugin-bcgov-jwt/backend/internal/keyring"
	"github.com/bcgov/vault-plugin-bcgov-jwt/backend/internal/tokenendpoint"
)

// TokenEndpoint is where the key's assertions go: its own setting, or what the issuer's discovery document names.
func TokenEndpoint(ctx context.Context, client *tokenendpoint.Client, key *keyring.Key) (string, error) {
	if endpoint := key.Settings().TokenEndpoint; endpoint != "" {
		return endpoint, nil
	}
	metadata, err := client.Discover(ctx, key.Settings().Issuer)
	return metadata.TokenEndpoint, err
}

// Signing is the version that would sign for a key now: the active one, unless another is known to work in its place.
func (e *Exchanger) Signing(key *keyring.Key) *keyring.Version {
	return e.memories.of(key.ID()).choose(key, e.now())
}

// Assertion is a client assertion for somebody else to send (RFC 7523 §2.2).
type Assertion struct {
	*clientauth.Assertion
	// TokenEndpoint is where it may be sent.
	TokenEndpoint string
	// KeyID is the kid of the version that signed it.
	KeyID string
}

// Assertion signs an assertion that is good for the key's own assertion_ttl, and no longer than longest. The provider is
// only asked where the key does not name its token endpoint.
func (e *Exchanger) Assertion(ctx context.Context, client *tokenendpoint.Client, key *keyring.Key, longest time.Duration) (*Assertion, error) {
	endpoint, err := TokenEndpoint(ctx, client, key)
	if err != nil {
		return nil, err
	}
	version := e.Signing(key)
	assertion, err := e.sign(key, version, min(key.Settings().AssertionTTL, longest))
	if err != nil {
		return nil, err
	}
	return &Assertion{Assertion: assertion, TokenEndpoint: endpoint, KeyID: version.KeyID()}, nil
}

func (e *Exchanger) sign(key *keyring.Key, version *keyring.Version, ttl time.Duration) (*clientauth.Assertion, error) {
	return clientauth.NewAssertion(version.Signer(), key.Settings().ClientID, key.Audience(), e.now(), ttl)
}

// Revoke asks the provider to end a token (RFC 7009). It says false, and no error, when the provider has no revocation
// endpoint.
func (e *Exchanger) Revoke(ctx context.Context, client *tokenendpoint.Client, key *keyring.Key, version *keyring.Version, accessToken string) (bool, error) {
	endpoint := key.Settings().RevocationEndpoint
	if endpoint == "" {
		metadata, err := client.Discover(ctx, key.Settings().Issuer)
		if err != nil || metadata.RevocationEndpoint == "" {
			return false, err
		}
		endpoint = metadata.RevocationEndpoint
	}
	err := client.Revoke(ctx, endpoint, func() (url.Values, error) {
		form, err := e.authentication(key, version)
		if err != nil {
			return nil, err
		}
		form.Set("token", accessToken)
		form.Set("token_type_hint", "access_token")
		return form, nil
	})
	return err == nil, err
}

func (e *Exchanger) tokenForm(request Request, version *keyring.Version) (url.Values, error) {
	authentication, err := e.authentication(request.Key, version)
	if err != nil {
		return nil, err
	}
	form := url.Values{}
	maps.Copy(form, request.Parameters)
	maps.Copy(form, authentication) // later, so that no parameter can take its place
	form.Set("grant_type", "client_credentials")
	if len(request.Scopes) > 0 {
		form.Set("scope", strings.Join(request.Scopes, " "))
	}
	return form, nil
}

// authentication is the part of a form that says who the client is, with a new assertion (RFC 7523 §2.2).
func (e *Exchanger) authentication(key *keyring.Key, version *keyring.Version) (url.Values, error) {
	settings := key.Settings()
	assertion, err := e.sign(key, version, settings.AssertionTTL)
	if err != nil {
		return nil, err
	}
	return url.Values{
		"client_id":             {settings.ClientID},
		"client_assertion_type": {clientauth.AssertionType},
		"client_assertion":      {assertion.Compact()},
	}, nil
}
