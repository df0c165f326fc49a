// Package keycloak lets tests and demonstrations administer a Keycloak server: it is a small client
// of Keycloak's admin REST API, and starts a server if none is given.
package keycloak

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"
)

// Names of the client attributes that these tests set. Keycloak stores all of them as strings.
const (
	// AttributePublicKey is the public key: PEM, or its base64 body alone.
	AttributePublicKey = "jwt.credential.public.key"
	// AttributeCertificate is an X.509 certificate; it excludes a public key.
	AttributeCertificate = "jwt.credential.certificate"
	// AttributeKeyID is the key's id, unless it is derived from the key.
	AttributeKeyID = "jwt.credential.kid"
	// AttributeUseJWKSURL is "true" if the keys are fetched from AttributeJWKSURL.
	AttributeUseJWKSURL = "use.jwks.url"
	// AttributeJWKSURL is where the client publishes its keys.
	AttributeJWKSURL = "jwks.url"
	// AttributeAlgorithm is the one algorithm that an assertion may use.
	AttributeAlgorithm = "token.endpoint.auth.signing.alg"
	// AttributeMaxAge is how many seconds an assertion is valid from its iat.
	AttributeMaxAge = "token.endpoint.auth.signing.max.exp"
	// AttributeTokenLifespan is an access token's lifetime in seconds.
	AttributeTokenLifespan = "access.token.lifespan"
	// AttributeIntrospectAny is "true" if the client may introspect tokens for other audiences, as
	// every client may up to Keycloak 26.5.
	AttributeIntrospectAny = "allow.token.introspection.without.audience.check"
)

// Values of Client.ClientAuthenticatorType.
const (
	AuthenticatorJWT    = "client-jwt"    // private_key_jwt
	AuthenticatorSecret = "client-secret" // client_secret_basic and client_secret_post
)

// Client is the part of Keycloak's ClientRepresentation that matters to a client of the client
// credentials grant.
type Client struct {
	ID                      string            `json:"id,omitempty"` // Keycloak's own
	ClientID                string            `json:"clientId"`
	Enabled                 bool              `json:"enabled"`
	PublicClient            bool              `json:"publicClient"`
	BearerOnly              bool              `json:"bearerOnly"`
	ServiceAccountsEnabled  bool              `json:"serviceAccountsEnabled"`
	StandardFlowEnabled     bool              `json:"standardFlowEnabled"`
	ClientAuthenticatorType string            `json:"clientAuthenticatorType,omitempty"`
	Secret                  string            `json:"secret,omitempty"`
	DefaultClientScopes     []string          `json:"defaultClientScopes"`
	OptionalClientScopes    []string          `json:"optionalClientScopes"`
	Attributes              map[string]string `json:"attributes,omitempty"`
}

// PortalClient returns a client as the BC Government API Services Portal creates it for an access
// request with a pasted public key: with a service account only, and without any scope.
func PortalClient(clientID, publicKeyPEM string) Client {
	return portalClient(clientID, map[string]string{
		AttributeUseJWKSURL: "false", AttributePublicKey: publicKeyPEM,
	})
}

// PortalJWKSClient is PortalClient for an access request with a JWKS URL.
func PortalJWKSClient(clientID, jwksURL string) Client {
	return portalClient(clientID, map[string]string{
		AttributeUseJWKSURL: "true", AttributeJWKSURL: jwksURL,
	})
}

func portalClient(clientID string, attributes map[string]string) Client {
	return Client{
		ClientID:                clientID,
		Enabled:                 true,
		ServiceAccountsEnabled:  true,
		ClientAuthenticatorType: AuthenticatorJWT,
		DefaultClientScopes:     []string{},
		OptionalClientScopes:    []string{},
		Attributes:              attributes,
	}
}

// SecretClient returns a confidential client that authenticates with a secret; it may call the
// introspection endpoint.
func SecretClient(clientID, secret string) Client {
	return Client{
		ClientID:                clientID,
		Enabled:                 true,
		ServiceAccountsEnabled:  true,
		ClientAuthenticatorType: AuthenticatorSecret,
		Secret:                  secret,
		DefaultClientScopes:     []string{},
		OptionalClientScopes:    []string{},
		Attributes:              map[string]string{AttributeIntrospectAny: "true"},
	}
}

// Admin administers one Keycloak server. It is safe for concurrent use.
type Admin struct {
	baseURL, username, password string

	http *http.Client

	mu    sync.Mutex
	token string
}

// NewAdmin returns an administrator of the server at baseURL: scheme, host and port, and the path
// before /realms if any.
func NewAdmin(baseURL, username, password string) *Admin {
	return &Admin{
		baseURL:  strings.TrimSuffix(baseURL, "/"),
		username: username,
		password: password,
		http: &http.Client{
			Timeout: 2 * time.Minute, Transport: http.DefaultTransport.(*http.Transport).Clone(),
		},
	}
}

// Close closes the idle connections to the server.
func (a *Admin) Close() { a.http.CloseIdleConnections() }

// Issuer returns the issuer identifier of a realm.
func (a *Admin) Issuer(realm string) string {
	return a.baseURL + "/realms/" + url.PathEscape(realm)
}

