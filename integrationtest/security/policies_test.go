package security

import (
	"net/http"
	"path/filepath"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/bcgov/vault-plugin-bcgov-jwt/integrationtest/harness"
)

// TestPolicies_AllowWhatTableSays tries every operation of the engine with each of the example
// policies, as they stand, and compares the responses with the table in their README.
func TestPolicies_AllowWhatTableSays(t *testing.T) {
	t.Parallel()
	table := readPolicyTable(t)
	files, err := filepath.Glob(policyFile("*.hcl"))
	require.NoError(t, err)
	require.Len(t, files, len(table.personas), "policies, and columns of the table")

	m := harness.EnableMount(t, "bcgov-jwt") // the path in the policies
	p := harness.EmbeddedProvider(t)
	m.Write(t, "config", p.Config)
	m.NewClient(t, p, "myapi", nil)
	m.NewClient(t, p, "other", nil)
	m.NewClient(t, p, "spare", nil)
	m.Write(t, "roles/myapi-one", map[string]any{"key": "myapi"})

	attempts := attemptsOf(t, m)
	requireSamePaths(t, table, attempts)
	for _, persona := range table.personas {
		t.Run(persona, func(t *testing.T) {
			t.Parallel()
			as := withPolicy(t, m, persona)
			for _, a := range attempts {
				target, body := a.target(persona)
				status := as.Do(t, a.method, target, a.query, body).Status
				allowed := slices.Contains(table.rows[a.path][persona], a.capability)
				require.Equal(t, allowed, status != http.StatusForbidden,
					"%s %s as %s: %d", a.capability, target, persona, status)
			}
		})
	}
	t.Run("reader of another role", func(t *testing.T) {
		t.Parallel()
		withPolicy(t, m, "reader").RequireForbidden(t, http.MethodGet, "creds/other", nil)
	})
	t.Run("reader by identity and another role", func(t *testing.T) {
		t.Parallel()
		for _, path := range []string{"creds/other", "creds/{{identity.entity.name}}"} {
			withPolicy(t, m, "reader-by-identity").RequireForbidden(t, http.MethodGet, path, nil)
		}
	})
	t.Run("role author and the keys", func(t *testing.T) {
		t.Parallel()
		testRoleAuthorObtainsNoToken(t, m)
	})
	t.Run("role author of a team and other keys", func(t *testing.T) {
		t.Parallel()
		testRoleAuthorOfTeam(t, m)
	})
	t.Run("operator, registrar and the life of a key", func(t *testing.T) {
		t.Parallel()
		testOperator(t, m, p)
	})
}
