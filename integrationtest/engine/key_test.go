package engine

import (
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/bcgov/vault-plugin-bcgov-jwt/integrationtest/harness"
)

// TestKey_IsNotDeletedWhileRoleUsesIt also covers a role without its key.
func TestKey_IsNotDeletedWhileRoleUsesIt(t *testing.T) {
	t.Parallel()
	p := harness.EmbeddedProvider(t)
	m := harness.NewMount(t, p.Config)
	m.NewClient(t, p, "myapi", nil)
	m.MustRun(t, "read", "{mount}/creds/myapi")

	m.MustFailWith(t, m.Expand("vault write {mount}/keys/myapi deletion_allowed=true"),
		"delete", "{mount}/keys/myapi")
	m.MustRun(t, "write", "{mount}/keys/myapi", "deletion_allowed=true")
	m.MustFailWith(t, "is in use; first delete or change these roles", "delete", "{mount}/keys/myapi")

	// A role is not renamed: another one is created, and the old one deleted.
	m.MustRun(t, "write", "{mount}/roles/renamed", "key=myapi")
	m.MustRun(t, "delete", "{mount}/roles/myapi")
	m.MustFailWith(t, `unknown role "myapi"`, "read", "{mount}/creds/myapi")
	m.MustRun(t, "read", "{mount}/creds/renamed")
	require.Contains(t, m.MustFail(t, "read", "{mount}/roles/myapi"), "No value found")

	m.MustRun(t, "delete", "{mount}/roles/renamed")
	m.RecordPrivateKeys(t)
	m.MustRun(t, "delete", "{mount}/keys/myapi")
	m.MustRun(t, "delete", "{mount}/keys/myapi") // deleting what does not exist succeeds
	require.Contains(t, m.MustFail(t, "read", "{mount}/keys/myapi"), "No value found")
	require.Contains(t, m.MustFail(t, "list", "{mount}/keys"), "No value found")
}

// TestKey_RecreatedKeyIsNotTheRoles: a role does not silently sign with another key of the same
// name. As the key of a role cannot be deleted, only a lost index entry, as after a crash, leads
// there.
func TestKey_RecreatedKeyIsNotTheRoles(t *testing.T) {
	t.Parallel()
	p := harness.EmbeddedProvider(t)
	m := harness.NewMount(t, p.Config)
	settings := map[string]any{"type": "ecdsa-p256", "deletion_allowed": true}
	clientID := m.NewClient(t, p, "myapi", settings)
	m.RecordPrivateKeys(t)
	got := m.Do(t, http.MethodDelete, "keys/myapi", nil, nil)
	require.Equal(t, http.StatusBadRequest, got.Status)
	require.Contains(t, got.ErrorText(), "myapi", "the role that uses the key")
	_, err := m.Client.Logical().DeleteWithContext(t.Context(), m.RawPath("key-role/myapi/myapi"))
	require.NoError(t, err)
	m.Delete(t, "keys/myapi")

	got = m.Do(t, http.MethodGet, "creds/myapi", nil, nil)
	require.Contains(t, got.ErrorText(), `key "myapi", which does not exist`)
	m.Write(t, "keys/myapi", settings)
	registered := m.Write(t, "keys/myapi",
		map[string]any{"client_id": clientID, "issuer": p.Issuer})
	p.Register(t, clientID, registered.Text(t, "public_key"))
	remedy := m.Expand("vault write {mount}/roles/myapi key=myapi")
	got = m.Do(t, http.MethodGet, "creds/myapi", nil, nil)
	require.Equal(t, http.StatusBadRequest, got.Status)
	require.Contains(t, got.ErrorText(), remedy)
	harness.RequireTexts(t, m.MustFailCheck(t, "key"), remedy)
	m.MustRun(t, strings.Fields(remedy)[1:]...)
	m.Read(t, "creds/myapi")
}