// Version returns the version of Keycloak that the server runs.
func (a *Admin) Version(ctx context.Context) (string, error) {
	var info struct {
		System struct {
			Version string `json:"version"`
		} `json:"systemInfo"`
	}
	err := a.do(ctx, http.MethodGet, "/admin/serverinfo", nil, &info)
	return info.System.Version, err
}

// CreateRealm creates an empty realm with Keycloak's defaults, unless one of its name exists.
func (a *Admin) CreateRealm(ctx context.Context, realm string) error {
	representation := map[string]any{"realm": realm, "enabled": true}
	err := a.do(ctx, http.MethodPost, "/admin/realms", representation, nil)
	if hasStatus(err, http.StatusConflict) {
		return nil
	}
	return err
}

// DeleteRealm removes a realm and everything in it.
func (a *Admin) DeleteRealm(ctx context.Context, realm string) error {
	return a.do(ctx, http.MethodDelete, "/admin/realms/"+url.PathEscape(realm), nil, nil)
}

// PutClient registers a client, or replaces the one that has its client id, and takes effect on the
// next request. Attributes of an existing client that are not named keep their values ("" removes
// one), and so do its lists of scopes.
func (a *Admin) PutClient(ctx context.Context, realm string, client Client) error {
	clients := "/admin/realms/" + url.PathEscape(realm) + "/clients"
	var known []Client
	query := "?clientId=" + url.QueryEscape(client.ClientID)
	if err := a.do(ctx, http.MethodGet, clients+query, nil, &known); err != nil {
		return err
	}
	if len(known) == 0 {
		return a.do(ctx, http.MethodPost, clients, client, nil)
	}
	client.ID = known[0].ID
	return a.do(ctx, http.MethodPut, clients+"/"+url.PathEscape(client.ID), client, nil)
}

// Introspect introspects a token of the realm (RFC 7662) as the confidential client clientID.
func (a *Admin) Introspect(
	ctx context.Context, realm, clientID, secret, token string,
) (map[string]any, error) {
	endpoint := a.Issuer(realm) + "/protocol/openid-connect/token/introspect"
	req, err := newFormRequest(ctx, endpoint, url.Values{"token": {token}})
	if err != nil {
		return nil, err
	}
	req.SetBasicAuth(url.QueryEscape(clientID), url.QueryEscape(secret))
	var claims map[string]any
	if err := a.send(req, &claims); err != nil {
		return nil, err
	}
	return claims, nil
}

// do sends a request with an administrator's token, and again with a new one if that has expired:
// its lifetime is a minute.
func (a *Admin) do(ctx context.Context, method, path string, body, response any) error {
	encoded, err := json.Marshal(body)
	if err != nil {
		return err
	}
	token, err := a.adminToken(ctx, "")
	if err != nil {
		return err
	}
	err = a.doWith(ctx, token, method, path, encoded, response)
	if !hasStatus(err, http.StatusUnauthorized) {
		return err
	}
	if token, err = a.adminToken(ctx, token); err != nil {
		return err
	}
	return a.doWith(ctx, token, method, path, encoded, response)
}

func (a *Admin) doWith(
	ctx context.Context, token, method, path string, body []byte, response any,
) error {
	req, err := http.NewRequestWithContext(ctx, method, a.baseURL+path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+token)
	req.Header.Set("Content-Type", "application/json")
	return a.send(req, response)
}

// adminToken returns the current token, or a new one if that is the expired one.
func (a *Admin) adminToken(ctx context.Context, expired string) (string, error) {
	a.mu.Lock()
	token := a.token
	a.mu.Unlock()
	if token != expired {
		return token, nil
	}
	endpoint := a.baseURL + "/realms/master/protocol/openid-connect/token"
	req, err := newFormRequest(ctx, endpoint, url.Values{
		"grant_type": {"password"}, "client_id": {"admin-cli"},
		"username": {a.username}, "password": {a.password},
	})
	if err != nil {
		return "", err
	}
	var response struct {
		AccessToken string `json:"access_token"`
	}
	if err := a.send(req, &response); err != nil {
		return "", err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.token = response.AccessToken
	return a.token, nil
}

func newFormRequest(ctx context.Context, target string, form url.Values) (*http.Request, error) {
	body := strings.NewReader(form.Encode())
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, target, body)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	return req, nil
}

// StatusError is a response outside 2xx.
type StatusError struct {
	Status  int
	message string
}

func (e *StatusError) Error() string { return e.message }

func hasStatus(err error, status int) bool {
	var rejected *StatusError
	return errors.As(err, &rejected) && rejected.Status == status
}

// send sends the request and decodes the body of a 2xx response unless response is nil. An error
// quotes only the members in which Keycloak describes it.
func (a *Admin) send(req *http.Request, response any) error {
	resp, err := a.http.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if resp.StatusCode/100 != 2 {
		var problem struct {
			Error        string `json:"error"`
			Description  string `json:"error_description"`
			ErrorMessage string `json:"errorMessage"`
		}
		_ = json.Unmarshal(body, &problem) // without a JSON body the status says enough
		text := problem.Error + " " + problem.Description + " " + problem.ErrorMessage
		return &StatusError{resp.StatusCode, fmt.Sprintf("keycloak: %s %s: %s %s",
			req.Method, req.URL.Path, resp.Status, strings.Join(strings.Fields(text), " "))}
	}
	if response == nil {
		return nil
	}
	return json.Unmarshal(body, response)
}
