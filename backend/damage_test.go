package backend

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"github.com/hashicorp/vault/sdk/logical"
	"github.com/stretchr/testify/require"
)

// keyDamages maps what can be wrong with a stored key to what does that.
func keyDamages() map[string]func(stored string) string {
	edit := func(change func(entry map[string]any)) func(string) string {
		return func(stored string) string {
			var entry map[string]any
			if err := json.Unmarshal([]byte(stored), &entry); err != nil {
				panic(err)
			}
			change(entry)
			edited, err := json.Marshal(entry)
			if err != nil {
				panic(err)
			}
			return string(edited)
		}
	}
	return map[string]func(string) string{
		"cut":         func(stored string) string { return stored[:len(stored)/2] },
		"emptied":     func(string) string { return "" },
		"overwritten": func(stored string) string { return strings.Repeat("\x00", len(stored)) },
		"no versions": edit(func(entry map[string]any) { entry["versions"] = nil }),
		"no private key": edit(func(entry map[string]any) {
			entry["versions"].([]any)[0].(map[string]any)["private_key"] = "AAAA"
		}),
		"no type": edit(func(entry map[string]any) { entry["type"] = "" }),
	}
}

func (m *mount) damage(path string, damage func(string) string) {
	m.tb.Helper()
	stored, there := m.storage.entries(m.tb)[path]
	require.True(m.tb, there, path)
	entry := &logical.StorageEntry{Key: path, Value: []byte(damage(stored))}
	require.NoError(m.tb, m.storage.InmemStorage.Put(m.tb.Context(), entry))
}

// damagedMount returns a restarted mount whose key "myapi" is damaged; "other" and its roles work, but for one that is
// damaged.
func damagedMount(t *testing.T, damage func(string) string) *mount {
	t.Helper()
	m, p := newReadyMount(t)
	m.write("keys/other", map[string]any{"type": "ed25519", "client_id": "other", "issuer": p.issuer(), "deletion_allowed": true})
	m.write("roles/other", nil)
	m.write("roles/broken", map[string]any{"key": "other"})
	p.register(m, "other", "other")
	m.damage("key/myapi", damage)
	m.damage("role/broken", func(stored string) string { return stored[1:] })
	return mountOver(t, m.storage, m.clock)
}

func TestDamage_BlocksNothingElse(t *testing.T) {
	t.Parallel()
	for name, damage := range keyDamages() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := damagedMount(t, damage)
			require.Equal(t, []string{"myapi", "other"}, m.list("keys/"))
			require.Equal(t, []string{"broken", "myapi", "other"}, m.list("roles/"))
			m.read("info")
			m.read("creds/other")
			m.runPeriodic()
			require.Equal(t, []string{"broken", "other"}, m.read("keys/other").Data["roles"], "as its index says")
			m.write("keys/other", map[string]any{"assertion_ttl": 40})
			m.write("keys/other/rotate", nil)
			m.write("keys/new", map[string]any{"type": "ed25519"})
			private, _ := newPEM(t)
			m.write("keys/imported/import", map[string]any{"private_key": private})
			m.patch("roles/myapi", map[string]any{"allow_assertion": true})
			require.Contains(t, m.read("roles/myapi").Warnings[0], `Key "myapi": the stored entry is damaged`)
			m.write("roles/myapi", map[string]any{"key": "other"})
			m.read("creds/myapi")
		})
	}
}

func TestDamage_ErrorSaysHowToDelete(t *testing.T) {
	t.Parallel()
	for name, damage := range keyDamages() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := damagedMount(t, damage)
			before := m.storage.entries(t)
			for _, test := range []struct {
				operation logical.Operation
				path      string
				data      map[string]any
				entry     string
			}{
				{logical.ReadOperation, "keys/myapi", nil, "keys/myapi"},
				{logical.UpdateOperation, "keys/myapi", map[string]any{"client_id": "new"}, "keys/myapi"},
				{logical.PatchOperation, "keys/myapi", map[string]any{"client_id": "new"}, "keys/myapi"},
				{logical.UpdateOperation, "keys/myapi/rotate", nil, "keys/myapi"},
				{logical.UpdateOperation, "keys/myapi/activate", map[string]any{"force": true}, "keys/myapi"},
				{logical.UpdateOperation, "keys/myapi/destroy", map[string]any{"version": 1}, "keys/myapi"},
				{logical.UpdateOperation, "roles/new", map[string]any{"key": "myapi"}, "keys/myapi"},
				{logical.ReadOperation, "creds/myapi", nil, "keys/myapi"},
				{logical.ReadOperation, "roles/broken", nil, "roles/broken"},
				{logical.UpdateOperation, "roles/broken", map[string]any{"key": "other"}, "roles/broken"},
				{logical.ReadOperation, "creds/broken", nil, "roles/broken"},
			} {
				text := m.failed(http.StatusInternalServerError, test.operation, test.path, test.data)
				require.Contains(t, text, "the stored entry is damaged")
				require.True(t, strings.HasSuffix(text, "; restore it from a backup, or delete it with: vault delete bcgov-jwt/"+test.entry), text)
			}
			require.Equal(t, before, m.storage.entries(t))
		})
	}
}

