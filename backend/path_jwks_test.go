package backend

import (
	"crypto/rand"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/bcgov/vault-plugin-bcgov-jwt/integrationtest/idp"
	"github.com/bcgov/vault-plugin-bcgov-jwt/integrationtest/keycloak"
	"github.com/go-jose/go-jose/v4"
	"github.com/hashicorp/vault/sdk/logical"
	"github.com/stretchr/testify/require"
)

// jwks requests a key set as Vault does for a caller without a token; nil is a 404.
func (m *mount) jwks(operation logical.Operation, id string) *logical.Response {
	m.tb.Helper()
	resp, err := m.HandleRequest(m.tb.Context(), &logical.Request{Operation: operation, Path: "jwks/" + id, MountPoint: mountPoint, Storage: m.storage})
	require.NoError(m.tb, err)
	return resp
}

// jwksID returns the ID in the path where the key "myapi" is published.
func (m *mount) jwksID() string {
	m.tb.Helper()
	id, found := strings.CutPrefix(m.read("keys/myapi").Data["jwks_path"].(string), "/v1/bcgov-jwt/jwks/")
	require.True(m.tb, found)
	return id
}

// published returns the kids of a key set in order.
func published(t *testing.T, document []byte) []string {
	t.Helper()
	var set jose.JSONWebKeySet
	require.NoError(t, json.Unmarshal(document, &set))
	var kids []string
	for _, key := range set.Keys {
		require.True(t, key.IsPublic())
		require.True(t, key.Valid())
		require.Equal(t, "sig", key.Use)
		kids = append(kids, key.KeyID)
	}
	return kids
}

// serveJWKS serves the mount's key sets as Vault does, unless intercept responds instead.
func (m *mount) serveJWKS(tb testing.TB, intercept func(http.ResponseWriter) bool) *httptest.Server {
	tb.Helper()
	vault := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if intercept(w) {
			return
		}
		resp, err := m.HandleRequest(r.Context(), &logical.Request{
			Operation: logical.ReadOperation, Path: strings.TrimPrefix(r.URL.Path, "/v1/"+mountPoint), MountPoint: mountPoint, Storage: m.storage,
		})
		if err != nil || resp == nil {
			w.WriteHeader(http.StatusNotFound)
			return
		}
		w.Header().Set("Content-Type", resp.Data[logical.HTTPContentType].(string))
		_, _ = w.Write(resp.Data[logical.HTTPRawBody].([]byte))
	}))
	tb.Cleanup(vault.Close)
	return vault
}

// newJWKSMount returns a mount from which the provider fetches the key "myapi", with these key settings.
func newJWKSMount(tb testing.TB, settings map[string]any) (*mount, *provider) {
	tb.Helper()
	m := newMount(tb)
	p := newProvider(tb, idp.Options{})
	vault := m.serveJWKS(tb, func(http.ResponseWriter) bool { return false })
	m.write("config", map[string]any{"allow_insecure_endpoints": true, "max_retries": 0})
	m.write("keys/myapi", map[string]any{"type": "ed25519", "client_id": "my-client", "issuer": p.issuer(), "registration": "jwks"})
	m.write("keys/myapi", settings)
	m.write("roles/myapi", nil)
	path := m.read("keys/myapi").Data["jwks_path"].(string)
	require.NoError(tb, p.idp.PutClient("apigw", keycloak.PortalJWKSClient("my-client", vault.URL+path)))
	return m, p
}

