package engine

import (
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/bcgov/vault-plugin-bcgov-jwt/integrationtest/harness"
)

// TestBadInput_NamesFieldAndChangesNothing has one row for each kind of bad input, through the API
// of the real Vault.
func TestBadInput_NamesFieldAndChangesNothing(t *testing.T) {
	t.Parallel()
	m := harness.NewMount(t, nil)
	// Public hosts, which no test contacts: writes never use the network.
	m.Write(t, "config", map[string]any{"max_retries": 1})
	m.Write(t, "keys/myapi", map[string]any{
		"type": "ecdsa-p256", "client_id": "client",
		"issuer": "https://login.example.com/realms/r", "token_endpoint": "https://login.example.com/token",
	})
	m.Write(t, "roles/myapi", map[string]any{
		"scopes": []string{"one"}, "parameters": []string{"resource=https://api.example.com"},
	})
	before := readAll(t, m)

	// One after the other, so that a change is found with the row that caused it.
	for _, row := range badInputs() {
		got := m.Do(t, row.method, row.path, row.query, row.body)
		printed := strings.Join(strings.Fields(got.ErrorText()), " ")
		assert.Equal(t, http.StatusBadRequest, got.Status, "%s: %s", row.name, printed)
		for _, text := range row.want {
			assert.Contains(t, printed, text, row.name)
		}
		require.Equal(t, before, readAll(t, m), "%s changed something", row.name)
	}
}
