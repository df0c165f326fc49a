package demo

import (
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/bcgov/vault-plugin-bcgov-jwt/integrationtest/harness"
)

func TestDemo_ReachesAPIWithCommandsOfVault(t *testing.T) {
	t.Parallel()
	output := mustRun(t, demo(t, "vault", "embedded"))
	require.Contains(t, commands(output), "vault read bcgov-jwt/creds/myapi")
	require.NotContains(t, redact(output), "bao ")

	current := harness.RepositoryFile(t, "docs/demo.svg")
	require.Less(t, len(current), 30_000)
	draw := exec.CommandContext(t.Context(), harness.InRepository("scripts/picture.sh"))
	draw.Stdin = strings.NewReader(output)
	require.Equal(t, drawn(t, mustRun(t, draw)), drawn(t, current),
		"docs/demo.svg is stale; run: make picture")
}

func TestDemo_ReachesAPIWithCommandsOfOpenBao(t *testing.T) {
	t.Parallel()
	output := mustRun(t, demo(t, "openbao", "embedded"))
	require.Contains(t, commands(output), "bao read bcgov-jwt/creds/myapi")
	for _, command := range commands(output) {
		require.NotContains(t, command, "vault ")
	}
}

// The commands that README shows after a prompt are run as they stand, and with them what make dev
// says: a command for its provider, and register, which stands for the portal.
func TestDev_RunsCommandsOfREADME(t *testing.T) {
	t.Parallel()
	steps := commands(harness.RepositoryFile(t, "README.md"))
	owner := slices.IndexFunc(steps, func(s string) bool { return strings.Contains(s, "/keys/") })
	require.Positive(t, owner)
	for i := range steps {
		if strings.Contains(steps[i], "-field=public_key ") {
			steps[i] += " | register"
		}
	}
	for _, host := range []string{"vault", "openbao"} {
		t.Run(host, func(t *testing.T) {
			t.Parallel()
			exports, allow := startServers(t, host)
			script := slices.Concat([]string{"set -euo pipefail", exports}, steps[:owner],
				[]string{allow}, steps[owner:])
			cmd := exec.CommandContext(t.Context(), "bash", "-c", strings.Join(script, "\n"))
			cmd.Dir = harness.InRepository(".")
			output := mustRun(t, cmd)
			assert.Contains(t, redact(output), "access_token")
			assert.Contains(t, redact(output), `{"headers":`)
		})
	}
}
