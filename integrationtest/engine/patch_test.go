package engine

import (
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/bcgov/vault-plugin-bcgov-jwt/integrationtest/harness"
)

// TestPatch_MissingEntryIsNotFound: a patch creates nothing.
func TestPatch_MissingEntryIsNotFound(t *testing.T) {
	t.Parallel()
	m := harness.NewMount(t, nil)
	for _, path := range []string{"keys/missing", "roles/missing"} {
		got := m.Do(t, http.MethodPatch, path, nil, map[string]any{})
		require.Equal(t, http.StatusNotFound, got.Status, path)
		require.Contains(t, got.ErrorText(), `"missing"`, path)
		require.Equal(t, http.StatusNotFound, m.Do(t, http.MethodGet, path, nil, nil).Status, path)
	}
}

// TestPatch_NullRestoresDefault, and keeps the fields that it does not name.
func TestPatch_NullRestoresDefault(t *testing.T) {
	t.Parallel()
	m := harness.NewMount(t, nil)
	m.Write(t, "config", map[string]any{"request_timeout": "20s", "max_retries": 4})
	patched := m.Do(t, http.MethodPatch, "config", nil, map[string]any{"request_timeout": nil})
	require.Equal(t, http.StatusOK, patched.Status, patched.ErrorText())
	require.EqualValues(t, 10, patched.Data["request_timeout"])
	require.EqualValues(t, 4, patched.Data["max_retries"])
	require.Equal(t, patched.Data, m.Read(t, "config").Data)

	m.Write(t, "keys/myapi", map[string]any{
		"type": "ecdsa-p256", "assertion_ttl": 60, "audience": "https://login.example.com/",
	})
	patched = m.Do(t, http.MethodPatch, "keys/myapi", nil, map[string]any{"assertion_ttl": nil})
	require.Equal(t, http.StatusOK, patched.Status, patched.ErrorText())
	require.EqualValues(t, 45, patched.Data["assertion_ttl"])
	require.Equal(t, "https://login.example.com/", patched.Data["audience"])
}
