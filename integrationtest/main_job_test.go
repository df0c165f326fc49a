package integrationtest

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
)

// TestMainJob walks the way of a newcomer with the unmodified vault command, as the README tells it.
func TestMainJob(t *testing.T) {
	t.Parallel()
	t.Run("with Keycloak", func(t *testing.T) {
		t.Parallel()
		kc := realKeycloak(t)
		m := enabled(t)
		m.succeeds(t, "write", "{mount}/config", "allow_insecure_endpoints=true")
		token := walkMainJob(t, m, kc)
		require.Equal(t, http.StatusOK, callAPI(t, kc.protectedAPI(t), token), "the protected API")
	})
	t.Run("with a private authority", func(t *testing.T) {
		t.Parallel()
		p := embeddedProvider(t)
		m := enabled(t)
		ca := filepath.Join(t.TempDir(), "ca.pem")
		require.NoError(t, os.WriteFile(ca, []byte(p.config["ca_cert"].(string)), 0o600))
		m.succeeds(t, "write", "{mount}/config", "ca_cert=@"+ca, "allowed_hosts="+p.config["allowed_hosts"].(string))
		walkMainJob(t, m, p)
	})
}

// enabled mounts the plugin with the vault command.
func enabled(t *testing.T) *mount {
	t.Helper()
	m := unmounted(t, "bcgov-jwt-"+strings.ToLower(rand.Text()))
	m.succeeds(t, "secrets", "enable", "-path={mount}", pluginName)
	m.adopt(t)
	return m
}

func walkMainJob(t *testing.T, m *mount, p *provider) (token string) {
	t.Helper()
	clientID := newClientID()

	// The key, and its public half as it is pasted into the portal.
	created := m.vault(t, "write", "-f", "{mount}/keys/myapi")
	require.Zero(t, created.code, created.stderr)
	require.Contains(t, created.stdout, "-----BEGIN PUBLIC KEY-----")
	requireNames(t, created.stdout+created.stderr, "vault read -field=public_key "+m.path+"/keys/myapi", "vault write "+m.path+"/keys/myapi client_id=")
	publicKey := m.succeeds(t, "read", "-field=public_key", "{mount}/keys/myapi")
	block, rest := pem.Decode([]byte(publicKey))
	require.NotNil(t, block)
	require.Equal(t, "PUBLIC KEY", block.Type)
	require.Empty(t, strings.TrimSpace(string(rest)))

	// Too early: each answer names the next command.
	m.refuses(t, `unknown role "myapi"`, "read", "{mount}/check/myapi")
	m.succeeds(t, "write", "-f", "{mount}/roles/myapi")
	requireNames(t, m.checkFails(t, "registration"), "vault write "+m.path+"/keys/myapi client_id=")
	requireNames(t, m.fails(t, "read", "{mount}/creds/myapi"), "vault write "+m.path+"/keys/myapi client_id=")

	// The portal shows the credentials before the API's owner approves.
	p.registerUnapproved(t, clientID, publicKey)
	m.succeeds(t, "write", "{mount}/keys/myapi", "client_id="+clientID, "issuer="+p.issuer, "token_endpoint="+p.tokenEndpoint())
	requireNames(t, m.checkFails(t, "token"), "approve", "vault read "+m.path+"/keys/myapi")
	requireNames(t, m.fails(t, "read", "{mount}/creds/myapi"), "approve", "Code: 400")

	p.register(t, clientID, publicKey)
	report := m.succeeds(t, "read", "-field=report", "{mount}/check/myapi")
	require.NotContains(t, report, "FAILED")
	require.Equal(t, "true", m.succeeds(t, "read", "-field=ok", "{mount}/check/myapi"))

	table := m.succeeds(t, "read", "{mount}/creds/myapi")
	public := regexp.MustCompile(`(?m)^(access_token +).*$`).ReplaceAllString(table, "${1}(hidden)") // a failure prints it
	for _, field := range []string{
		"lease_id", "lease_duration", "lease_renewable", "access_token", "token_type", "scope", "issued_at", "expires_at", "expires_in", "key_id", "token_jti",
	} {
		require.Regexp(t, `(?m)^`+field+` +\S`, public)
	}
	require.Regexp(t, `(?m)^lease_duration +(4m|3m\d+s)$`, public, "the token's 300 s less a fifth, and less what the request took")
	require.Regexp(t, `(?m)^lease_renewable +false$`, public)
	return m.succeeds(t, "read", "-field=access_token", "{mount}/creds/myapi")
}