func TestJWKS_IsRawAndPublic(t *testing.T) {
	t.Parallel()
	for keyType, algorithm := range map[string]string{"rsa-2048": "", "ecdsa-p256": "ES256", "ed25519": "EdDSA"} {
		t.Run(keyType, func(t *testing.T) {
			t.Parallel()
			m := newMount(t)
			m.write("keys/myapi", map[string]any{"type": keyType, "registration": "jwks"})
			m.write("keys/myapi/rotate", nil)
			for _, operation := range []logical.Operation{logical.ReadOperation, logical.HeaderOperation} {
				resp := m.jwks(operation, m.jwksID())
				require.Len(t, resp.Data, 4)
				require.Equal(t, http.StatusOK, resp.Data[logical.HTTPStatusCode])
				require.Equal(t, "application/jwk-set+json", resp.Data[logical.HTTPContentType])
				require.Equal(t, "max-age=60", resp.Data[logical.HTTPCacheControlHeader])
				require.Nil(t, resp.Secret)
				require.Empty(t, resp.Warnings)
				document := resp.Data[logical.HTTPRawBody].([]byte)
				require.Equal(t, []string{m.version(2)["key_id"].(string), m.version(1)["key_id"].(string)}, published(t, document), "newest first")
				require.JSONEq(t, m.read("keys/myapi/jwks").Data["jwks"].(string), string(document))
				var raw struct {
					Keys []map[string]any `json:"keys"`
				}
				require.NoError(t, json.Unmarshal(document, &raw))
				for _, key := range raw.Keys {
					for _, private := range []string{"d", "p", "q", "dp", "dq", "qi", "k"} {
						require.NotContains(t, key, private)
					}
					alg, _ := key["alg"].(string)
					require.Equal(t, algorithm, alg)
				}
			}
		})
	}
}

func TestJWKS_HoldsLiveVersionsOnly(t *testing.T) {
	t.Parallel()
	m, p := newJWKSMount(t, map[string]any{"prepublish_period": 0, "overlap_period": 120})
	first := m.version(1)["key_id"].(string)
	require.Equal(t, 1, m.signedBy())
	m.write("keys/myapi/rotate", nil)
	pass(m, p, 11*time.Second)
	require.Equal(t, 2, m.signedBy())
	id := m.jwksID()
	document := func() []string {
		return published(t, m.jwks(logical.ReadOperation, id).Data[logical.HTTPRawBody].([]byte))
	}
	require.Contains(t, document(), first)
	pass(m, p, 121*time.Second)
	require.NotContains(t, document(), first, "at its time, without any background run")
	require.Len(t, document(), 1)
	m.write("keys/myapi", map[string]any{"prepublish_period": 300})
	m.write("keys/myapi/rotate", nil)
	require.Len(t, document(), 2, "a staged one is published immediately")
	m.write("keys/myapi/destroy", map[string]any{"version": 3})
	require.Len(t, document(), 1)
}

// TestJWKS_AnythingUnpublishedIsTheSame404 compares bare responses: nothing must be learned about names or settings.
func TestJWKS_AnythingUnpublishedIsTheSame404(t *testing.T) {
	t.Parallel()
	m := newMount(t)
	settings := map[string]any{"type": "ed25519", "registration": "jwks", "deletion_allowed": true}
	m.write("keys/myapi", settings)
	published := m.jwksID()
	require.Regexp(t, "^[A-Z2-7]{26}$", published, "128 random bits")
	require.NotNil(t, m.jwks(logical.ReadOperation, published))
	missing := map[string]string{
		"unknown": rand.Text(), "malformed": "..", "a name": "myapi", "in lower case": strings.ToLower(published), "cut": published[:25],
		"longer": published + "A", "encoded": "%2e%2e", "a new line": published + "\n",
	}
	for name, id := range missing {
		for _, operation := range []logical.Operation{logical.ReadOperation, logical.HeaderOperation} {
			require.Nil(t, m.jwks(operation, id), name)
		}
	}

	m.write("keys/myapi", map[string]any{"registration": "manual"})
	require.Nil(t, m.jwks(logical.ReadOperation, published), "not published")
	require.Empty(t, m.read("keys/myapi").Data["jwks_path"])
	m.write("keys/myapi", map[string]any{"registration": "jwks"})
	require.Equal(t, published, m.jwksID())
	require.NotNil(t, m.jwks(logical.ReadOperation, published))

	m.delete("keys/myapi")
	require.Nil(t, m.jwks(logical.ReadOperation, published), "deleted")
	m.write("keys/myapi", settings)
	require.NotEqual(t, published, m.jwksID())
	require.Nil(t, m.jwks(logical.ReadOperation, published), "made again under the name")
	require.NotNil(t, m.jwks(logical.ReadOperation, m.jwksID()))

	// An index left behind by a failed deletion.
	require.NoError(t, m.storage.Put(t.Context(), &logical.StorageEntry{Key: "key-id/" + published, Value: []byte(`{"name":"myapi"}`)}))
	require.Nil(t, m.jwks(logical.ReadOperation, published), "the entry decides")
}

