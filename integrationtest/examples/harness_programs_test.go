package examples

import (
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"
	"github.com/stretchr/testify/require"

	"github.com/bcgov/vault-plugin-bcgov-jwt/integrationtest/harness"
)

const (
	// A token of 20 s that is due again after 3 s leaves a loaded machine 17 s to obtain the next
	// one.
	programTokenLifetime = 20 * time.Second
	programTokenMargin   = 17 * time.Second
	// Spring Vault reads again after 10 s at the earliest.
	springTokenLifetime = programTokenLifetime + 10*time.Second
	// programVaultPeriod is the lifetime of a program's Vault token, unless the program renews it.
	programVaultPeriod = 10 * time.Second
)

// newShortLivedRole creates a role whose tokens live this long and are due again after 3 s, and
// returns its settings.
func newShortLivedRole(
	t *testing.T, m *harness.Mount, p *harness.Provider, delivery string, lifetime time.Duration,
) (role map[string]any) {
	t.Helper()
	m.NewClientWithTokenLifetime(t, p, "myapi", lifetime, nil, nil)
	margin := lifetime - programTokenLifetime + programTokenMargin
	role = map[string]any{"key": "myapi", "delivery": delivery, "refresh_margin": margin.String()}
	m.Write(t, "roles/"+delivery, role)
	return role
}

// startProgram starts an example program for a role.
type startProgram func(t *testing.T, m *harness.Mount, p *harness.Provider, role string) *program

// program is an example program that runs.
type program struct {
	*process
	// inspect returns how many tokens the program has used so far, or what is wrong with the one
	// that it uses now.
	inspect func() (int, error)
}

// waitForTokens waits until the program has used so many tokens, and requires each to be valid for
// as long as it is used.
func (p *program) waitForTokens(t *testing.T, tokens int) int {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		used, err := p.inspect()
		require.NoError(t, err, p.lastOutput())
		if used >= tokens {
			return used
		}
		require.True(t, time.Now().Before(deadline), "%d of %d tokens: %s", used, tokens,
			p.lastOutput())
	}
}

// waitForOutput waits until the program has printed a text, and requires its tokens to be valid in
// the meantime.
func (p *program) waitForOutput(t *testing.T, text string) {
	t.Helper()
	deadline := time.Now().Add(programTokenMargin)
	for !strings.Contains(p.String(), text) {
		p.waitForTokens(t, 0)
		require.True(t, time.Now().Before(deadline), p.lastOutput())
		time.Sleep(20 * time.Millisecond)
	}
}

// startKeepToken starts the shell script, whose token is in a file.
func startKeepToken(
	t *testing.T, m *harness.Mount, _ *harness.Provider, role string,
) *program {
	t.Helper()
	commands := recordCurl(t)
	file := filepath.Join(t.TempDir(), "token")
	vaultToken := newProgramToken(t, m, role)
	run := runProgram(t, vaultToken, filepath.Dir(commands), example("curl/keep-token.sh"),
		m.Path, role, file)
	seen := map[string]bool{}
	t.Cleanup(func() {
		recorded, err := os.ReadFile(commands)
		if err != nil {
			t.Error(err)
			return
		}
		harness.Detector().Record("the command lines of keep-token.sh", string(recorded))
		if strings.Contains(string(recorded), vaultToken) {
			t.Error("the Vault token was on a command line")
		}
		// It waits between reads. For shared the last second may take two.
		if reads := strings.Count(string(recorded), "/creds/"); reads > 3*len(seen)+5 {
			t.Errorf("%d reads for %d tokens", reads, len(seen))
		}
	})
	return &program{process: run, inspect: func() (int, error) {
		content, err := os.ReadFile(file)
		if os.IsNotExist(err) && len(seen) == 0 {
			return 0, nil
		}
		if err != nil {
			return 0, err
		}
		if err := checkPrivate(file); err != nil {
			return 0, err
		}
		seen[string(content)] = true
		return len(seen), checkUnexpired(string(content))
	}}
}

// recordCurl creates a folder with a curl that first writes its arguments to a file beside it, and
// returns that file.
func recordCurl(t *testing.T) (commands string) {
	t.Helper()
	curl, err := exec.LookPath("curl")
	require.NoError(t, err)
	dir := t.TempDir()
	commands = filepath.Join(dir, "commands")
	recorder := fmt.Sprintf("#!/bin/sh\nprintf '%%s\\n' \"$*\" >>'%s'\nexec '%s' \"$@\"\n",
		commands, curl)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "curl"), []byte(recorder), 0o700))
	return commands
}

