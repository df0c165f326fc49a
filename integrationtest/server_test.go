package integrationtest

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/hashicorp/vault/api"
)

const (
	pluginName    = "vault-plugin-bcgov-jwt"
	pluginVersion = "v1.0.0-test"
	startTimeout  = time.Minute
)

// vaultServer is a real Vault server with the plugin in its catalog.
type vaultServer struct {
	Command   string // the vault binary, server and CLI
	Address   string
	RootToken string
	PID       int
	Dir       string // everything of the server; gone when it stops

	cmd    *exec.Cmd
	exited chan struct{}
}

func (v *vaultServer) logFile() string         { return filepath.Join(v.Dir, "vault.log") }
func (v *vaultServer) auditFile() string       { return filepath.Join(v.Dir, "audit.log") }
func (v *vaultServer) pluginDirectory() string { return filepath.Join(v.Dir, "plugins") }
func (v *vaultServer) home() string            { return filepath.Join(v.Dir, "home") }

// startVault builds the plugin and starts a server that has it. The server outlives ctx; the caller stops it.
func startVault(ctx context.Context) (*vaultServer, error) {
	v := &vaultServer{RootToken: "root-" + rand.Text(), exited: make(chan struct{})}
	var err error
	if v.Dir, err = temporaryDirectory(); err != nil {
		return nil, err
	}
	for _, step := range []func(context.Context) error{v.prepare, v.start, v.waitReady, v.setUp} {
		if err := step(ctx); err != nil {
			tail, _ := os.ReadFile(v.logFile())
			return nil, errors.Join(fmt.Errorf("vault: %w; the end of its log:\n%s", err, tail[max(0, len(tail)-2000):]), v.stop())
		}
	}
	return v, nil
}

// temporaryDirectory has no symbolic link in its path, which Vault does not allow for the plugin directory.
func temporaryDirectory() (string, error) {
	dir, err := os.MkdirTemp("", "bcgov-jwt-")
	if err != nil {
		return "", err
	}
	return filepath.EvalSymlinks(dir)
}

func (v *vaultServer) prepare(ctx context.Context) error {
	script := exec.CommandContext(ctx, "../scripts/vault.sh")
	script.Stderr = os.Stderr // it says when it has to build Vault, which takes minutes
	output, err := script.Output()
	if err != nil {
		return fmt.Errorf("scripts/vault.sh: %w", err)
	}
	v.Command = strings.TrimSpace(string(output))
	for _, dir := range []string{v.pluginDirectory(), v.home()} {
		if err := os.Mkdir(dir, 0o700); err != nil {
			return err
		}
	}
	if v.Address, err = freeAddress(); err != nil {
		return err
	}
	return v.buildPlugin(ctx, pluginName, pluginVersion)
}

// buildPlugin builds the plugin into the plugin directory, stamped as a release is.
func (v *vaultServer) buildPlugin(ctx context.Context, command, version string) error {
	build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false", "-ldflags", "-X main.version="+version+" -X main.commit=test",
		"-o", filepath.Join(v.pluginDirectory(), command), "../cmd/vault-plugin-bcgov-jwt")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if output, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("build the plugin: %w\n%s", err, output)
	}
	return nil
}

// freeAddress is free now; the server takes it a moment later.
func freeAddress() (string, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer listener.Close()
	return listener.Addr().String(), nil
}

// start starts a development server: in memory, unsealed, with the root token given. It leaves ~/.vault-token alone.
func (v *vaultServer) start(context.Context) error {
	config := filepath.Join(v.Dir, "vault.hcl")
	// sys/raw shows the tests what is stored.
	settings := fmt.Sprintf("raw_storage_endpoint = true\nplugin_directory = %q\n", v.pluginDirectory())
	if err := os.WriteFile(config, []byte(settings), 0o600); err != nil {
		return err
	}
	log, err := os.Create(v.logFile())
	if err != nil {
		return err
	}
	defer log.Close()
	v.cmd = exec.Command(v.Command, "server", "-dev", "-dev-no-kv", "-dev-no-store-token", "-dev-root-token-id="+v.RootToken,
		"-dev-listen-address="+v.Address, "-config="+config, "-log-level=trace")
	v.cmd.Env = v.environment()
	v.cmd.Stdout, v.cmd.Stderr = log, log
	v.cmd.SysProcAttr = dieWithParent()
	v.cmd.SysProcAttr.Setpgid = true // so that its plugins can be stopped with it
	if err := v.cmd.Start(); err != nil {
		return err
	}
	v.PID = v.cmd.Process.Pid
	go func() {
		_ = v.cmd.Wait() // a stopped server has no exit status worth telling
		close(v.exited)
	}()
	return nil
}

