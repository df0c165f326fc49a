package exchange

import (
	"context"
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
