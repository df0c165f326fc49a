package idp_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bcgov/vault-plugin-bcgov-jwt/integrationtest/idp"
	"github.com/bcgov/vault-plugin-bcgov-jwt/integrationtest/keycloak"
)

func writeTestJSON(w http.ResponseWriter, value any) error {
	w.Header().Set("Content-Type", "application/json")
	return json.NewEncoder(w).Encode(value)
}

func TestPutClient_RegistersInProcess(t *testing.T) {
	t.Parallel()
	p := newStandIn(t)
	server := idp.New(idp.Options{})
	t.Cleanup(server.Close)
	require.Error(t, server.PutClient("apigw", keycloak.PortalClient("/portal/x", "")),
		"no such realm")
	require.NoError(t, server.AddRealm("apigw"))
	require.Error(t, server.AddRealm("apigw"))

	listener := httptest.NewServer(server)
	t.Cleanup(listener.Close)
	admin := keycloak.NewAdmin(listener.URL, "admin", "admin")
	t.Cleanup(admin.Close)
	key := testKeys()["p256"]
	c := &registeredClient{
		provider: newProvider(t, admin, standInVersion, time.Now, p.wait),
		client:   keycloak.PortalClient("/portal/x", key.pem()), key: key,
	}
	c.realm = "apigw"
	c.gateway = idp.NewGateway(c.issuer(), http.DefaultClient, time.Now)
	require.NoError(t, server.PutClient("apigw", c.client))
	c.token(t)
	c.client.Enabled = false
	require.NoError(t, server.PutClient("apigw", c.client))
	c.requestToken(t, c.sign(t)).requireRejection(t, unknownClient)
}

func TestAdmin_RequiresToken(t *testing.T) {
	t.Parallel()
	server := idp.New(idp.Options{})
	t.Cleanup(server.Close)
	for _, authorization := range []string{"", "Bearer ", "Bearer x"} {
		req := httptest.NewRequest(http.MethodPost, "/admin/realms",
			strings.NewReader(`{"realm":"x"}`))
		req.Header.Set("Authorization", authorization)
		recorder := httptest.NewRecorder()
		server.ServeHTTP(recorder, req)
		require.Equal(t, http.StatusUnauthorized, recorder.Code)
	}
	require.NoError(t, server.AddRealm("x"), "none of them created it")
}

func TestServer_SendsDateOnRequest(t *testing.T) {
	t.Parallel()
	now := func() time.Time { return time.Unix(1_700_000_000, 0) }
	server := idp.New(idp.Options{SendDate: true, Now: now})
	t.Cleanup(server.Close)
	listener := httptest.NewServer(server)
	t.Cleanup(listener.Close)
	require.Equal(t, "Tue, 14 Nov 2023 22:13:20 GMT", get(t, listener.URL).header.Get("Date"))
}
