package examples

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/bcgov/vault-plugin-bcgov-jwt/integrationtest/harness"
	"github.com/bcgov/vault-plugin-bcgov-jwt/integrationtest/keycloak"
)

const (
	portalGateway     = "my-gateway"
	portalEnvironment = "23C4F461"
	// portalJWKSAddress is Vault's address as the portal sees it, which accepts https only.
	portalJWKSAddress = "https://vault.example.com"
)

// The bodies of the Directory API's POST /gateways/{gatewayId}/consumers: bcgov/api-services-portal,
// src/controllers/v3/types-extra.ts. Members that it does not name are errors (tsoa-v3.json:
// throw-on-extras).
type (
	issueRequest struct {
		EnvironmentAppID string            `json:"environmentAppId"`
		Application      *issueApplication `json:"application"`
		Labels           map[string]string `json:"labels,omitempty"`
		Controls         *issueControls    `json:"controls,omitempty"`
	}
	issueApplication struct {
		AppID       string `json:"appId,omitempty"`
		Name        string `json:"name,omitempty"`
		Description string `json:"description,omitempty"`
	}
	issueControls struct {
		DefaultClientScopes   []string      `json:"defaultClientScopes,omitempty"`
		DefaultOptionalScopes []string      `json:"defaultOptionalScopes,omitempty"`
		Roles                 []string      `json:"roles,omitempty"`
		ACLGroups             []string      `json:"aclGroups,omitempty"`
		ClientGenCertificate  bool          `json:"clientGenCertificate,omitempty"`
		ClientCertificate     string        `json:"clientCertificate,omitempty"`
		JWKSURL               string        `json:"jwksUrl,omitempty"`
		Plugins               []issuePlugin `json:"plugins,omitempty"`
	}
	issuePlugin struct {
		Name    string            `json:"name"`
		Config  map[string]any    `json:"config,omitempty"`
		Service map[string]string `json:"service,omitempty"`
		Route   map[string]string `json:"route,omitempty"`
	}
	// issuedCredential has what client-jwt-jwks-url environments return.
	issuedCredential struct {
		Flow             string  `json:"flow"`
		ClientID         string  `json:"clientId,omitempty"`
		ClientSecret     string  `json:"clientSecret,omitempty"`
		Issuer           string  `json:"issuer,omitempty"`
		TokenEndpoint    string  `json:"tokenEndpoint,omitempty"`
		ClientPublicKey  *string `json:"clientPublicKey"`
		ClientPrivateKey *string `json:"clientPrivateKey"`
	}
)

// portalAPI stands for the portal's Directory API with one environment, whose authenticator is
// client-jwt-jwks-url. It registers clients with a provider.
type portalAPI struct {
	url, certificateFile string
	token, clientSecret  string

	provider *harness.Provider
	vault    string // the address that portalJWKSAddress stands for

	mu      sync.Mutex
	issued  []issueRequest
	respond http.HandlerFunc // instead of issuing, if not nil
}

func newPortalAPI(t *testing.T, m *harness.Mount, p *harness.Provider) *portalAPI {
	t.Helper()
	api := &portalAPI{
		token: rand.Text(), clientSecret: rand.Text(), provider: p, vault: m.Client.Address(),
	}
	mux := http.NewServeMux()
	mux.Handle("POST /ds/api/v3/gateways/{gatewayId}/consumers", api)
	server := httptest.NewTLSServer(mux)
	t.Cleanup(server.Close)
	api.url, api.certificateFile = server.URL, certificateOf(t, server)
	return api
}

// ServeHTTP responds as src/api-openapi.js and src/services/workflow/issue-gateway-credential.ts do.
func (a *portalAPI) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.respond != nil {
		a.respond(w, r)
		return
	}
	if r.Header.Get("Authorization") != "Bearer "+a.token {
		writeStatus(w, http.StatusUnauthorized, map[string]string{
			"code": "invalid_token", "message": "jwt malformed",
		})
		return
	}
	request, err := decodeIssueRequest(r)
	if err != nil {
		writeStatus(w, http.StatusUnprocessableEntity, map[string]any{
			"code": "validation_error", "message": err.Error(), "fields": map[string]any{},
		})
		return
	}
	credential, failed := a.issue(r, request)
	if failed != "" {
		writeStatus(w, http.StatusUnprocessableEntity, map[string]string{"message": failed})
		return
	}
	a.issued = append(a.issued, request)
	writeStatus(w, http.StatusCreated, credential)
}

