// Package keycloak lets tests and demonstrations administer a Keycloak server: it is a small client of Keycloak's admin REST API, and starts a server where
// none is given.
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

// Names of the client attributes that these tests set. Keycloak keeps them as strings, whatever they mean.
const (
	AttributePublicKey     = "jwt.credential.public.key"           // the public key: PEM, or its base64 body alone
	AttributeCertificate   = "jwt.credential.certificate"          // an X.509 certificate; excludes a public key
	AttributeKeyID         = "jwt.credential.kid"                  // the key's id, where it is not derived from the key
	AttributeUseJWKSURL    = "use.jwks.url"                        // "true": the keys are fetched from jwks.url
	AttributeJWKSURL       = "jwks.url"                            // where the client publishes its keys
	AttributeAlgorithm     = "token.endpoint.auth.signing.alg"     // the one algorithm that an assertion may use
	AttributeMaxAge        = "token.endpoint.auth.signing.max.exp" // an assertion's life from its iat, in seconds
	AttributeTokenLifespan = "access.token.lifespan"               // an access token's life in seconds
)

// Values of Client.ClientAuthenticatorType.
const (
	AuthenticatorJWT    = "client-jwt"    // private_key_jwt
	AuthenticatorSecret = "client-secret" // client_secret_basic and client_secret_post
)

