package main

import (
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/bcgov/vault-plugin-bcgov-jwt/integrationtest/idp"
)

func TestRun_RegistersAndReplacesKey(t *testing.T) {
	t.Parallel()
	server := idp.New(idp.Options{Password: "pw"})
	t.Cleanup(server.Close)
	listener := httptest.NewServer(server)
	t.Cleanup(listener.Close)
	issuer := listener.URL + "/realms/apigw"
	var shown strings.Builder
	pasted := "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"
	register := func(args ...string) error {
		shown.Reset()
		return run(t.Context(), args, strings.NewReader(pasted), &shown)
	}
	args := []string{"-client-id", "/portal/x", "-issuer", issuer, "-password", "pw"}
	for range 2 {
		require.NoError(t, register(args...))
		require.Equal(t, "Client ID       /portal/x\nIssuer          "+issuer+
			"\nToken Endpoint  "+issuer+"/protocol/openid-connect/token\n", shown.String())
	}
	require.Error(t, server.AddRealm("apigw"), "the realm was created")
	require.ErrorContains(t, register(args[:4]...), "invalid_grant")
	require.ErrorContains(t, register(args[:2]...), "set ISS")
	require.ErrorContains(t, register(append(args, "-issuer", listener.URL)...), "set ISS")
	pasted = "No value found"
	require.ErrorContains(t, register(args...), "nothing was registered")
}