// fails runs a vault command that must fail, and returns what it printed on standard error.
func (m *mount) fails(t *testing.T, args ...string) string {
	t.Helper()
	result := m.vault(t, args...)
	require.Equal(t, 2, result.code, "vault %s: %s", strings.Join(args, " "), result.stderr)
	return result.stderr
}

// refuses is fails for an error of the user, with this text in it.
func (m *mount) refuses(t *testing.T, text string, args ...string) {
	t.Helper()
	stderr := m.fails(t, args...)
	requireNames(t, stderr, "Code: 400", text)
}

// checkFails runs check on the role myapi, which must fail at a step, and returns error and hint.
func (m *mount) checkFails(t *testing.T, step string) string {
	t.Helper()
	require.Contains(t, m.succeeds(t, "read", "-field=report", "{mount}/check/myapi"), "FAILED")
	got := m.read(t, "check/myapi")
	require.Equal(t, false, got.data["ok"])
	require.Equal(t, step, got.text(t, "failed_step"), got.text(t, "report"))
	return got.text(t, "error") + "\n" + got.text(t, "hint")
}

// requireNames wants each of the texts, wherever lines are broken.
func requireNames(t *testing.T, printed string, texts ...string) {
	t.Helper()
	joined := strings.Join(strings.Fields(printed), " ")
	for _, text := range texts {
		require.Contains(t, joined, text)
	}
}

// TestCheckNamesTheNextCommand has one row for what a newcomer may get wrong at the provider.
func TestCheckNamesTheNextCommand(t *testing.T) {
	t.Parallel()
	rows := []struct {
		name   string
		change map[string]any // of the key's settings; {issuer} stands for the right issuer
		step   string
		hint   string
	}{
		{"another realm in the issuer", map[string]any{"issuer": "{issuer}-other"}, "discovery", "issuer"},
		{"a trailing slash on the issuer", map[string]any{"issuer": "{issuer}/", "token_endpoint": "{issuer}/protocol/openid-connect/token"}, "token", "issuer="},
		{"a client that nobody knows", map[string]any{"client_id": "nobody"}, "token", "vault read {mount}/keys/myapi"},
		{"another algorithm than the one that is pinned", map[string]any{"algorithm": "PS256"}, "token", "vault write {mount}/keys/myapi algorithm="},
		{"the URL of something else", map[string]any{"token_endpoint": "{issuer}/protocol/openid-connect/certs"}, "token", "vault read {mount}/keys/myapi"},
		{"a key that is disabled", map[string]any{"disabled": true}, "key", "vault write {mount}/keys/myapi disabled=false"},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			kc := realKeycloak(t)
			m := newMount(t, kc.config)
			clientID := m.newClient(t, kc, "myapi", nil)
			pinned := m.read(t, "keys/myapi")
			kc.pinAlgorithm(t, clientID, pinned.text(t, "public_key"), "RS256")
			require.Equal(t, true, m.read(t, "check/myapi").data["ok"], "before the change")
			change := map[string]any{}
			for field, value := range row.change {
				if text, ok := value.(string); ok {
					value = strings.ReplaceAll(text, "{issuer}", kc.issuer)
				}
				change[field] = value
			}
			m.write(t, "keys/myapi", change)
			requireNames(t, m.checkFails(t, row.step), m.named(row.hint))
		})
	}
	t.Run("another key is registered", func(t *testing.T) {
		t.Parallel()
		kc := realKeycloak(t)
		m := newMount(t, kc.config)
		clientID := m.newClient(t, kc, "myapi", nil)
		other := m.write(t, "keys/other", nil)
		kc.register(t, clientID, other.text(t, "public_key"))
		requireNames(t, m.checkFails(t, "version 1"), "vault read -field=public_key "+m.path+"/keys/myapi")
	})
	t.Run("the certificate was pasted", func(t *testing.T) {
		t.Parallel()
		kc := realKeycloak(t)
		m := newMount(t, kc.config)
		clientID := m.newClient(t, kc, "myapi", nil)
		kc.register(t, clientID, m.read(t, "keys/myapi").text(t, "certificate"))
		requireNames(t, m.checkFails(t, "version 1"), "vault read -field=public_key "+m.path+"/keys/myapi")
	})
	t.Run("a host that is not allowed", func(t *testing.T) {
		t.Parallel()
		m := newMount(t, map[string]any{"allow_insecure_endpoints": true})
		m.write(t, "keys/myapi", map[string]any{"client_id": "any", "issuer": "https://login.example/realms/r"})
		m.write(t, "roles/myapi", nil)
		m.write(t, "config", map[string]any{"allowed_hosts": "other.example"})
		requireNames(t, m.checkFails(t, "host"), m.path+"/config")
	})
}

