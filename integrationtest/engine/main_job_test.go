package engine

import (
	"crypto/rand"
	"encoding/pem"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/bcgov/vault-plugin-bcgov-jwt/integrationtest/harness"
)

// TestMainJob_ObtainsToken takes a newcomer's steps with the unmodified vault command, as the
// README describes them.
func TestMainJob_ObtainsToken(t *testing.T) {
	t.Parallel()
	t.Run("with Keycloak", func(t *testing.T) {
		t.Parallel()
		kc := harness.Keycloak(t)
		m := enableMount(t)
		m.MustRun(t, "write", "{mount}/config", "allow_insecure_endpoints=true")
		token := walkMainJob(t, m, kc)
		require.Equal(t, http.StatusOK, kc.NewAPI(t).Call(t, token), "the protected API")
	})
	t.Run("with a private authority", func(t *testing.T) {
		t.Parallel()
		p := harness.EmbeddedProvider(t)
		m := enableMount(t)
		ca := filepath.Join(t.TempDir(), "ca.pem")
		require.NoError(t, os.WriteFile(ca, []byte(p.Config["ca_cert"].(string)), 0o600))
		m.MustRun(t, "write", "{mount}/config",
			"ca_cert=@"+ca, "allowed_hosts="+p.Config["allowed_hosts"].(string))
		walkMainJob(t, m, p)
	})
}

func enableMount(t *testing.T) *harness.Mount {
	t.Helper()
	return harness.EnableMount(t, "bcgov-jwt-"+strings.ToLower(rand.Text()))
}

func walkMainJob(t *testing.T, m *harness.Mount, p *harness.Provider) (token string) {
	t.Helper()
	clientID := harness.NewClientID()
	writeClientID := m.Expand("vault write {mount}/keys/myapi client_id=")

	// The key, and its public half as it is pasted into the portal.
	created := m.RunVault(t, "write", "-f", "{mount}/keys/myapi")
	require.Zero(t, created.Code, created.Stderr)
	require.Contains(t, created.Stdout, "-----BEGIN PUBLIC KEY-----")
	harness.RequireTexts(t, created.Stdout+created.Stderr,
		m.Expand("vault read -field=public_key {mount}/keys/myapi"), writeClientID)
	publicKey := m.MustRun(t, "read", "-field=public_key", "{mount}/keys/myapi")
	block, rest := pem.Decode([]byte(publicKey))
	require.NotNil(t, block)
	require.Equal(t, "PUBLIC KEY", block.Type)
	require.Empty(t, strings.TrimSpace(string(rest)))

	// Too early: each error names the next command.
	m.MustFailWith(t, `unknown role "myapi"`, "read", "{mount}/check/myapi")
	m.MustRun(t, "write", "-f", "{mount}/roles/myapi")
	harness.RequireTexts(t, m.MustFailCheck(t, "registration"), writeClientID)
	harness.RequireTexts(t, m.MustFail(t, "read", "{mount}/creds/myapi"), writeClientID)

	// The portal shows the credentials before the API's owner approves.
	p.RegisterUnapproved(t, clientID, publicKey)
	m.MustRun(t, "write", "{mount}/keys/myapi",
		"client_id="+clientID, "issuer="+p.Issuer, "token_endpoint="+p.TokenEndpoint())
	harness.RequireTexts(t, m.MustFailCheck(t, "version 1"),
		"approve", m.Expand("vault read {mount}/keys/myapi"))
	harness.RequireTexts(t, m.MustFail(t, "read", "{mount}/creds/myapi"), "approve", "Code: 400")

	p.Register(t, clientID, publicKey)
	report := m.MustRun(t, "read", "-field=report", "{mount}/check/myapi")
	require.NotContains(t, report, "FAILED")
	require.Equal(t, "true", m.MustRun(t, "read", "-field=ok", "{mount}/check/myapi"))
	requireTable(t, m.MustRun(t, "read", "{mount}/creds/myapi"))
	return m.MustRun(t, "read", "-field=access_token", "{mount}/creds/myapi")
}

// requireTable checks the table that the vault command prints of creds.
func requireTable(t *testing.T, table string) {
	t.Helper()
	accessToken := regexp.MustCompile(`(?m)^(access_token +).*$`)
	public := accessToken.ReplaceAllString(table, "${1}(hidden)") // a failure prints it
	for _, field := range []string{
		"lease_id", "lease_duration", "lease_renewable", "access_token", "token_type", "scope",
		"issued_at", "expires_at", "expires_in", "key_id", "token_jti",
	} {
		require.Regexp(t, `(?m)^`+field+` +\S`, public)
	}
	require.Regexp(t, `(?m)^lease_duration +(4m|3m\d+s)$`, public,
		"the token's 300 s less a fifth, and less the duration of the request")
	require.Regexp(t, `(?m)^lease_renewable +false$`, public)
}