func TestJWKS_MalformedIDIsRejectedWithoutReadingStorage(t *testing.T) {
	t.Parallel()
	m := newMount(t)
	calls := m.storage.calls()
	for _, id := range []string{"x", "..", strings.Repeat("A", 27), strings.Repeat("1", 26), strings.Repeat("a", 10000)} {
		require.Nil(t, m.jwks(logical.ReadOperation, id))
	}
	require.Equal(t, calls, m.storage.calls())
}

func TestJWKS_ScheduledVersionBecomesActiveAutomatically(t *testing.T) {
	t.Parallel()
	m, p := newJWKSMount(t, nil)
	require.Equal(t, 1, m.signedBy())
	answer := m.write("keys/myapi/rotate", nil)
	require.Equal(t, 2, answer.Data["staged_version"])
	require.Empty(t, answer.Warnings)
	require.Empty(t, answer.Data["next_step"], "the schedule does the rest")
	require.Equal(t, "schedule", m.version(2)["activated_by"])
	pass(m, p, 298*time.Second)
	require.Equal(t, map[string]string{"1": "active", "2": "staged"}, m.states())
	require.Equal(t, 1, m.signedBy())
	writes := m.storage.writes()
	pass(m, p, 3*time.Second)
	require.Equal(t, map[string]string{"1": "retired", "2": "active"}, m.states())
	require.Equal(t, writes, m.storage.writes(), "states follow the clock, not background work")
	require.Equal(t, 2, m.signedBy())
	require.NotEmpty(t, m.version(2)["accepted_time"])
}

func TestJWKS_RejectionAfterTheSwitchFallsBackToThePredecessor(t *testing.T) {
	t.Parallel()
	m, p := newJWKSMount(t, map[string]any{"prepublish_period": 0})
	require.Contains(t, strings.Join(m.read("keys/myapi").Warnings, "\n"), "prepublish_period is 0s")
	require.Equal(t, 1, m.signedBy())
	answer := m.write("keys/myapi/rotate", nil)
	require.Equal(t, 2, answer.Data["active_version"])
	asked := len(p.requests(tokenPath))
	require.Equal(t, 1, m.signedBy(), "the provider has just read the document, and does not read it again")
	require.Len(t, p.requests(tokenPath), asked+2, "both in one request")
	require.Equal(t, 2, m.read("keys/myapi").Data["active_version"], "the schedule stays")
	require.Empty(t, m.version(1)["expire_time"])
	pass(m, p, 11*time.Second)
	require.Equal(t, 2, m.signedBy())
	require.NotEmpty(t, m.version(1)["expire_time"])
	require.NotContains(t, m.log.String(), "active version changed by provider acceptance", "no switch was stored")
}

// TestJWKS_UnreachableKeySetFailsNoRead: nothing is deleted, and automatic rotation waits with a warning.
func TestJWKS_UnreachableKeySetFailsNoRead(t *testing.T) {
	t.Parallel()
	m, p := newJWKSMount(t, map[string]any{"prepublish_period": 60, "overlap_period": 120, "auto_rotate_period": 3600})
	require.Equal(t, 1, m.signedBy())
	reachable := m.read("keys/myapi/jwks").Data["jwks"].(string)
	client := keycloak.PortalJWKSClient("my-client", staleDocument(t, reachable))
	require.NoError(t, p.idp.PutClient("apigw", client))
	m.write("keys/myapi/rotate", nil)
	for range 60 {
		pass(m, p, 2*time.Minute)
		m.runPeriodic()
		require.Equal(t, 1, m.signedBy())
	}
	require.Equal(t, map[string]string{"1": "retired", "2": "active"}, m.states())
	require.Contains(t, strings.Join(m.read("keys/myapi").Warnings, "\n"), "Automatic rotation is due but waiting")
}

// staleDocument serves a key set that never changes.
func staleDocument(t *testing.T, document string) string {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, document) }))
	t.Cleanup(server.Close)
	return server.URL
}