// decodeIssueRequest accepts exactly what the types name, with their capitals.
func decodeIssueRequest(r *http.Request) (request issueRequest, err error) {
	body, err := io.ReadAll(r.Body)
	if err != nil || r.Header.Get("Content-Type") != "application/json" {
		return request, fmt.Errorf("no JSON body: %w", err)
	}
	decoder := json.NewDecoder(bytes.NewReader(body))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&request); err != nil {
		return request, err
	}
	understood, err := json.Marshal(request)
	if err != nil {
		return request, err
	}
	var got, want any
	if err := json.Unmarshal(body, &got); err != nil {
		return request, err
	}
	if err := json.Unmarshal(understood, &want); err != nil {
		return request, err
	}
	if !reflect.DeepEqual(got, want) {
		return request, fmt.Errorf("not as the contract has it: %s", body)
	}
	return request, nil
}

// issue registers a client, or returns the assertion that failed.
func (a *portalAPI) issue(r *http.Request, request issueRequest) (issuedCredential, string) {
	gateway, controls := r.PathValue("gatewayId"), request.Controls
	block := &pem.Block{}
	if controls != nil && controls.ClientCertificate != "" {
		block, _ = pem.Decode([]byte(controls.ClientCertificate))
	}
	switch {
	case request.Application == nil:
		return issuedCredential{}, "application is required"
	case gateway != portalGateway || request.EnvironmentAppID != portalEnvironment:
		return issuedCredential{}, fmt.Sprintf("Environment not found for appId %s in gateway %s",
			request.EnvironmentAppID, gateway)
	case block == nil:
		return issuedCredential{}, "Certificate failed validation"
	case controls == nil || controls.JWKSURL == "" && controls.ClientCertificate == "":
		return issuedCredential{}, "client-jwt-jwks-url requires jwksUrl or clientCertificate"
	case controls.JWKSURL != "" && controls.ClientCertificate != "":
		return issuedCredential{}, "Provide only one of jwksUrl or clientCertificate"
	case controls.JWKSURL != "" && !strings.HasPrefix(controls.JWKSURL, portalJWKSAddress+"/"):
		return issuedCredential{}, "JWKS Url failed validation"
	case request.Application.Name == "":
		return issuedCredential{}, "application.name is required when creating a new Application"
	}
	clientID := portalEnvironment + "-" + rand.Text()[:11]
	client := keycloak.PortalClient(clientID, controls.ClientCertificate)
	if controls.JWKSURL != "" {
		published := strings.Replace(controls.JWKSURL, portalJWKSAddress, a.vault, 1)
		client = keycloak.PortalJWKSClient(clientID, published)
	}
	if err := a.provider.Put(r.Context(), client); err != nil {
		return issuedCredential{}, err.Error()
	}
	return issuedCredential{
		Flow: "client-credentials", ClientID: clientID, ClientSecret: a.clientSecret,
		Issuer: a.provider.Issuer, TokenEndpoint: a.provider.TokenEndpoint(),
	}, ""
}

func writeStatus(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body)
}

// requests returns what was issued so far.
func (a *portalAPI) requests() []issueRequest {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.issued
}

// respondInstead has all requests from now on answered by a handler; nil issues again.
func (a *portalAPI) respondInstead(handler http.HandlerFunc) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.respond = handler
}

// register runs register.sh for a key, and requires that it reveals no secret: neither in what it
// prints, nor on a command line.
func (a *portalAPI) register(
	t *testing.T, m *harness.Mount, key string, environment ...string,
) harness.CommandResult {
	t.Helper()
	commands := recordCurl(t)
	cmd := harness.Vault().Command(t.Context(), example("portal/register.sh"), m.Path, key)
	cmd.Env = append(cmd.Env, harness.Vault().ClientEnvironment(m.Client.Token())...)
	_, path, _ := strings.Cut(harness.Vault().PathVariable(), "=")
	cmd.Env = append(cmd.Env,
		"PATH="+filepath.Dir(commands)+string(os.PathListSeparator)+path,
		"CURL_CA_BUNDLE="+a.certificateFile, "PORTAL="+a.url, "PORTAL_TOKEN="+a.token,
		"GATEWAY="+portalGateway, "ENVIRONMENT_APP_ID="+portalEnvironment,
		"JWKS_ADDR="+portalJWKSAddress)
	cmd.Env = append(cmd.Env, environment...)
	result, err := harness.Run(cmd)
	require.NoError(t, err)
	printed := result.Stdout + result.Stderr
	harness.Detector().Record("the output of register.sh", printed)
	recorded, err := os.ReadFile(commands)
	if !os.IsNotExist(err) { // without a call of curl
		require.NoError(t, err)
	}
	printed += string(recorded)
	require.NotContains(t, printed, a.token)
	require.NotContains(t, printed, a.clientSecret)
	return result
}
