// Package demo runs make demo and make dev, and what they tell a user to run.
package demo

import (
	"encoding/xml"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/bcgov/vault-plugin-bcgov-jwt/integrationtest/harness"
	"github.com/bcgov/vault-plugin-bcgov-jwt/integrationtest/program"
	"github.com/bcgov/vault-plugin-bcgov-jwt/integrationtest/testlog"
)

// redact removes the tokens from what a failed test prints.
func redact(text string) string {
	return regexp.MustCompile(`eyJ[\w.-]+`).ReplaceAllString(text, "eyJ…")
}

// mustRun runs a command to its end and returns its standard output.
func mustRun(t *testing.T, cmd *exec.Cmd) string {
	t.Helper()
	result, err := harness.Run(cmd)
	require.NoError(t, err)
	require.Zero(t, result.Code, "%s\n%s", redact(result.Stdout), redact(result.Stderr))
	return result.Stdout
}

// demo returns the command that runs scripts/demo.sh on a host. At its end nothing may be left of
// its files: it removes them once its servers have ended.
func demo(t *testing.T, host string, args ...string) *exec.Cmd {
	t.Helper()
	script := exec.CommandContext(t.Context(), harness.InRepository("scripts/host.sh"), host)
	if output, err := script.CombinedOutput(); err != nil {
		program.Require(t, fmt.Errorf("%w: %s: %s", program.ErrUnavailable, host, output))
	}
	folder := t.TempDir()
	t.Cleanup(func() {
		left, err := os.ReadDir(folder)
		assert.NoError(t, err)
		assert.Empty(t, left)
	})
	cmd := exec.Command(harness.InRepository("scripts/demo.sh"), args...)
	cmd.Env = append(os.Environ(), "HOST="+host, "TMPDIR="+folder)
	cmd.SysProcAttr = program.DieWithParent()
	return cmd
}

// startServers starts the demo's servers until the test ends, and returns the commands that tell a
// shell of them, and the one that allows the provider.
func startServers(t *testing.T, host string) (exports, allow string) {
	t.Helper()
	var output testlog.Buffer
	cmd := demo(t, host, "embedded", "servers")
	cmd.Stdout, cmd.Stderr = &output, &output
	require.NoError(t, cmd.Start())
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	t.Cleanup(func() {
		assert.NoError(t, cmd.Process.Signal(syscall.SIGTERM))
		assert.NoError(t, <-ended, output.String())
	})
	require.Eventually(t, func() bool { return strings.Contains(output.String(), "Ctrl-C") },
		5*time.Minute, 100*time.Millisecond)
	export := regexp.MustCompile(`(?m)^  export .*\n`)
	exports = strings.Join(export.FindAllString(output.String(), -1), "")
	return exports, regexp.MustCompile(`(?m)^  .*/config .*$`).FindString(output.String())
}

// commands returns the commands that a text shows after a prompt.
func commands(text string) []string {
	var found []string
	for _, match := range regexp.MustCompile(`(?m)^\$ (.*)$`).FindAllStringSubmatch(text, -1) {
		found = append(found, match[1])
	}
	return found
}

// drawn returns the text of a picture without what differs between two demos: encoded keys, tokens,
// times and ports.
func drawn(t *testing.T, svg string) string {
	t.Helper()
	var picture struct {
		Lines []string `xml:"text"`
	}
	require.NoError(t, xml.Unmarshal([]byte(svg), &picture))
	text := strings.Join(picture.Lines, "\n")
	random := regexp.MustCompile(`MII\S+|eyJ\S+|kid \S+|[\d-]+T[\d:]+Z|127\.0\.0\.1:\d+|curl/[\d.]+`)
	return random.ReplaceAllString(text, "*")
}
