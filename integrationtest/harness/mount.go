package harness

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"io"
	"maps"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"
	"github.com/stretchr/testify/require"

	"github.com/bcgov/vault-plugin-bcgov-jwt/integrationtest/keycloak"
)

// Mount is one mount of the plugin as the owner of a Vault token uses it.
type Mount struct {
	Path   string // without a final slash
	Client *api.Client

	storage string // the prefix of its entries in the server's storage
}

// NewMount mounts the plugin until the test ends, with a configuration unless that is nil.
func NewMount(t *testing.T, config map[string]any) *Mount {
	t.Helper()
	m := MountPlugin(t, PluginName, PluginVersion)
	if config != nil {
		m.Write(t, "config", config)
	}
	return m
}

// MountPlugin mounts a plugin of the catalog until the test ends.
func MountPlugin(t *testing.T, name, version string) *Mount {
	t.Helper()
	m := Unmounted(t, "jwt-"+strings.ToLower(rand.Text()))
	input := &api.MountInput{Type: name, Config: api.MountConfigInput{PluginVersion: version}}
	require.NoError(t, m.Client.Sys().MountWithContext(t.Context(), m.Path, input))
	m.UnmountAfterTest(t)
	return m
}

// EnableMount mounts the plugin with the vault command until the test ends.
func EnableMount(t *testing.T, path string) *Mount {
	t.Helper()
	m := Unmounted(t, path)
	m.MustRun(t, "secrets", "enable", "-path={mount}", PluginName)
	m.UnmountAfterTest(t)
	return m
}

// Unmounted returns a path at which the test itself is to mount the plugin; it calls
// UnmountAfterTest then.
func Unmounted(t *testing.T, path string) *Mount {
	t.Helper()
	return &Mount{Path: path, Client: Vault().NewClient(t)}
}

// UnmountAfterTest disables the mount when the test ends, unless the test has done so. The private
// keys are recorded first.
func (m *Mount) UnmountAfterTest(t *testing.T) {
	t.Helper()
	m.findStorage(t)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), time.Minute)
		defer cancel()
		if info, err := m.Client.Sys().GetMountWithContext(ctx, m.Path); err != nil || info == nil {
			return // the test disabled it
		}
		if err := m.recordPrivateKeys(ctx); err != nil {
			t.Error(err)
		}
		if err := m.Client.Sys().UnmountWithContext(ctx, m.Path); err != nil {
			t.Error(err)
		}
	})
}

func (m *Mount) findStorage(t *testing.T) {
	t.Helper()
	info, err := m.Client.Sys().GetMountWithContext(t.Context(), m.Path)
	require.NoError(t, err)
	m.storage = namespaceStorage(t, m.Client) + "logical/" + info.UUID + "/"
}

// As returns the mount as the owner of another Vault token uses it.
func (m *Mount) As(t *testing.T, token string) *Mount {
	t.Helper()
	client, err := m.Client.CloneWithHeaders() // the namespace is one
	require.NoError(t, err)
	client.SetToken(token)
	return m.Through(client)
}

// AsNewToken returns the mount as the owner of a new Vault token uses it.
func (m *Mount) AsNewToken(t *testing.T, request api.TokenCreateRequest) *Mount {
	t.Helper()
	created, err := m.Client.Auth().Token().CreateWithContext(t.Context(), &request)
	require.NoError(t, err)
	return m.As(t, created.Auth.ClientToken)
}

// Through returns the mount as another client uses it.
func (m *Mount) Through(client *api.Client) *Mount {
	return &Mount{Path: m.Path, storage: m.storage, Client: client}
}

// WithConnections returns the mount through a client with a connection for each reader. The leak
// detector does not record it: so many responses are too many to keep.
func (m *Mount) WithConnections(t *testing.T, readers int) *Mount {
	t.Helper()
	transport := &http.Transport{MaxIdleConnsPerHost: readers}
	t.Cleanup(transport.CloseIdleConnections)
	config := m.Client.CloneConfig()
	config.HttpClient = &http.Client{Transport: transport, Timeout: time.Minute}
	client, err := api.NewClient(config)
	require.NoError(t, err)
	client.SetToken(m.Client.Token())
	return m.Through(client)
}

// WritePolicy writes an ACL policy that is deleted when the test ends.
func (m *Mount) WritePolicy(t *testing.T, name, rules string) {
	t.Helper()
	require.NoError(t, m.Client.Sys().PutPolicyWithContext(t.Context(), name, rules))
	m.DeletePolicyAfterTest(t, name)
}

// DeletePolicyAfterTest deletes an ACL policy when the test ends.
func (m *Mount) DeletePolicyAfterTest(t *testing.T, name string) {
	t.Helper()
	t.Cleanup(func() {
		ctx := context.WithoutCancel(t.Context())
		if err := m.Client.Sys().DeletePolicyWithContext(ctx, name); err != nil {
			t.Error(err)
		}
	})
}

// Do sends a request to a path below the mount, as a program without Vault's client library does.
func (m *Mount) Do(t *testing.T, method, path string, query url.Values, body any) Response {
	t.Helper()
	response, err := m.request(t.Context(), method, "/v1/"+m.Path+"/"+path, query, body)
	require.NoError(t, err)
	return response
}

