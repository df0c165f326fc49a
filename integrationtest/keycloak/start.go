package keycloak

import (
	"context"
	"os"
	"strings"
	"testing"

	"github.com/bcgov/vault-plugin-bcgov-jwt/integrationtest/program"
)

// EnvBaseURL is the environment variable with the base URL of a running Keycloak (administrator
// admin, password admin) that several test packages share.
const EnvBaseURL = "BCGOV_JWT_TEST_KEYCLOAK"

// ForTest returns an administrator of a Keycloak for this test and its subtests. If Keycloak is not
// available it skips the test, or fails it with CI=true.
func ForTest(t testing.TB) *Admin {
	t.Helper()
	server, err := Start(t.Context())
	program.Require(t, err)
	admin := NewAdmin(server.BaseURL, "admin", "admin")
	t.Cleanup(func() {
		admin.Close()
		if err := server.Stop(); err != nil {
			t.Error(err)
		}
	})
	return admin
}

// Start returns the server that EnvBaseURL names, or else starts one; its administrator is admin
// with the password admin. The server outlives ctx; the caller stops it.
func Start(ctx context.Context) (*program.Server, error) {
	if baseURL := os.Getenv(EnvBaseURL); baseURL != "" {
		return &program.Server{BaseURL: strings.TrimSuffix(baseURL, "/")}, nil
	}
	return program.Script{Name: "keycloak.sh", Ready: "/health/ready"}.Start(ctx)
}
