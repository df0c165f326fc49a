package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/hashicorp/vault/api"

	"github.com/bcgov/vault-plugin-bcgov-jwt/integrationtest/bench"
	"github.com/bcgov/vault-plugin-bcgov-jwt/integrationtest/harness"
	"github.com/bcgov/vault-plugin-bcgov-jwt/integrationtest/program"
)

// noopName is the name of the plugin that does nothing, in the catalog too.
const noopName = "noop"

// servers are a Vault and the provider.
type servers struct {
	vault    *api.Client
	server   *harness.VaultServer
	provider string // its base URL

	providerProcess *exec.Cmd
	http            *http.Client
}

// startServers builds and starts everything. The caller stops it, after an error too.
func startServers(ctx context.Context) (*servers, error) {
	s := &servers{http: bench.NewClient()}
	var err error
	if s.server, err = harness.StartQuiet(ctx); err != nil {
		return s, err
	}
	if s.vault, err = s.server.Client(nil); err != nil {
		return s, err
	}
	build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false",
		"-o", s.server.PluginDirectory()+"/",
		harness.InRepository("integrationtest/bench/noop"),
		harness.InRepository("integrationtest/bench/provider"))
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if output, err := build.CombinedOutput(); err != nil {
		return s, fmt.Errorf("go build: %w\n%s", err, output)
	}
	return s, s.startProvider()
}

func (s *servers) startProvider() error {
	cmd := exec.Command(filepath.Join(s.server.PluginDirectory(), "provider"))
	cmd.Stderr, cmd.SysProcAttr = os.Stderr, program.DieWithParent()
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	s.providerProcess = cmd
	line, err := bufio.NewReader(stdout).ReadString('\n')
	s.provider = strings.TrimSpace(line)
	return err
}

func (s *servers) stop() error {
	var err error
	if s.providerProcess != nil {
		err = s.providerProcess.Process.Signal(syscall.SIGTERM)
		_ = s.providerProcess.Wait() // the exit status of a stopped server means nothing
	}
	if s.server != nil {
		err = errors.Join(err, s.server.Stop())
	}
	return err
}

// mountPlugin mounts a plugin with its own name in the catalog, and so with its own process: mounts
// of one plugin share theirs.
func (s *servers) mountPlugin(ctx context.Context, command, name string) error {
	directory := s.server.PluginDirectory()
	if command != name {
		if err := os.Link(filepath.Join(directory, command), filepath.Join(directory, name)); err != nil {
			return err
		}
	}
	if err := s.server.RegisterPlugin(ctx, s.vault, name, name, ""); err != nil {
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
	target := s.server.URL() + "/v1/" + path
	return func(ctx context.Context) error {
		req, err := http.NewRequestWithContext(ctx, method, target, strings.NewReader(body))
		if err != nil {
			return err
		}
		req.Header.Set("X-Vault-Token", s.server.RootToken)
		_, err = bench.Do(s.http, req)
		return err
	}
}

// requests returns how many tokens a client has requested from the provider.
func (s *servers) requests(ctx context.Context, client string) (count int, err error) {
	target := s.provider + "/requests/" + client
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, target, http.NoBody)
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