// DoOutside is Do without a body for a path of the server outside the mount, such as
// auth/token/lookup-self.
func (m *Mount) DoOutside(t *testing.T, method, path string) Response {
	t.Helper()
	response, err := m.request(t.Context(), method, "/v1/"+path, nil, nil)
	require.NoError(t, err)
	return response
}

// Request is Do for a goroutine that is not the test's.
func (m *Mount) Request(ctx context.Context, method, path string, body any) (Response, error) {
	return m.request(ctx, method, "/v1/"+m.Path+"/"+path, nil, body)
}

func (m *Mount) request(
	ctx context.Context, method, path string, query url.Values, body any,
) (Response, error) {
	var content io.Reader
	if body != nil {
		encoded, err := json.Marshal(body)
		if err != nil {
			return Response{}, err
		}
		content = bytes.NewReader(encoded)
	}
	address := m.Client.Address() + (&url.URL{Path: path, RawQuery: query.Encode()}).String()
	req, err := http.NewRequestWithContext(ctx, method, address, content)
	if err != nil {
		return Response{}, err
	}
	req.Header.Set("X-Vault-Token", m.Client.Token())
	if namespace := m.Client.Namespace(); namespace != "" {
		req.Header.Set(api.NamespaceHeaderName, namespace)
	}
	if method == http.MethodPatch {
		req.Header.Set("Content-Type", "application/merge-patch+json")
	}
	client := *m.Client.CloneConfig().HttpClient
	client.CheckRedirect = nil // follows a standby's, as Vault's own client does
	resp, err := client.Do(req)
	if err != nil {
		return Response{}, err
	}
	defer resp.Body.Close()
	return ReadResponse(resp)
}

// Write writes to a path, which must succeed.
func (m *Mount) Write(t *testing.T, path string, data map[string]any) Response {
	t.Helper()
	response := m.Do(t, http.MethodPost, path, nil, data)
	require.Empty(t, response.Errors, "write %s", path)
	require.Less(t, response.Status, 300, "write %s", path)
	return response
}

// Read reads a path, which must succeed.
func (m *Mount) Read(t *testing.T, path string) Response {
	t.Helper()
	response := m.Do(t, http.MethodGet, path, nil, nil)
	require.Empty(t, response.Errors, "read %s", path)
	require.Equal(t, http.StatusOK, response.Status, "read %s", path)
	return response
}

// List lists a path, which must succeed.
func (m *Mount) List(t *testing.T, path string) Response {
	t.Helper()
	response := m.Do(t, "LIST", path, nil, nil)
	require.Empty(t, response.Errors, "list %s", path)
	require.Equal(t, http.StatusOK, response.Status, "list %s", path)
	return response
}

// Versions lists the versions of a key.
func (m *Mount) Versions(t *testing.T, key string) Response {
	t.Helper()
	return m.List(t, "keys/"+key+"/versions")
}

// Delete deletes a path, which must succeed.
func (m *Mount) Delete(t *testing.T, path string) {
	t.Helper()
	response := m.Do(t, http.MethodDelete, path, nil, nil)
	require.Equal(t, http.StatusNoContent, response.Status, "delete %s: %s", path,
		response.ErrorText())
}

// RequireForbidden requires that Vault's policies forbid a request.
func (m *Mount) RequireForbidden(t *testing.T, method, path string, body any) {
	t.Helper()
	response := m.Do(t, method, path, nil, body)
	require.Equal(t, http.StatusForbidden, response.Status,
		"%s %s %v: %s", method, path, body, response.ErrorText())
}

// NewClient creates a key, a client of the provider with its public key, and a role of the key's
// name.
func (m *Mount) NewClient(
	t *testing.T, p *Provider, name string, settings map[string]any,
) (clientID string) {
	t.Helper()
	clientID, key := m.newKey(t, p, name, settings)
	p.Register(t, clientID, key.Text(t, "public_key"))
	m.Write(t, "roles/"+name, nil)
	return clientID
}

// NewClientWithTokenLifetime is NewClient for a client whose access tokens live this long; the role
// has these settings.
func (m *Mount) NewClientWithTokenLifetime(
	t *testing.T, p *Provider, name string, lifetime time.Duration, settings, role map[string]any,
) {
	t.Helper()
	clientID, key := m.newKey(t, p, name, settings)
	p.RegisterWithTokenLifetime(t, clientID, key.Text(t, "public_key"), lifetime)
	m.Write(t, "roles/"+name, role)
}

// NewJWKSClient is NewClient for a client that fetches the public keys below a base URL.
func (m *Mount) NewJWKSClient(
	t *testing.T, p *Provider, name, baseURL string, settings map[string]any,
) {
	t.Helper()
	all := map[string]any{"registration": "jwks"}
	maps.Copy(all, settings)
	clientID, key := m.newKey(t, p, name, all)
	client := keycloak.PortalJWKSClient(clientID, baseURL+key.Text(t, "jwks_path"))
	require.NoError(t, p.Put(t.Context(), client))
	m.Write(t, "roles/"+name, nil)
}

func (m *Mount) newKey(
	t *testing.T, p *Provider, name string, settings map[string]any,
) (clientID string, key Response) {
	t.Helper()
	clientID = NewClientID()
	all := map[string]any{
		"client_id": clientID, "issuer": p.Issuer,
		"revocation_endpoint": p.Issuer + "/protocol/openid-connect/revoke",
	}
	maps.Copy(all, settings)
	return clientID, m.Write(t, "keys/"+name, all)
}
