package examples

import (
	"testing"
	"time"

	"github.com/bcgov/vault-plugin-bcgov-jwt/integrationtest/harness"
)

// TestPrograms_KeepValidToken runs the programs of the documentation as they stand: over the
// lifetimes of several tokens, and while no token is available.
func TestPrograms_KeepValidToken(t *testing.T) {
	t.Parallel()
	for name, start := range map[string]startProgram{
		"curl": startKeepToken, "go": startGoExample,
		"python": startPythonExample, "node": startNodeExample,
	} {
		for _, delivery := range []string{"leased", "shared"} {
			t.Run(name+" "+delivery, func(t *testing.T) {
				t.Parallel()
				p := harness.EmbeddedProvider(t)
				m := harness.NewMount(t, p.Config)
				role := newShortLivedRole(t, m, p, delivery)
				run := start(t, m, p, delivery)
				begun := time.Now()

				run.waitForTokens(t, 4)
				m.Delete(t, "roles/"+delivery)
				run.waitForOutput(t, "no new token")
				seen := run.waitForTokens(t, 0)
				m.Write(t, "roles/"+delivery, role)
				run.waitForTokens(t, seen+1)
				for time.Since(begun) < 3*programVaultPeriod/2 {
					seen = run.waitForTokens(t, seen+1)
				}
				run.stop(t)
			})
		}
	}
}
