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
	args := []string{"-url", listener.URL, "-client-id", "/portal/x", "-password", "pw"}
	require.NoError(t, run(t.Context(), args, strings.NewReader("a key")))
	require.NoError(t, run(t.Context(), args, strings.NewReader("another key")))
	require.Error(t, server.AddRealm("apigw"), "the realm was created")
	require.ErrorContains(t, run(t.Context(), args[:4], strings.NewReader("a key")),
		"invalid_grant")
	require.ErrorContains(t, run(t.Context(), args[:2], strings.NewReader("a key")), "required")
}
