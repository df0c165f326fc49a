package provider

import (
	"context"
	"net/http"

	"github.com/bcgov/vault-plugin-bcgov-jwt/integrationtest/program"
)

// A client that may introspect tokens, as an API does.
const (
	apiClientID = "api"
	apiSecret   = "the-secret-of-the-API-at-a-provider"
)

// oidcProvider is panva's oidc-provider, as scripts/modules/oidc-provider/server.js runs it.
type oidcProvider struct {
	baseURL, admin string
}

func oidcProviderAt(
	ctx context.Context, server *program.Server, baseURL string,
) (Provider, error) {
	p := &oidcProvider{baseURL: baseURL, admin: server.BaseURL}
	return p, p.PutClient(ctx, Client{ID: apiClientID, Secret: apiSecret})
}

func (p *oidcProvider) Issuer() string             { return p.baseURL }
func (p *oidcProvider) TokenEndpoint() string      { return p.baseURL + "/token" }
func (p *oidcProvider) RevocationEndpoint() string { return p.baseURL + "/token/revocation" }
func (p *oidcProvider) Audience() string           { return p.baseURL }

func (p *oidcProvider) PutClient(ctx context.Context, client Client) error {
	metadata, err := client.metadata()
	if err != nil {
		return err
	}
	if client.TokenLifetime != 0 {
		metadata["access_token_ttl"] = client.TokenLifetime.Seconds()
	}
	_, err = put(ctx, http.MethodPut, p.admin+"/clients", metadata, http.StatusNoContent)
	return err
}

func (p *oidcProvider) IsActive(ctx context.Context, token string) (bool, error) {
	return introspect(ctx, p.baseURL+"/token/introspection", apiClientID, apiSecret, token)
}
