package engine

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bcgov/vault-plugin-bcgov-jwt/integrationtest/harness"
)

// TestCommandLine_DetailedListsAreTables has a key in each state, one of them damaged.
func TestCommandLine_DetailedListsAreTables(t *testing.T) {
	t.Parallel()
	p := harness.EmbeddedProvider(t)
	m := harness.NewMount(t, p.Config)
	settings := map[string]any{"type": "ecdsa-p256"}
	clients := map[string]string{}
	for _, name := range []string{"disabled", "staged", "waiting", "ready"} {
		clients[name] = m.NewClient(t, p, name, settings)
	}
	m.Read(t, "creds/staged")
	m.Read(t, "creds/ready")
	m.Write(t, "keys/disabled", map[string]any{"disabled": true})
	m.Write(t, "keys/staged/rotate", nil)
	m.Write(t, "keys/unregistered", settings)
	m.Write(t, "roles/scoped", map[string]any{
		"key": "ready", "delivery": "shared", "scopes": []string{"one", "two"},
	})
	damageKey(t, m, "waiting", "damaged")

	columns, keys := detailedList(t, m, "keys")
	require.Equal(t, []string{
		"Keys", "active_version", "client_id", "issuer", "staged_version", "state", "type",
	}, columns)
	require.Len(t, keys, 6)
	require.Equal(t, []string{"1", clients["ready"], p.Issuer, "0", "ready", "ecdsa-p256"}, keys["ready"])
	require.Equal(t, []string{"1", "n/a", "n/a", "0", "unregistered", "ecdsa-p256"}, keys["unregistered"])
	require.Equal(t, []string{"n/a", "n/a", "n/a", "n/a", "unreadable", "n/a"}, keys["damaged"])
	for _, name := range []string{"disabled", "staged", "waiting"} {
		require.Equal(t, name, keys[name][4])
	}
	require.Equal(t, "2", keys["staged"][3])

	columns, roles := detailedList(t, m, "roles")
	require.Equal(t, []string{"Keys", "delivery", "key", "scopes"}, columns)
	require.Len(t, roles, 5)
	require.Equal(t, []string{"leased", "ready", "[]"}, roles["ready"])
	require.Equal(t, []string{"shared", "ready", "[one two]"}, roles["scoped"])

	requireVersionsTable(t, m, "staged")
}

// requireVersionsTable lists the versions of a key with an accepted and a staged one.
func requireVersionsTable(t *testing.T, m *harness.Mount, key string) {
	t.Helper()
	columns, versions := detailedList(t, m, "keys/"+key+"/versions")
	require.Equal(t, []string{
		"Keys", "accepted_time", "activated_by", "activation_time", "creation_time", "expire_time",
		"key_id", "origin", "state",
	}, columns)
	require.Len(t, versions, 2)
	active, staged := versions["1"], versions["2"]
	for _, instant := range []string{active[0], active[2], active[3], staged[3]} {
		_, err := time.Parse(time.RFC3339, instant)
		require.NoError(t, err)
	}
	require.Equal(t, []string{"creation", "n/a", "generated", "active"},
		[]string{active[1], active[4], active[6], active[7]})
	require.Equal(t, []string{"n/a", "n/a", "n/a", "n/a", "generated", "staged"},
		[]string{staged[0], staged[1], staged[2], staged[4], staged[6], staged[7]})
	require.Equal(t, m.Read(t, "keys/"+key).Text(t, "key_id"), staged[5], "the one to register")
	require.NotEqual(t, staged[5], active[5])
}

// TestCommandLine_KeyFitsOnScreen prints the response to each read and write of a key.
func TestCommandLine_KeyFitsOnScreen(t *testing.T) {
	t.Parallel()
	p := harness.EmbeddedProvider(t)
	m := harness.NewMount(t, p.Config)
	file := filepath.Join(t.TempDir(), "client.key")
	_, privatePEM := harness.NewPrivateKey(t)
	require.NoError(t, os.WriteFile(file, []byte(privatePEM), 0o600))
	for _, command := range []string{
		"write -f {mount}/keys/myapi",
		"read {mount}/keys/myapi",
		"write {mount}/keys/myapi client_id=client issuer=" + p.Issuer,
		"write -f {mount}/roles/myapi",
		"write -f {mount}/keys/myapi/rotate",
		"write -f {mount}/keys/myapi/rotate", // again
		"write {mount}/keys/myapi/activate force=true",
		"write {mount}/keys/myapi/destroy version=1",
		"patch {mount}/keys/myapi registration=jwks prepublish_period=0",
		"write -f {mount}/keys/myapi/rotate",
		"write {mount}/keys/imported/import private_key=@" + file,
	} {
		m.RecordPrivateKeys(t)
		result := m.RunVault(t, strings.Fields(command)...)
		require.Zero(t, result.Code, result.Stderr)
		printed := withoutPEM(result.Stdout) // warnings are on standard error
		require.LessOrEqual(t, strings.Count(printed, "\n"), 30, "%s prints:\n%s", command, printed)
	}
}

// TestCommandLine_CertificateIsAField that openssl reads.
func TestCommandLine_CertificateIsAField(t *testing.T) {
	t.Parallel()
	m := harness.NewMount(t, nil)
	m.Write(t, "keys/myapi", nil)
	m.Write(t, "keys/myapi/rotate", nil)
	for path, version := range map[string]string{
		"{mount}/keys/myapi/certificate": "2", "{mount}/keys/myapi/versions/1": "1",
	} {
		file := filepath.Join(t.TempDir(), "client.crt")
		certificate := m.MustRun(t, "read", "-field=certificate", path)
		require.NoError(t, os.WriteFile(file, []byte(certificate), 0o600))
		publicKey := harness.OpenSSL(t, "x509", "-in", file, "-noout", "-pubkey")
		require.Equal(t, publicKey, m.MustRun(t, "read", "-field=public_key", path))
		require.Equal(t, version, m.MustRun(t, "read", "-field=version", path))
	}
	require.Equal(t, m.MustRun(t, "read", "-field=public_key", "{mount}/keys/myapi"),
		m.MustRun(t, "read", "-field=public_key", "{mount}/keys/myapi/certificate"))
}