// environment keeps the developer's own Vault, proxy and home out of it.
func (v *vaultServer) environment() []string {
	return []string{"PATH=" + os.Getenv("PATH"), "TMPDIR=" + os.TempDir(), "HOME=" + v.home()}
}

func (v *vaultServer) waitReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	client, err := v.client(nil)
	if err != nil {
		return err
	}
	for {
		if health, err := client.Sys().HealthWithContext(ctx); err == nil && health.Initialized && !health.Sealed {
			return nil
		}
		select {
		case <-v.exited:
			return errors.New("exited before it was ready")
		case <-ctx.Done():
			return fmt.Errorf("not ready: %w", ctx.Err())
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func (v *vaultServer) setUp(ctx context.Context) error {
	client, err := v.client(nil)
	if err != nil {
		return err
	}
	audit := &api.EnableAuditOptions{Type: "file", Options: map[string]string{"file_path": v.auditFile()}}
	if err := client.Sys().EnableAuditWithOptionsWithContext(ctx, "file", audit); err != nil {
		return err
	}
	return v.register(ctx, client, pluginName, pluginName, pluginVersion)
}

// register puts a binary of the plugin directory into the catalog.
func (v *vaultServer) register(ctx context.Context, client *api.Client, name, command, version string) error {
	binary, err := os.ReadFile(filepath.Join(v.pluginDirectory(), command))
	if err != nil {
		return err
	}
	sum := sha256.Sum256(binary)
	return client.Sys().RegisterPluginWithContext(ctx, &api.RegisterPluginInput{
		Name: name, Type: api.PluginTypeSecrets, Command: command, SHA256: hex.EncodeToString(sum[:]), Version: version,
	})
}

// client returns a client that tries each request once. What the server answers is shown to observer unless that is nil.
func (v *vaultServer) client(observer *witness) (*api.Client, error) {
	config := api.DefaultConfig()
	if config.Error != nil {
		return nil, config.Error
	}
	config.Address = "http://" + v.Address
	config.MaxRetries = 0
	config.HttpClient.Transport = observer.transport(config.HttpClient.Transport)
	client, err := api.NewClient(config)
	if err != nil {
		return nil, err
	}
	client.SetToken(v.RootToken)
	return client, nil
}

func (v *vaultServer) stop() error {
	defer os.RemoveAll(v.Dir)
	if v.PID == 0 {
		return nil
	}
	defer syscall.Kill(-v.PID, syscall.SIGKILL) //nolint:errcheck // there is nobody left, if all went well
	if err := v.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	select {
	case <-v.exited:
		return nil
	case <-time.After(shutdownGrace):
		return errors.New("vault did not stop in time and was killed")
	}
}

// commandResult is what a command printed and how it ended.
type commandResult struct {
	stdout, stderr string
	code           int
}

// run runs the unmodified vault command as the root user of the server.
func (v *vaultServer) run(ctx context.Context, args ...string) (commandResult, error) {
	cmd := exec.CommandContext(ctx, v.Command, args...)
	cmd.Env = append(v.environment(), "VAULT_ADDR=http://"+v.Address, "VAULT_TOKEN="+v.RootToken)
	cmd.SysProcAttr = dieWithParent()
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	if _, ok := errors.AsType[*exec.ExitError](err); ok { // the exit code says it
		err = nil
	}
	return commandResult{stdout: stdout.String(), stderr: stderr.String(), code: cmd.ProcessState.ExitCode()}, err
}
