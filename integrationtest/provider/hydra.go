package provider

import (
	"context"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/bcgov/vault-plugin-bcgov-jwt/integrationtest/program"
)

// hydra is Ory Hydra, whose admin API is on the port after its own.
type hydra struct {
	baseURL, admin string
}

func hydraAt(_ context.Context, server *program.Server, baseURL string) (Provider, error) {
	address, err := url.Parse(server.BaseURL)
	if err != nil {
		return nil, err
	}
	port, err := strconv.Atoi(address.Port())
	if err != nil {
		return nil, err
	}
	admin := "http://" + address.Hostname() + ":" + strconv.Itoa(port+1) + "/admin"
	return &hydra{baseURL: baseURL, admin: admin}, nil
}

func (p *hydra) Issuer() string             { return p.baseURL }
func (p *hydra) TokenEndpoint() string      { return p.baseURL + "/oauth2/token" }
func (p *hydra) RevocationEndpoint() string { return p.baseURL + "/oauth2/revoke" }
func (p *hydra) Audience() string           { return p.TokenEndpoint() }

func (p *hydra) PutClient(ctx context.Context, client Client) error {
	metadata, err := client.metadata()
	if err != nil {
		return err
	}
	if client.TokenLifetime != 0 {
		metadata["client_credentials_grant_access_token_lifespan"] = client.TokenLifetime.String()
	}
	err = p.put(ctx, client.ID, metadata)
	for tries := 0; err != nil && tries < 4; tries++ { // SQLite is locked now and then
		time.Sleep(time.Second)
		err = p.put(ctx, client.ID, metadata)
	}
	return err
}

func (p *hydra) put(ctx context.Context, id string, metadata map[string]any) error {
	clients := p.admin + "/clients"
	status, err := put(ctx, http.MethodPut, clients+"/"+url.PathEscape(id), metadata,
		http.StatusOK, http.StatusNotFound)
	if status == http.StatusNotFound {
		_, err = put(ctx, http.MethodPost, clients, metadata, http.StatusCreated)
	}
	return err
}

func (p *hydra) IsActive(ctx context.Context, token string) (bool, error) {
	return introspect(ctx, p.admin+"/oauth2/introspect", "", "", token)
}
