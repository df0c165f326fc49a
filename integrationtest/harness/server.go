package harness

import (
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
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"
	"github.com/stretchr/testify/require"

	"github.com/bcgov/vault-plugin-bcgov-jwt/integrationtest/program"
)

const (
	// PluginName is the plugin's name in the catalog of each server.
	PluginName = "vault-plugin-bcgov-jwt"
	// PluginVersion is the version of the plugin that each server has.
	PluginVersion = "v1.0.0-test"
	startTimeout  = time.Minute
)

// VaultServer is a real Vault server with the plugin in its catalog.
type VaultServer struct {
	Host      Host
	Binary    string // the host's server and CLI, by the name vault
	Address   string
	RootToken string
	PID       int
	Dir       string // everything of the server; removed when it stops

	quiet  bool
	cmd    *exec.Cmd
	exited chan struct{}
}

// URL returns the server's base URL.
func (v *VaultServer) URL() string { return "http://" + v.Address }

// LogFile returns the path of the server's log.
func (v *VaultServer) LogFile() string { return filepath.Join(v.Dir, "vault.log") }

// AuditFile returns the path of the server's audit log.
func (v *VaultServer) AuditFile() string { return filepath.Join(v.Dir, "audit.log") }

// PluginDirectory returns the folder of the plugin binaries.
func (v *VaultServer) PluginDirectory() string { return filepath.Join(v.Dir, "plugins") }

func (v *VaultServer) home() string { return filepath.Join(v.Dir, "home") }

func (v *VaultServer) configFile() string { return filepath.Join(v.Dir, "vault.hcl") }

// StartQuiet starts a server without an audit log and with log level info, for measurements. The
// server outlives ctx; the caller stops it.
func StartQuiet(ctx context.Context) (*VaultServer, error) { return startVault(ctx, true) }

// startVault builds the plugin and starts a server that has it.
func startVault(ctx context.Context, quiet bool) (*VaultServer, error) {
	v := &VaultServer{Host: selectedHost(), RootToken: "root-" + rand.Text(), quiet: quiet}
	var err error
	if v.Dir, err = temporaryDirectory(); err != nil {
		return nil, err
	}
	for _, step := range []func(context.Context) error{v.prepare, v.start, v.waitReady, v.setUp} {
		if err := step(ctx); err != nil {
			log, _ := os.ReadFile(v.LogFile())
			err = fmt.Errorf("vault: %w; the end of its log:\n%s", err, log[max(0, len(log)-2000):])
			return nil, errors.Join(err, v.Stop())
		}
	}
	return v, nil
}

// temporaryDirectory creates a folder without a symbolic link in its path: Vault does not allow one
// in the path of the plugin directory.
func temporaryDirectory() (string, error) {
	dir, err := os.MkdirTemp("", "bcgov-jwt-")
	if err != nil {
		return "", err
	}
	return filepath.EvalSymlinks(dir)
}

func (v *VaultServer) prepare(ctx context.Context) error {
	binary, err := v.Host.binary(ctx)
	if err != nil {
		return err
	}
	v.Binary = filepath.Join(v.Dir, "vault")
	if err := errors.Join(v.createFolders(), os.Symlink(binary, v.Binary)); err != nil {
		return err
	}
	if v.Address, err = freeAddress(); err != nil {
		return err
	}
	return v.BuildPlugin(ctx, PluginName, PluginVersion)
}

func (v *VaultServer) createFolders() error {
	return errors.Join(os.Mkdir(v.PluginDirectory(), 0o700), os.Mkdir(v.home(), 0o700))
}

// BuildPlugin builds the plugin into the plugin directory, stamped like a release.
func (v *VaultServer) BuildPlugin(ctx context.Context, command, version string) error {
	build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false",
		"-ldflags", "-X main.version="+version+" -X main.commit=test",
		"-o", filepath.Join(v.PluginDirectory(), command), InRepository("cmd/vault-plugin-bcgov-jwt"))
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if output, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("build the plugin: %w\n%s", err, output)
	}
	return nil
}

// freeAddress returns an address that is free now, as is the next port, which a development server
// takes for its cluster; the server binds both a moment later.
func freeAddress() (string, error) {
	port, err := program.FreePort()
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)), err
}

// start starts a development server: in memory, unsealed, with the given root token. It leaves
// ~/.vault-token alone.
func (v *VaultServer) start(context.Context) error {
	config, level := fmt.Sprintf("plugin_directory = %q\n", v.PluginDirectory()), "info"
	if !v.quiet {
		// sys/raw shows the tests what is stored.
		config += "raw_storage_endpoint = true\n" + v.Host.auditConfig(v.AuditFile())
		level = "trace"
	}
	if err := os.WriteFile(v.configFile(), []byte(config), 0o600); err != nil {
		return err
	}
	return v.launch(append(v.Host.devFlags(), "-dev-root-token-id="+v.RootToken,
		"-dev-listen-address="+v.Address, "-log-level="+level)...)
}

