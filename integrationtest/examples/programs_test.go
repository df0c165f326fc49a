package examples

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

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
				testKeepsValidToken(t, start, delivery, programTokenLifetime)
			})
		}
	}
}

// TestPrograms_SpringVaultKeepsValidToken is the same for the Java program, which reads only leased
// tokens again.
func TestPrograms_SpringVaultKeepsValidToken(t *testing.T) {
	t.Parallel()
	if !harness.Slow() {
		t.Skip("skipped: the Java example, as SLOW is not true")
	}
	testKeepsValidToken(t, startJavaExample, "leased", springTokenLifetime)

	p := harness.EmbeddedProvider(t)
	m := harness.NewMount(t, p.Config)
	newShortLivedRole(t, m, p, "shared", springTokenLifetime)
	run := startJavaExample(t, m, p, "shared")
	require.Eventually(t, func() bool {
		_, err := run.inspect()
		return err != nil && strings.Contains(err.Error(), "expired")
	}, 2*springTokenLifetime, time.Second, "what the README says of other deliveries")
}

func testKeepsValidToken(
	t *testing.T, start startProgram, delivery string, lifetime time.Duration,
) {
	t.Helper()
	p := harness.EmbeddedProvider(t)
	m := harness.NewMount(t, p.Config)
	role := newShortLivedRole(t, m, p, delivery, lifetime)
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
}