func TestDamage_DamagedKeyIsDeletedAndReplaced(t *testing.T) {
	t.Parallel()
	for name, damage := range keyDamages() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := damagedMount(t, damage)
			m.storage.failNth(1, verb.writes)
			m.failed(http.StatusInternalServerError, logical.DeleteOperation, "keys/myapi", nil)
			m.storage.intercept(nil)
			m.delete("keys/myapi")
			require.Contains(t, m.log.String(), "damaged key deleted: key=myapi")
			require.NotContains(t, m.storage.entries(t), "key/myapi")
			require.Nil(t, m.read("keys/myapi"))
			require.Contains(t, m.refused(logical.ReadOperation, "creds/myapi", nil), `key "myapi", which does not exist`)
			m.write("keys/myapi", map[string]any{"type": "ed25519"})
			require.Contains(t, m.refused(logical.ReadOperation, "creds/myapi", nil), "earlier key", "a role is not moved to another key")
		})
	}
}

func TestDamage_DamagedRoleIsDeletedAndReplaced(t *testing.T) {
	t.Parallel()
	m := damagedMount(t, keyDamages()["cut"])
	m.delete("roles/other")
	require.Contains(t, m.refused(logical.DeleteOperation, "keys/other", nil), `key "other" is in use; first delete or change these roles: broken`)
	m.storage.failNth(1, verb.writes)
	m.failed(http.StatusInternalServerError, logical.DeleteOperation, "roles/broken", nil)
	m.storage.intercept(nil)
	m.delete("roles/broken")
	require.Nil(t, m.read("roles/broken"))
	require.Empty(t, m.read("keys/other").Data["roles"])
	m.write("keys/new", map[string]any{"type": "ed25519"})
	m.write("roles/broken", map[string]any{"key": "new"})
	m.delete("keys/other")
}

func TestDamage_DamagedConfigurationIsDeleted(t *testing.T) {
	t.Parallel()
	m := newMount(t)
	m.write("config", map[string]any{"max_retries": 5})
	m.damage("config", func(stored string) string { return stored[1:] })
	m.InvalidateKey(t.Context(), "config")
	require.Equal(t, "the configuration: the stored entry is damaged; restore it from a backup, or delete it with: vault delete bcgov-jwt/config",
		m.failed(http.StatusInternalServerError, logical.ReadOperation, "config", nil))
	m.failed(http.StatusInternalServerError, logical.UpdateOperation, "config", map[string]any{"max_retries": 1})
	m.delete("config")
	require.Equal(t, 2, m.read("config").Data["max_retries"])
}

// TestDamage_NewerFormatIsKept: an entry of a newer format blocks nothing else either, but cannot be deleted.
func TestDamage_NewerFormatIsKept(t *testing.T) {
	t.Parallel()
	newer := func(string) string { return `{"format":2,"settings":[]}` }
	m := damagedMount(t, newer)
	m.damage("role/other", newer)
	m.damage("config", newer)
	m = mountOver(t, m.storage, m.clock)
	for _, path := range []string{"keys/myapi", "roles/other", "config"} {
		require.Contains(t, m.failed(http.StatusInternalServerError, logical.DeleteOperation, path, nil), "newer version of this plugin")
	}
	require.Contains(t, m.read("roles/myapi").Warnings[0], "newer version of this plugin")
	require.Equal(t, []string{"broken", "other"}, m.read("keys/other").Data["roles"])
	m.refused(logical.DeleteOperation, "keys/other", nil)
}

func TestDamage_DamagedIndexBlocksNoImport(t *testing.T) {
	t.Parallel()
	m := newMount(t)
	private, _ := newPEM(t)
	keyID := m.write("keys/myapi/import", map[string]any{"private_key": private}).Data["key_id"].(string)
	m.write("keys/myapi", map[string]any{"deletion_allowed": true})
	m.delete("keys/myapi")
	require.NoError(t, m.storage.Put(t.Context(), &logical.StorageEntry{Key: "spki/" + keyID, Value: []byte("{")}))
	m.write("keys/again/import", map[string]any{"private_key": private})
	require.Contains(t, m.refused(logical.UpdateOperation, "keys/other/import", map[string]any{"private_key": private}), "this key already exists")
}
