package provider

import (
	"context"
	"crypto/rand"
	"strconv"
	"strings"

	"github.com/bcgov/vault-plugin-bcgov-jwt/integrationtest/keycloak"
	"github.com/bcgov/vault-plugin-bcgov-jwt/integrationtest/program"
)

// keycloakProvider is a realm of its own in Keycloak.
type keycloakProvider struct {
	admin *keycloak.Admin
	realm string
}

// startKeycloak starts one unless several test packages share one.
func startKeycloak(ctx context.Context, _ string) (*program.Server, error) {
	return keycloak.Start(ctx)
}

func keycloakAt(ctx context.Context, _ *program.Server, baseURL string) (Provider, error) {
	admin := keycloak.NewAdmin(baseURL, "admin", "admin")
	p := &keycloakProvider{admin: admin, realm: "realm-" + strings.ToLower(rand.Text())}
	if err := admin.CreateRealm(ctx, p.realm); err != nil {
		return nil, err
	}
	return p, admin.PutClient(ctx, p.realm, keycloak.SecretClient(apiClientID, apiSecret))
}

func (p *keycloakProvider) Issuer() string { return p.admin.Issuer(p.realm) }

func (p *keycloakProvider) TokenEndpoint() string {
	return p.Issuer() + "/protocol/openid-connect/token"
}

func (p *keycloakProvider) RevocationEndpoint() string {
	return p.Issuer() + "/protocol/openid-connect/revoke"
}

func (p *keycloakProvider) Audience() string { return p.Issuer() }

func (p *keycloakProvider) PutClient(ctx context.Context, client Client) error {
	registered := keycloak.PortalClient(client.ID, client.PublicKey)
	switch {
	case client.Secret != "":
		registered = keycloak.SecretClient(client.ID, client.Secret)
	case client.JWKSURL != "":
		registered = keycloak.PortalJWKSClient(client.ID, client.JWKSURL)
	}
	registered.Attributes[keycloak.AttributeAlgorithm] = client.Algorithm
	if client.TokenLifetime != 0 {
		seconds := strconv.Itoa(int(client.TokenLifetime.Seconds()))
		registered.Attributes[keycloak.AttributeTokenLifespan] = seconds
	}
	return p.admin.PutClient(ctx, p.realm, registered)
}

func (p *keycloakProvider) IsActive(ctx context.Context, token string) (bool, error) {
	claims, err := p.admin.Introspect(ctx, p.realm, apiClientID, apiSecret, token)
	active, _ := claims["active"].(bool)
	return active, err
}
