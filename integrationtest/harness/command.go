package harness

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bcgov/vault-plugin-bcgov-jwt/integrationtest/program"
)

// CommandResult holds what a command printed and its exit code.
type CommandResult struct {
	Stdout, Stderr string
	Code           int
}

// Command returns a command that ends with the test process and knows neither the developer's own
// Vault nor any other; ClientEnvironment tells it of this one.
func (v *VaultServer) Command(ctx context.Context, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = v.environment()
	cmd.SysProcAttr = program.DieWithParent()
	cmd.WaitDelay = time.Second
	return cmd
}

// PathVariable returns the variable with which a command finds the vault command.
func (v *VaultServer) PathVariable() string {
	return "PATH=" + filepath.Dir(v.Binary) + string(os.PathListSeparator) + os.Getenv("PATH")
}

// ClientEnvironment returns the variables with which a command finds the vault command, and this
// server as the owner of a Vault token.
func (v *VaultServer) ClientEnvironment(token string) []string {
	return []string{v.PathVariable(), "VAULT_ADDR=" + v.URL(), "VAULT_TOKEN=" + token}
}

// Run runs a command to its end, whatever its exit code is.
func Run(cmd *exec.Cmd) (CommandResult, error) {
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); cmd.ProcessState == nil {
		return CommandResult{}, err
	}
	return CommandResult{
		Stdout: stdout.String(), Stderr: stderr.String(), Code: cmd.ProcessState.ExitCode(),
	}, nil
}

// Expand replaces {mount} by the mount's path.
func (m *Mount) Expand(text string) string { return strings.ReplaceAll(text, "{mount}", m.Path) }

// RunVault runs the unmodified vault command as the root user; its arguments are expanded.
func (m *Mount) RunVault(t *testing.T, args ...string) CommandResult {
	t.Helper()
	args = slices.Clone(args)
	for i := range args {
		args[i] = m.Expand(args[i])
	}
	cmd := Vault().Command(t.Context(), Vault().Binary, args...)
	cmd.Env = append(cmd.Env, Vault().ClientEnvironment(Vault().RootToken)...)
	cmd.Env = append(cmd.Env, "VAULT_NAMESPACE="+m.Client.Namespace())
	result, err := Run(cmd)
	require.NoError(t, err)
	command := "vault " + strings.Join(args, " ")
	record := Detector().Record
	if result.Code == 0 && strings.Contains(command, "/creds/") {
		record = Detector().RecordToken
	}
	record("the output of `"+command+"`", result.Stdout+result.Stderr)
	return result
}

// MustRun runs a vault command that must succeed, and returns its standard output.
func (m *Mount) MustRun(t *testing.T, args ...string) string {
	t.Helper()
	result := m.RunVault(t, args...)
	require.Zero(t, result.Code, "vault %s: %s", strings.Join(args, " "), result.Stderr)
	return result.Stdout
}

// MustFail runs a vault command that must fail, and returns its standard error.
func (m *Mount) MustFail(t *testing.T, args ...string) string {
	t.Helper()
	result := m.RunVault(t, args...)
	require.Equal(t, 2, result.Code, "vault %s: %s", strings.Join(args, " "), result.Stderr)
	return result.Stderr
}

// MustFailWith is MustFail for an error of the user that contains a text.
func (m *Mount) MustFailWith(t *testing.T, text string, args ...string) {
	t.Helper()
	RequireTexts(t, m.MustFail(t, args...), "Code: 400", text)
}

// MustFailCheck runs check on the role myapi, which must fail at a step, and returns error and
// hint.
func (m *Mount) MustFailCheck(t *testing.T, step string) string {
	t.Helper()
	report := m.MustRun(t, "read", "-field=report", "{mount}/check/myapi")
	lines := strings.Split(strings.TrimSpace(report), "\n")
	require.Regexp(t, "^"+step+" +FAILED see error and hint$", lines[len(lines)-1])
	check := m.Read(t, "check/myapi")
	require.Equal(t, false, check.Data["ok"])
	require.Equal(t, step, check.Text(t, "failed_step"), check.Text(t, "report"))
	require.NotContains(t, report, check.Text(t, "error"), "no text stands twice")
	return check.Text(t, "error") + "\n" + check.Text(t, "hint")
}

// RequireTexts requires each of the texts in what was printed, wherever its lines are broken.
func RequireTexts(t *testing.T, printed string, texts ...string) {
	t.Helper()
	joined := strings.Join(strings.Fields(printed), " ")
	for _, text := range texts {
		require.Contains(t, joined, text)
	}
}
