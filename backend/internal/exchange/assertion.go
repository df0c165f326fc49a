package exchange

import (
	"context"
	"errors"
	"maps"
	"net/url"
	"strings"
	"time"

	"github.com/bcgov/vault-plugin-bcgov-jwt/backend/internal/clientauth"
	"github.com/bcgov/vault-plugin-bcgov-jwt/backend/internal/keyring"
	"github.com/bcgov/vault-plugin-bcgov-jwt/backend/internal/tokenendpoint"
)

// Assertion is a client assertion for the caller to send (RFC 7523 §2.2).
type Assertion struct {
	*clientauth.Assertion
	// TokenEndpoint is where it may be sent.
	TokenEndpoint string
	// KeyID is the kid of the version that signed it.
	KeyID string
}

// Assertion signs an assertion that is valid for the key's assertion_ttl, at most maxTTL. The
// provider is only contacted if the key does not name its token endpoint.
func (e *Exchanger) Assertion(
	ctx context.Context, client *tokenendpoint.Client, key *keyring.Key, maxTTL time.Duration,
) (*Assertion, error) {
	endpoint, err := TokenEndpoint(ctx, client, key)
	if err != nil {
		return nil, err
	}
	version := e.Signing(key)
	assertion, err := e.sign(key, version, min(key.Settings().AssertionTTL, maxTTL))
	if err != nil {
		return nil, err
	}
	return &Assertion{Assertion: assertion, TokenEndpoint: endpoint, KeyID: version.KeyID()}, nil
}

func (e *Exchanger) sign(
	key *keyring.Key, version *keyring.Version, ttl time.Duration,
) (*clientauth.Assertion, error) {
	clientID := key.Settings().ClientID
	return clientauth.NewAssertion(version.Signer(), clientID, key.Audience(), e.now(), ttl)
}

func (e *Exchanger) tokenForm(request Request, version *keyring.Version) (url.Values, error) {
	authentication, err := e.authentication(request.Key, version)
	if err != nil {
		return nil, err
	}
	form := url.Values{}
	maps.Copy(form, request.Parameters)
	maps.Copy(form, authentication) // after the parameters, so that none can replace it
	form.Set("grant_type", "client_credentials")
	if len(request.Scopes) > 0 {
		form.Set("scope", strings.Join(request.Scopes, " "))
	}
	return form, nil
}

// authentication returns the parameters that authenticate the client, with a new assertion
// (RFC 7523 §2.2).
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

// ErrNoRevocationEndpoint means that the provider has no revocation endpoint.
var ErrNoRevocationEndpoint = errors.New("the provider has no revocation endpoint")

// Revoke revokes a token at the provider (RFC 7009). Its error is ErrNoRevocationEndpoint or a
// *tokenendpoint.Error, but for internal faults.
func (e *Exchanger) Revoke(
	ctx context.Context, client *tokenendpoint.Client, key *keyring.Key, version *keyring.Version,
	accessToken string,
) error {
	endpoint := key.Settings().RevocationEndpoint
	if endpoint == "" {
		metadata, err := client.Discover(ctx, key.Settings().Issuer)
		if err != nil {
			return err
		}
		endpoint = metadata.RevocationEndpoint
	}
	if endpoint == "" {
		return ErrNoRevocationEndpoint
	}
	return client.Revoke(ctx, endpoint, func() (url.Values, error) {
		form, err := e.authentication(key, version)
		if err != nil {
			return nil, err
		}
		form.Set("token", accessToken)
		form.Set("token_type_hint", "access_token")
		return form, nil
	})
}
