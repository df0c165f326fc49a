package main

import (
	"bufio"
	"context"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/bcgov/vault-plugin-bcgov-jwt/integrationtest/keycloak"
)

func TestRun_ServesProviderAndAPIUntilStopped(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	reader, writer := io.Pipe()
	ended := make(chan error, 1)
	go func() { ended <- run(ctx, []string{"-realm", "demo", "-admin-password", "pw"}, writer) }()
	printed := map[string]string{}
	for scanner := bufio.NewScanner(reader); len(printed) < 4 && scanner.Scan(); {
		name, value, _ := strings.Cut(scanner.Text(), "=")
		printed[name] = value
	}
	require.Equal(t, printed["BASE_URL"]+"/realms/demo", printed["ISSUER"])

	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	status := func(target string) int {
		resp, err := client.Get(target)
		require.NoError(t, err)
		require.NoError(t, resp.Body.Close())
		require.NotEmpty(t, resp.Header.Get("Date"))
		return resp.StatusCode
	}
	require.Equal(t, http.StatusOK, status(printed["ISSUER"]+"/.well-known/openid-configuration"))
	require.Equal(t, http.StatusMethodNotAllowed, status(printed["TOKEN_ENDPOINT"]))
	require.Equal(t, http.StatusUnauthorized, status(printed["PROTECTED_API"]))

	right := keycloak.NewAdmin(printed["BASE_URL"], "admin", "pw")
	wrong := keycloak.NewAdmin(printed["BASE_URL"], "admin", "admin")
	require.NoError(t, right.CreateRealm(t.Context(), "demo"))
	require.NoError(t, right.PutClient(t.Context(), "demo", keycloak.PortalClient("/portal/x", "")))
	require.ErrorContains(t, wrong.CreateRealm(t.Context(), "demo"), "invalid_grant")
	right.Close()
	wrong.Close()

	cancel()
	require.NoError(t, <-ended)
}

func TestRun_RejectsBadFlags(t *testing.T) {
	t.Parallel()
	require.Error(t, run(t.Context(), []string{"-addr", "nowhere"}, io.Discard))
}
