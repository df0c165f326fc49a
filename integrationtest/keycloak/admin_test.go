package keycloak_test

import (
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bcgov/vault-plugin-bcgov-jwt/integrationtest/idp"
	"github.com/bcgov/vault-plugin-bcgov-jwt/integrationtest/keycloak"
)

// standIn serves the embedded provider, which is compared with a real Keycloak elsewhere.
func standIn(t *testing.T, now func() time.Time) (baseURL string, tokens *atomic.Int64) {
	t.Helper()
	server := idp.New(idp.Options{Now: now})
	t.Cleanup(server.Close)
	tokens = &atomic.Int64{}
	listener := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/realms/master/protocol/openid-connect/token" {
			tokens.Add(1)
		}
		server.ServeHTTP(w, r)
	}))
	t.Cleanup(listener.Close)
	return listener.URL, tokens
}

func TestAdmin_RenewsExpiredToken(t *testing.T) {
	t.Parallel()
	var ahead atomic.Int64
	now := func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
	baseURL, tokens := standIn(t, now)
	admin := keycloak.NewAdmin(baseURL, "admin", "admin")
	t.Cleanup(admin.Close)
	require.NoError(t, admin.CreateRealm(t.Context(), "a"))
	require.NoError(t, admin.CreateRealm(t.Context(), "a"), "it may exist")
	require.EqualValues(t, 1, tokens.Load())
	ahead.Store(int64(time.Minute))
	require.NoError(t, admin.PutClient(t.Context(), "a", keycloak.SecretClient("c", "s")))
	require.EqualValues(t, 2, tokens.Load())
}

func TestAdmin_ReportsWhyItIsRejected(t *testing.T) {
	t.Parallel()
	baseURL, tokens := standIn(t, nil)
	admin := keycloak.NewAdmin(baseURL+"/", "admin", "admin")
	intruder := keycloak.NewAdmin(baseURL, "admin", "guess")
	t.Cleanup(admin.Close)
	t.Cleanup(intruder.Close)

	err := intruder.CreateRealm(t.Context(), "a")
	require.EqualError(t, err, "keycloak: POST /realms/master/protocol/openid-connect/token: "+
		"401 Unauthorized invalid_grant Invalid user credentials")
	require.EqualValues(t, 1, tokens.Load())

	err = admin.PutClient(t.Context(), "nowhere", keycloak.PortalClient("c", ""))
	require.EqualError(t, err,
		"keycloak: GET /admin/realms/nowhere/clients: 404 Not Found Realm not found.")
	var rejected *keycloak.StatusError
	require.ErrorAs(t, err, &rejected)
	require.Equal(t, http.StatusNotFound, rejected.Status)
}

func TestPutClient_CreatesAndReplaces(t *testing.T) {
	t.Parallel()
	baseURL, _ := standIn(t, nil)
	admin := keycloak.NewAdmin(baseURL, "admin", "admin")
	t.Cleanup(admin.Close)
	require.NoError(t, admin.CreateRealm(t.Context(), "a"))
	client := keycloak.SecretClient("c", "first")
	require.NoError(t, admin.PutClient(t.Context(), "a", client))
	_, err := admin.Introspect(t.Context(), "a", "c", "first", "no token")
	require.NoError(t, err)

	client.Secret = "second"
	require.NoError(t, admin.PutClient(t.Context(), "a", client))
	_, err = admin.Introspect(t.Context(), "a", "c", "first", "no token")
	require.ErrorContains(t, err, "401")
	claims, err := admin.Introspect(t.Context(), "a", "c", "second", "no token")
	require.NoError(t, err)
	require.Equal(t, map[string]any{"active": false}, claims)
	require.NoError(t, admin.DeleteRealm(t.Context(), "a"))
	require.Error(t, admin.PutClient(t.Context(), "a", client))
}
