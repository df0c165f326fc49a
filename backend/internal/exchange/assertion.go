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
	ctx context.Context, client *tokenendpoint.Client, request Request, maxTTL time.Duration,
) (*Assertion, error) {
	return withCurrentKey(ctx, request, func(request Request) (*Assertion, error) {
		return e.assertion(ctx, client, request, maxTTL)
	})
}

func (e *Exchanger) assertion(
	ctx context.Context, client *tokenendpoint.Client, request Request, maxTTL time.Duration,
) (*Assertion, error) {
	endpoint, err := TokenEndpoint(ctx, client, request.Key)
	if err != nil {
		return nil, err
	}
	version := e.Signing(request.Key)
	ttl := min(request.Key.Settings().AssertionTTL, maxTTL)
	assertion, err := e.sign(ctx, request, version, ttl)
	if err != nil {
		return nil, err
	}
	return &Assertion{Assertion: assertion, TokenEndpoint: endpoint, KeyID: version.KeyID()}, nil
}

// sign checks the key again before each signature: discovery, retries and waiting for others may
// take long, and disabling a key must stop it immediately.
func (e *Exchanger) sign(
	ctx context.Context, request Request, version *keyring.Version, ttl time.Duration,
) (*clientauth.Assertion, error) {
	if err := request.check(ctx, version); err != nil {
		return nil, err
	}
	key := request.Key
	clientID := key.Settings().ClientID
	return clientauth.NewAssertion(version.Signer(), clientID, key.Audience(), e.now(), ttl)
}

func (e *Exchanger) tokenForm(
	ctx context.Context, request Request, version *keyring.Version,
) (url.Values, error) {
	authentication, err := e.authentication(ctx, request, version)
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
func (e *Exchanger) authentication(
	ctx context.Context, request Request, version *keyring.Version,
) (url.Values, error) {
	settings := request.Key.Settings()
	assertion, err := e.sign(ctx, request, version, settings.AssertionTTL)
	if err != nil {
		return nil, err
	}
	return url.Values{
		"client_id":             {settings.ClientID},
		"client_assertion_type": {clientauth.AssertionType},
		"client_assertion":      {assertion.Compact()},
	}, nil
}

// ErrNoRevocationEndpoint means that the key has no revocation_endpoint. None is discovered: who
// may change the issuer must not be able to have live tokens sent to a host of their choice.
var ErrNoRevocationEndpoint = errors.New("the key has no revocation_endpoint")

// Revoke revokes a token at the key's revocation_endpoint (RFC 7009). Its error is
// ErrNoRevocationEndpoint, ErrKeyChanged or a *tokenendpoint.Error, but for internal faults.
func (e *Exchanger) Revoke(
	ctx context.Context, client *tokenendpoint.Client, request Request, version *keyring.Version,
	accessToken string,
) error {
	endpoint := request.Key.Settings().RevocationEndpoint
	if endpoint == "" {
		return ErrNoRevocationEndpoint
	}
	return client.Revoke(ctx, endpoint, func() (url.Values, error) {
		form, err := e.authentication(ctx, request, version)
		if err != nil {
			return nil, err
		}
		form.Set("token", accessToken)
		form.Set("token_type_hint", "access_token")
		return form, nil
	})
}