// TestLifeOfKeyAndRole is what becomes of a role without its key, and of a key that a role names.
func TestLifeOfKeyAndRole(t *testing.T) {
	t.Parallel()
	p := embeddedProvider(t)
	m := newMount(t, p.config)
	m.newClient(t, p, "myapi", nil)
	m.succeeds(t, "read", "{mount}/creds/myapi")

	m.refuses(t, "vault write "+m.path+"/keys/myapi deletion_allowed=true", "delete", "{mount}/keys/myapi")
	m.succeeds(t, "write", "{mount}/keys/myapi", "deletion_allowed=true")
	m.refuses(t, "is used by the role", "delete", "{mount}/keys/myapi")

	// A role has no other name: it is made anew, and the old one deleted.
	m.succeeds(t, "write", "{mount}/roles/renamed", "key=myapi")
	m.succeeds(t, "delete", "{mount}/roles/myapi")
	m.refuses(t, `unknown role "myapi"`, "read", "{mount}/creds/myapi")
	m.succeeds(t, "read", "{mount}/creds/renamed")
	require.Contains(t, m.fails(t, "read", "{mount}/roles/myapi"), "No value found")

	m.succeeds(t, "delete", "{mount}/roles/renamed")
	m.showKeysNow(t)
	m.succeeds(t, "delete", "{mount}/keys/myapi")
	m.succeeds(t, "delete", "{mount}/keys/myapi") // deleting what is not there succeeds
	require.Contains(t, m.fails(t, "read", "{mount}/keys/myapi"), "No value found")
	require.Contains(t, m.fails(t, "list", "{mount}/keys"), "No value found")
}

// showKeysNow makes private keys known to the witness that the test is about to delete.
func (m *mount) showKeysNow(t *testing.T) {
	t.Helper()
	require.NoError(t, m.showPrivateKeys(t.Context()))
}

// TestLeasesEndWhileTheProviderIsDown: nothing that gives back tokens may depend on the provider.
func TestLeasesEndWhileTheProviderIsDown(t *testing.T) {
	t.Parallel()
	p := embeddedProvider(t)
	m := enabled(t)
	m.write(t, "config", p.config)
	m.newClient(t, p, "myapi", nil)
	lease := strings.TrimSpace(m.succeeds(t, "read", "-field=lease_id", "{mount}/creds/myapi"))
	m.succeeds(t, "read", "{mount}/creds/myapi")
	m.succeeds(t, "read", "{mount}/creds/myapi")
	p.close()
	require.Contains(t, m.fails(t, "read", "{mount}/creds/myapi"), "Code: 502")
	m.succeeds(t, "lease", "revoke", "-sync", lease)
	m.showKeysNow(t)
	m.succeeds(t, "secrets", "disable", "{mount}")
	require.NotContains(t, m.succeeds(t, "secrets", "list"), m.path)
}