// launch starts the server process.
func (v *VaultServer) launch(flags ...string) error {
	log, err := os.OpenFile(v.LogFile(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.Command(v.Binary,
		append([]string{"server", "-config=" + v.configFile()}, flags...)...)
	cmd.Env = v.environment()
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = program.DieWithParent()
	cmd.SysProcAttr.Setpgid = true // so that its plugins can be stopped with it
	if err := cmd.Start(); err != nil {
		return err
	}
	exited := make(chan struct{})
	v.cmd, v.PID, v.exited = cmd, cmd.Process.Pid, exited
	go func() {
		_ = cmd.Wait() // the exit status of a stopped server means nothing
		close(exited)
	}()
	return nil
}

// environment keeps out the developer's own Vault, proxy and home.
func (v *VaultServer) environment() []string {
	return []string{"PATH=" + os.Getenv("PATH"), "TMPDIR=" + os.TempDir(), "HOME=" + v.home()}
}

func (v *VaultServer) waitReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	client, err := v.Client(nil)
	if err != nil {
		return err
	}
	for {
		health, err := client.Sys().HealthWithContext(ctx)
		if err == nil && health.Initialized && !health.Sealed {
			return nil
		}
		select {
		case <-v.exited:
			return fmt.Errorf("exited before it was ready: %s", v.cmd.ProcessState)
		case <-ctx.Done():
			return fmt.Errorf("not ready: %w", ctx.Err())
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func (v *VaultServer) setUp(ctx context.Context) error {
	client, err := v.Client(nil)
	if err != nil {
		return err
	}
	if !v.quiet {
		if err := v.Host.enableAudit(ctx, client, v.AuditFile()); err != nil {
			return err
		}
	}
	return v.RegisterPlugin(ctx, client, PluginName, PluginName, PluginVersion)
}

// RegisterPlugin registers a binary of the plugin directory in the catalog.
func (v *VaultServer) RegisterPlugin(
	ctx context.Context, client *api.Client, name, command, version string,
) error {
	binary, err := os.ReadFile(filepath.Join(v.PluginDirectory(), command))
	if err != nil {
		return err
	}
	sum := sha256.Sum256(binary)
	return client.Sys().RegisterPluginWithContext(ctx, &api.RegisterPluginInput{
		Name: name, Type: api.PluginTypeSecrets, Command: command,
		SHA256: hex.EncodeToString(sum[:]), Version: version,
	})
}

// NewClient returns a client with the root token whose responses the leak detector records.
func (v *VaultServer) NewClient(t *testing.T) *api.Client {
	t.Helper()
	client, err := v.Client(Detector())
	require.NoError(t, err)
	return client
}

// Client returns a client with the root token that tries each request once. Responses are recorded
// unless the detector is nil.
func (v *VaultServer) Client(detector *LeakDetector) (*api.Client, error) {
	config := api.DefaultConfig()
	if config.Error != nil {
		return nil, config.Error
	}
	config.Address = v.URL()
	config.MaxRetries = 0
	config.HttpClient.Transport = detector.transport(config.HttpClient.Transport)
	client, err := api.NewClient(config)
	if err != nil {
		return nil, err
	}
	client.SetToken(v.RootToken)
	return client, nil
}

// Stop stops the server and its plugins, and removes what it stored.
func (v *VaultServer) Stop() error {
	defer os.RemoveAll(v.Dir)
	if v.PID == 0 {
		return nil
	}
	defer syscall.Kill(-v.PID, syscall.SIGKILL) //nolint:errcheck // none may be left
	err := v.cmd.Process.Signal(syscall.SIGTERM)
	if err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	select {
	case <-v.exited:
		return nil
	case <-time.After(shutdownGrace):
		return errors.New("vault did not stop in time and was killed")
	}
}

// PluginProcess returns the id of the server's one process of a plugin command.
func (v *VaultServer) PluginProcess(t *testing.T, command string) int {
	t.Helper()
	table, err := exec.CommandContext(t.Context(), "ps", "-A", "-o", "pid=,ppid=,args=").Output()
	require.NoError(t, err)
	var found []int
	for line := range strings.Lines(string(table)) {
		columns := strings.Fields(line)
		isChild := len(columns) >= 3 && columns[1] == strconv.Itoa(v.PID)
		if !isChild || !strings.HasSuffix(columns[2], "/"+command) {
			continue
		}
		pid, err := strconv.Atoi(columns[0])
		require.NoError(t, err)
		found = append(found, pid)
	}
	require.Len(t, found, 1, "processes of %s", command)
	return found[0]
}

// KillPlugin kills the server's process of a plugin command, waits until the server serves the
// mount with another one, and returns the id of the dead one.
func (m *Mount) KillPlugin(t *testing.T, v *VaultServer, command string) (pid int) {
	t.Helper()
	pid = v.PluginProcess(t, command)
	require.NoError(t, syscall.Kill(pid, syscall.SIGKILL))
	require.Eventually(t, func() bool { return syscall.Kill(pid, 0) != nil },
		10*time.Second, 20*time.Millisecond, "the server has noticed the end of its child")
	require.Eventually(t, func() bool { return m.Do(t, "GET", "info", nil, nil).Status == 200 },
		10*time.Second, 20*time.Millisecond, "the server asks a new process")
	return pid
}