// startGoExample starts the Go program, whose tokens are those that its API receives.
func startGoExample(
	t *testing.T, m *harness.Mount, p *harness.Provider, role string,
) *program {
	t.Helper()
	accepting := p.NewAPI(t)
	binary := filepath.Join(t.TempDir(), "example")
	build := exec.CommandContext(t.Context(), "go", "build", "-buildvcs=false", "-o", binary,
		example("go"))
	output, err := build.CombinedOutput()
	require.NoError(t, err, string(output))
	return callAPI(t, m, accepting, role, binary, "-creds", m.Path+"/creds/"+role,
		"-url", accepting.URL, "-every", "100ms")
}

// startPythonExample starts the Python program with the libraries that it pins.
func startPythonExample(
	t *testing.T, m *harness.Mount, p *harness.Provider, role string,
) *program {
	t.Helper()
	libraries := scriptOutput(t, harness.ExampleLibrariesScript, "python")
	accepting := p.NewAPI(t)
	return callAPI(t, m, accepting, role, "env", "PYTHONPATH="+libraries, "python3",
		example("python/main.py"), m.Path+"/creds/"+role, accepting.URL, "0.1")
}

// startNodeExample starts the Node.js program beside the libraries that it pins.
func startNodeExample(
	t *testing.T, m *harness.Mount, p *harness.Provider, role string,
) *program {
	t.Helper()
	libraries := scriptOutput(t, harness.ExampleLibrariesScript, "node")
	dir := t.TempDir()
	require.NoError(t, os.CopyFS(dir, os.DirFS(example("node"))))
	modules := "node_modules"
	require.NoError(t, os.Symlink(filepath.Join(libraries, modules), filepath.Join(dir, modules)))
	accepting := p.NewAPI(t)
	return callAPI(t, m, accepting, role, "node", filepath.Join(dir, "main.mjs"),
		m.Path+"/creds/"+role, accepting.URL, "0.1")
}

// startJavaExample starts the Java program, which Maven has built with the libraries that it pins.
func startJavaExample(
	t *testing.T, m *harness.Mount, p *harness.Provider, role string,
) *program {
	t.Helper()
	dir := scriptOutput(t, harness.ExampleLibrariesScript, "java") + "/target/"
	accepting := p.NewAPI(t)
	return callAPI(t, m, accepting, role, "java", "-cp", dir+"classes:"+dir+"dependency/*", "Main",
		m.Path+"/creds/"+role, accepting.URL, "0.1")
}

// callAPI starts a program that calls an API. Its tokens are those that the API receives.
func callAPI(
	t *testing.T, m *harness.Mount, accepting *harness.API, role, command string, args ...string,
) *program {
	t.Helper()
	run := runProgram(t, newProgramToken(t, m, role), "", command, args...)
	return &program{process: run, inspect: func() (int, error) {
		if rejections := accepting.Rejections(); len(rejections) > 0 {
			return 0, errors.New("the API responded " + rejections[0])
		}
		return accepting.Tokens(), nil
	}}
}

// newProgramToken creates a Vault token with the example's policy, which expires soon unless it is
// renewed.
func newProgramToken(t *testing.T, m *harness.Mount, role string) string {
	t.Helper()
	policy, err := os.ReadFile(example("policies/reader.hcl"))
	require.NoError(t, err)
	own := strings.NewReplacer("bcgov-jwt/", m.Path+"/", "/myapi", "/"+role)
	name := "program-" + strings.ToLower(rand.Text())
	m.WritePolicy(t, name, own.Replace(string(policy)))
	request := &api.TokenCreateRequest{
		Policies: []string{name}, Period: programVaultPeriod.String(),
	}
	token, err := m.Client.Auth().Token().CreateOrphanWithContext(t.Context(), request)
	require.NoError(t, err)
	return token.Auth.ClientToken
}

// runProgram starts a command as the owner of a Vault token. It finds other commands in a folder
// first.
func runProgram(t *testing.T, vaultToken, folder, command string, args ...string) *process {
	t.Helper()
	cmd := harness.Vault().Command(t.Context(), command, args...)
	cmd.Env = append(cmd.Env, "VAULT_ADDR="+harness.Vault().URL(), "VAULT_TOKEN="+vaultToken,
		"PATH="+folder+string(os.PathListSeparator)+os.Getenv("PATH"))
	cmd.SysProcAttr.Setpgid = true // so that a shell's sleep can be stopped with it
	p := startProcess(t, cmd)
	t.Cleanup(func() {
		p.kill()
		harness.Detector().Record("the output of "+filepath.Base(command), p.String())
		if strings.Contains(p.String(), vaultToken) {
			t.Error("the Vault token was printed")
		}
	})
	return p
}

// kill ends the process and its children.
func (p *process) kill() {
	_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL) // it may have ended already
	<-p.ended
}

// stop requires that the program has run until now, and ends it.
func (p *program) stop(t *testing.T) {
	t.Helper()
	p.requireRunning(t)
	p.kill()
}
