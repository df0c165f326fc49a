package exchange

import (
	"context"
	"net/url"

	"github.com/bcgov/vault-plugin-bcgov-jwt/backend/internal/keyring"
	"github.com/bcgov/vault-plugin-bcgov-jwt/backend/internal/tokenendpoint"
)

// Revoke revokes a token at the provider (RFC 7009). It returns false and no error if the provider
// has no revocation endpoint.
func (e *Exchanger) Revoke(
	ctx context.Context, client *tokenendpoint.Client, key *keyring.Key, version *keyring.Version,
	accessToken string,
) (bool, error) {
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
