package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/hashicorp/vault/api"

	"github.com/bcgov/vault-plugin-bcgov-jwt/integrationtest/bench"
)

const (
	module       = "github.com/bcgov/vault-plugin-bcgov-jwt"
	pluginName   = "vault-plugin-bcgov-jwt"
	noopName     = "noop"
	startTimeout = time.Minute
	stopTimeout  = 10 * time.Second
)

// servers are a Vault, without an audit device and with log level info, and the provider.
type servers struct {
	vault    *api.Client
	provider string // its base URL
	plugins  string // Vault's plugin directory

	vaultPID, providerPID int

	dir     string // everything of this run
	http    *http.Client
	cancel  context.CancelFunc
	started []*exec.Cmd
}

// startServers builds and starts everything. The caller stops it, after an error too.
func startServers(ctx context.Context) (s *servers, err error) {
	s = &servers{http: bench.NewClient()}
	ctx, s.cancel = context.WithCancel(ctx)
	if s.dir, err = os.MkdirTemp("", "bcgov-jwt-bench-"); err != nil {
		return s, err
	}
	if s.dir, err = filepath.EvalSymlinks(s.dir); err != nil { // Vault allows no link in the path
		return s, err
	}
	s.plugins = filepath.Join(s.dir, "plugins")
	for _, step := range []func(context.Context) error{s.build, s.startProvider, s.startVault} {
		if err := step(ctx); err != nil {
			return s, err
		}
	}
	return s, nil
}

// build builds the plugins as they are released, so that their memory is comparable.
func (s *servers) build(ctx context.Context) error {
	for dir, packages := range map[string][]string{
		s.plugins: {module + "/cmd/" + pluginName, module + "/integrationtest/bench/noop"},
		s.dir:     {module + "/integrationtest/bench/provider"},
	} {
		args := []string{"build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w", "-o", dir + "/"}
		args = append(args, packages...)
		build := exec.CommandContext(ctx, "go", args...)
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if output, err := build.CombinedOutput(); err != nil {
			return fmt.Errorf("go build: %w\n%s", err, output)
		}
	}
	return nil
}

func (s *servers) startProvider(ctx context.Context) error {
	cmd := s.command(ctx, filepath.Join(s.dir, "provider"))
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := s.start(cmd); err != nil {
		return err
	}
	s.providerPID = cmd.Process.Pid
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		return fmt.Errorf("the provider did not start: %w", err)
	}
	s.provider = strings.TrimSpace(line)
	return nil
}

func (s *servers) startVault(ctx context.Context) error {
	binary, err := vaultBinary(ctx)
	if err != nil {
		return err
	}
	address, err := freeAddress()
	if err != nil {
		return err
	}
	config := filepath.Join(s.dir, "vault.hcl")
	settings := fmt.Appendf(nil, "plugin_directory = %q\n", s.plugins)
	if err := os.WriteFile(config, settings, 0o600); err != nil {
		return err
	}
	token := rand.Text()
	log := &bytes.Buffer{}
	cmd := s.command(ctx, binary, "server", "-dev", "-dev-no-kv", "-dev-no-store-token",
		"-dev-root-token-id="+token, "-dev-listen-address="+address, "-config="+config)
	cmd.Stdout, cmd.Stderr = log, log
	if err := s.start(cmd); err != nil {
		return err
	}
	s.vaultPID = cmd.Process.Pid
	if s.vault, err = newVaultClient("http://"+address, token); err != nil {
		return err
	}
	if err := s.waitForVault(ctx); err != nil {
		s.stop()
		return fmt.Errorf("vault did not start: %w\n%s", err, log)
	}
	return nil
}