// Client is the part of Keycloak's ClientRepresentation that matters to a client of the client credentials grant.
type Client struct {
	ID                      string            `json:"id,omitempty"` // Keycloak's own id; PutClient finds it
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

// PortalClient is a client as the BC Government API Services Portal makes it for an access request with a pasted public key: service account only, and no
// scope at all.
func PortalClient(clientID, publicKeyPEM string) Client {
	return portalClient(clientID, map[string]string{AttributeUseJWKSURL: "false", AttributePublicKey: publicKeyPEM})
}

// PortalJWKSClient is like PortalClient, for an access request that named a JWKS URL.
func PortalJWKSClient(clientID, jwksURL string) Client {
	return portalClient(clientID, map[string]string{AttributeUseJWKSURL: "true", AttributeJWKSURL: jwksURL})
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

// SecretClient is a confidential client that authenticates with a secret; it may call the introspection endpoint.
func SecretClient(clientID, secret string) Client {
	return Client{
		ClientID:                clientID,
		Enabled:                 true,
		ServiceAccountsEnabled:  true,
		ClientAuthenticatorType: AuthenticatorSecret,
		Secret:                  secret,
		DefaultClientScopes:     []string{},
		OptionalClientScopes:    []string{},
	}
}

// Admin administers one Keycloak server. It is safe for concurrent use.
type Admin struct {
	baseURL, username, password string

	http *http.Client

	mu    sync.Mutex
	token string
}

// NewAdmin returns an administrator of the server at baseURL (scheme, host and port, and the path that comes before /realms if there is one).
func NewAdmin(baseURL, username, password string) *Admin {
	return &Admin{
		baseURL:  strings.TrimSuffix(baseURL, "/"),
		username: username,
		password: password,
		http:     &http.Client{Timeout: 30 * time.Second, Transport: http.DefaultTransport.(*http.Transport).Clone()},
	}
}

// Close closes the idle connections to the server.
func (a *Admin) Close() { a.http.CloseIdleConnections() }

// Issuer returns the issuer identifier of a realm.
func (a *Admin) Issuer(realm string) string { return a.baseURL + "/realms/" + url.PathEscape(realm) }

// CreateRealm makes an empty realm with Keycloak's defaults; one of that name may be there already.
func (a *Admin) CreateRealm(ctx context.Context, realm string) error {
	err := a.do(ctx, http.MethodPost, "/admin/realms", map[string]any{"realm": realm, "enabled": true}, nil)
	if hasStatus(err, http.StatusConflict) {
		return nil
	}
	return err
}

// DeleteRealm removes a realm and everything in it.
func (a *Admin) DeleteRealm(ctx context.Context, realm string) error {
	return a.do(ctx, http.MethodDelete, "/admin/realms/"+url.PathEscape(realm), nil, nil)
}

// PutClient registers a client, or overwrites the one that has its client id, and takes effect on the next request. Of a client that is there already an
// attribute that is not named keeps its value ("" removes it), and so do the lists of scopes.
func (a *Admin) PutClient(ctx context.Context, realm string, client Client) error {
	clients := "/admin/realms/" + url.PathEscape(realm) + "/clients"
	var known []Client
	if err := a.do(ctx, http.MethodGet, clients+"?clientId="+url.QueryEscape(client.ClientID), nil, &known); err != nil {
		return err
	}
	if len(known) == 0 {
		return a.do(ctx, http.MethodPost, clients, client, nil)
	}
	client.ID = known[0].ID
	return a.do(ctx, http.MethodPut, clients+"/"+url.PathEscape(client.ID), client, nil)
}

// Introspect asks the realm about a token (RFC 7662) as the confidential client clientID.
func (a *Admin) Introspect(ctx context.Context, realm, clientID, secret, token string) (map[string]any, error) {
	req, err := newFormRequest(ctx, a.Issuer(realm)+"/protocol/openid-connect/token/introspect", url.Values{"token": {token}})
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

// do sends a request with an administrator's token, and again with a new one where that has expired: it lives for a minute.
func (a *Admin) do(ctx context.Context, method, path string, body, answer any) error {
	encoded, err := json.Marshal(body)
	if err != nil {
		return err
	}
	token, err := a.adminToken(ctx, "")
	if err != nil {
		return err
	}
	err = a.doWith(ctx, token, method, path, encoded, answer)
	if !hasStatus(err, http.StatusUnauthorized) {
		return err
	}
	if token, err = a.adminToken(ctx, token); err != nil {
		return err
	}
	return a.doWith(ctx, token, method, path, encoded, answer)
}

func (a *Admin) doWith(ctx context.Context, token, method, path string, body []byte, answer any) error {
	req, err := http.NewRequestWithContext(ctx, method, a.baseURL+path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+token)
	req.Header.Set("Content-Type", "application/json")
	return a.send(req, answer)
}

// adminToken returns the token at hand, or a new one where that is the expired one.
func (a *Admin) adminToken(ctx context.Context, expired string) (string, error) {
	a.mu.Lock()
	token := a.token
	a.mu.Unlock()
	if token != expired {
		return token, nil
	}
	req, err := newFormRequest(ctx, a.baseURL+"/realms/master/protocol/openid-connect/token", url.Values{
		"grant_type": {"password"}, "client_id": {"admin-cli"}, "username": {a.username}, "password": {a.password},
	})
	if err != nil {
		return "", err
	}
	var answer struct {
		AccessToken string `json:"access_token"`
	}
	if err := a.send(req, &answer); err != nil {
		return "", err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.token = answer.AccessToken
	return a.token, nil
}

func newFormRequest(ctx context.Context, target string, form url.Values) (*http.Request, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, target, strings.NewReader(form.Encode()))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	return req, nil
}

// StatusError is an answer outside 2xx.
type StatusError struct {
	Status  int
	message string
}

func (e *StatusError) Error() string { return e.message }

func hasStatus(err error, status int) bool {
	var refused *StatusError
	return errors.As(err, &refused) && refused.Status == status
}

// send sends the request and decodes a 2xx answer's body into answer unless that is nil. An error quotes only the members in which Keycloak says what was
// wrong.
func (a *Admin) send(req *http.Request, answer any) error {
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
		_ = json.Unmarshal(body, &problem) // not every refusal has a JSON body; the status says enough then
		words := strings.Fields(problem.Error + " " + problem.Description + " " + problem.ErrorMessage)
		return &StatusError{resp.StatusCode, fmt.Sprintf("keycloak: %s %s: %s %s", req.Method, req.URL.Path, resp.Status, strings.Join(words, " "))}
	}
	if answer == nil {
		return nil
	}
	return json.Unmarshal(body, answer)
}
