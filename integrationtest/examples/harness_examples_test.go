package examples

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	"github.com/stretchr/testify/require"

	"github.com/bcgov/vault-plugin-bcgov-jwt/integrationtest/harness"
	"github.com/bcgov/vault-plugin-bcgov-jwt/integrationtest/testlog"
)

// example returns the path of a file of the examples.
func example(path string) string { return harness.InRepository("docs/examples/" + path) }

// runScript runs a command to its end with no environment but this.
func runScript(t *testing.T, environment []string, command ...string) harness.CommandResult {
	t.Helper()
	cmd := harness.Vault().Command(t.Context(), command[0], command[1:]...)
	cmd.Env = append(cmd.Env, environment...)
	result, err := harness.Run(cmd)
	require.NoError(t, err)
	return result
}

// runExample runs a script of the examples on the mount. If it prints a public key, paste does what
// the script tells its user to do.
func runExample(
	t *testing.T, m *harness.Mount, script string, paste func(publicKey string), args ...string,
) (printed string) {
	t.Helper()
	cmd := harness.Vault().Command(t.Context(), example(script),
		append([]string{m.Path}, args...)...)
	cmd.Env = append(cmd.Env, harness.Vault().ClientEnvironment(m.Client.Token())...)
	cmd.Env = append(cmd.Env, "POLL_SECONDS=1")
	var stderr strings.Builder
	cmd.Stderr = &stderr
	stdout, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	printed = follow(t, stdout, paste)
	err = cmd.Wait()
	harness.Detector().Record("the output of "+script, printed+stderr.String())
	require.NoError(t, err, "%s\n%s", printed, stderr.String())
	return printed
}

// follow reads what a script prints until it ends, and pastes each public key.
func follow(t *testing.T, stdout io.Reader, paste func(publicKey string)) string {
	t.Helper()
	var printed, publicKey strings.Builder
	lines := bufio.NewScanner(stdout)
	inKey := false
	for lines.Scan() {
		line := lines.Text()
		printed.WriteString(line + "\n")
		inKey = inKey || strings.HasPrefix(line, "-----BEGIN PUBLIC KEY")
		if inKey {
			publicKey.WriteString(line + "\n")
		}
		if strings.HasPrefix(line, "-----END PUBLIC KEY") {
			paste(publicKey.String())
			publicKey.Reset()
			inKey = false
		}
	}
	require.NoError(t, lines.Err())
	return printed.String()
}

// scriptOutput returns the path that a script prints. If the script fails the test is skipped, but
// fails with CI=true.
func scriptOutput(t *testing.T, script string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), harness.InRepository(script), args...)
	cmd.Stderr = os.Stderr // it says if it has to build, which takes minutes
	output, err := cmd.Output()
	if err != nil && os.Getenv("CI") != "true" {
		t.Skipf("skipped: %s %s: %v", script, strings.Join(args, " "), err)
	}
	require.NoError(t, err, script)
	return strings.TrimSpace(string(output))
}

// checkUnexpired returns an error unless a token is still valid.
func checkUnexpired(token string) error {
	parsed, err := jwt.ParseSigned(token, []jose.SignatureAlgorithm{jose.RS256})
	if err != nil {
		return fmt.Errorf("what should be a token: %w", err)
	}
	var claims jwt.Claims
	if err := parsed.UnsafeClaimsWithoutVerification(&claims); err != nil {
		return err
	}
	if late := time.Since(claims.Expiry.Time()); late >= 0 {
		return fmt.Errorf("the token expired %s ago", late)
	}
	return nil
}

// checkPrivate returns an error unless a file is accessible to its owner alone.
func checkPrivate(path string) error {
	info, err := os.Stat(path)
	if err == nil && info.Mode() != 0o600 {
		err = fmt.Errorf("the mode of %s is %s", path, info.Mode())
	}
	return err
}

// process is a command that runs until it is stopped.
type process struct {
	cmd    *exec.Cmd
	ended  chan struct{}
	output testlog.Buffer
}

// startProcess starts a command.
func startProcess(t *testing.T, cmd *exec.Cmd) *process {
	t.Helper()
	p := &process{cmd: cmd, ended: make(chan struct{})}
	cmd.Stdout, cmd.Stderr = &p.output, &p.output
	require.NoError(t, cmd.Start())
	go func() {
		_ = cmd.Wait() // it is stopped, so its exit status means nothing
		close(p.ended)
	}()
	return p
}

// String returns what the process and its children have printed so far.
func (p *process) String() string { return p.output.String() }

func (p *process) requireRunning(t *testing.T) {
	t.Helper()
	select {
	case <-p.ended:
		t.Fatal("it ended on its own: " + p.lastOutput())
	default:
	}
}

// lastOutput returns the end of what the process has printed, for a failed test.
func (p *process) lastOutput() string {
	output := p.String()
	return output[max(0, len(output)-1000):]
}