// vaultBinary returns the path that scripts/vault.sh prints. The script builds a Vault if there is
// none, and says so.
func vaultBinary(ctx context.Context) (string, error) {
	root, err := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}", module).Output()
	if err != nil {
		return "", fmt.Errorf("go list: %w", err)
	}
	path := filepath.Join(strings.TrimSpace(string(root)), "scripts", "vault.sh")
	script := exec.CommandContext(ctx, path)
	script.Stderr = os.Stderr
	binary, err := script.Output()
	if err != nil {
		return "", fmt.Errorf("scripts/vault.sh: %w", err)
	}
	return strings.TrimSpace(string(binary)), nil
}

// freeAddress returns an address that is free now; the server binds it a moment later.
func freeAddress() (string, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer listener.Close()
	return listener.Addr().String(), nil
}

func newVaultClient(address, token string) (*api.Client, error) {
	config := api.DefaultConfig()
	if config.Error != nil {
		return nil, config.Error
	}
	config.Address, config.MaxRetries, config.HttpClient = address, 0, bench.NewClient()
	client, err := api.NewClient(config)
	if err != nil {
		return nil, err
	}
	client.ClearNamespace() // the developer's own
	client.SetToken(token)
	return client, nil
}

func (s *servers) waitForVault(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	for {
		health, err := s.vault.Sys().HealthWithContext(ctx)
		if err == nil && health.Initialized && !health.Sealed {
			return nil
		}
		select {
		case <-ctx.Done():
			return errors.Join(ctx.Err(), err)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// command returns a command that ends gracefully with the run. It knows neither the developer's
// Vault nor their proxy and home.
func (s *servers) command(ctx context.Context, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "TMPDIR=" + os.TempDir(), "HOME=" + s.dir}
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = stopTimeout
	return cmd
}

func (s *servers) start(cmd *exec.Cmd) error {
	if err := cmd.Start(); err != nil {
		return err
	}
	s.started = append(s.started, cmd)
	return nil
}

func (s *servers) stop() {
	s.cancel()
	for _, cmd := range s.started {
		_ = cmd.Wait() // the exit status of a stopped server means nothing
	}
	s.started = nil
	_ = os.RemoveAll(s.dir) // what remains is in the system's temporary folder
}

// mountPlugin mounts a plugin with its own name in the catalog, and so with its own process: mounts
// of one plugin share theirs.
func (s *servers) mountPlugin(ctx context.Context, command, name string) error {
	path := filepath.Join(s.plugins, name)
	if command != name {
		if err := os.Link(filepath.Join(s.plugins, command), path); err != nil {
			return err
		}
	}
	binary, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	sum := sha256.Sum256(binary)
	plugin := &api.RegisterPluginInput{
		Name: name, Type: api.PluginTypeSecrets, Command: name, SHA256: hex.EncodeToString(sum[:]),
	}
	if err := s.vault.Sys().RegisterPluginWithContext(ctx, plugin); err != nil {
		return err
	}
	return s.vault.Sys().MountWithContext(ctx, name, &api.MountInput{Type: name})
}

// write is a write to Vault.
type write struct {
	path string
	data map[string]any
}

func (s *servers) writeAll(ctx context.Context, writes []write) error {
	for _, w := range writes {
		if _, err := s.vault.Logical().WriteWithContext(ctx, w.path, w.data); err != nil {
			return err
		}
	}
	return nil
}

// call returns a request to Vault as the leanest program sends it.
func (s *servers) call(method, path, body string) func(context.Context) error {
	target := s.vault.Address() + "/v1/" + path
	return func(ctx context.Context) error {
		req, err := http.NewRequestWithContext(ctx, method, target, strings.NewReader(body))
		if err != nil {
			return err
		}
		req.Header.Set("X-Vault-Token", s.vault.Token())
		_, err = bench.Do(s.http, req)
		return err
	}
}

// requests returns how many tokens a client has requested from the provider.
func (s *servers) requests(ctx context.Context, client string) (count int, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.provider+"/requests/"+client,
		http.NoBody)
	if err != nil {
		return 0, err
	}
	body, err := bench.Do(s.http, req)
	if err != nil {
		return 0, err
	}
	_, err = fmt.Sscan(string(body), &count)
	return count, err
}
