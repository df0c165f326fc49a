package keycloak

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// EnvBaseURL is the environment variable with the base URL of a running Keycloak (administrator
// admin, password admin) that several test packages share.
const EnvBaseURL = "BCGOV_JWT_TEST_KEYCLOAK"

const (
	startTimeout = 3 * time.Minute // a cold start on two busy cores takes about one
	stopTimeout  = 15 * time.Second
)

// ErrUnavailable means that Keycloak cannot be started on this machine; the error that wraps it
// says what is missing.
var ErrUnavailable = errors.New("no Keycloak on this machine")

// Server is a Keycloak server that tests use.
type Server struct {
	BaseURL string
	stop    func() error
}

// Stop stops the server if Start started it.
func (s *Server) Stop() error { return s.stop() }

// Admin returns an administrator of the server.
func (s *Server) Admin() *Admin { return NewAdmin(s.BaseURL, "admin", "admin") }

// ForTest returns an administrator of a Keycloak for this test and its subtests. If Keycloak is not
// available it skips the test, or fails it with CI=true.
func ForTest(t testing.TB) *Admin {
	t.Helper()
	server, err := Start(t.Context())
	if errors.Is(err, ErrUnavailable) && os.Getenv("CI") != "true" {
		t.Skipf("skipped: the tests on a real Keycloak: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	admin := server.Admin()
	t.Cleanup(func() {
		admin.Close()
		if err := server.Stop(); err != nil {
			t.Error(err)
		}
	})
	return admin
}

// Start returns the server that EnvBaseURL names, or else starts one with scripts/keycloak.sh and
// waits until it is ready. The server outlives ctx; the caller stops it.
func Start(ctx context.Context) (*Server, error) {
	if baseURL := os.Getenv(EnvBaseURL); baseURL != "" {
		noStop := func() error { return nil }
		return &Server{BaseURL: strings.TrimSuffix(baseURL, "/"), stop: noStop}, nil
	}
	script, err := findScript()
	if err != nil {
		return nil, err
	}
	if output, err := runScript(ctx, script, "check"); err != nil {
		return nil, fmt.Errorf("%w: %s", ErrUnavailable, output)
	}
	if output, err := runScript(ctx, script, "fetch"); err != nil {
		return nil, fmt.Errorf("keycloak: fetching it: %w: %s", err, output)
	}
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	return run(ctx, script, port)
}

// runScript returns the output as one line.
func runScript(ctx context.Context, script, command string) (string, error) {
	output, err := exec.CommandContext(ctx, script, command).CombinedOutput()
	return strings.Join(strings.Fields(string(output)), " "), err
}

func run(ctx context.Context, script string, port int) (*Server, error) {
	log, err := os.CreateTemp("", "keycloak-*.log")
	if err != nil {
		return nil, err
	}
	defer log.Close()
	cmd := exec.Command(script, "run", strconv.Itoa(port)) // becomes the server itself
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = dieWithParent()
	if err := cmd.Start(); err != nil {
		return nil, errors.Join(err, os.Remove(log.Name()))
	}
	exited := make(chan struct{})
	go func() {
		_ = cmd.Wait() // the exit status of a stopped server means nothing
		close(exited)
	}()
	server := &Server{BaseURL: "http://127.0.0.1:" + strconv.Itoa(port)}
	server.stop = func() error {
		defer os.Remove(log.Name())
		return stop(cmd.Process, exited)
	}
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	if err := waitReady(ctx, server.BaseURL, exited); err != nil {
		output, _ := os.ReadFile(log.Name())
		end := output[max(0, len(output)-2000):]
		return nil, errors.Join(fmt.Errorf("%w; the end of its log:\n%s", err, end), server.stop())
	}
	return server, nil
}

func stop(process *os.Process, exited <-chan struct{}) error {
	_ = process.Signal(syscall.SIGTERM) // it may have exited on its own
	select {
	case <-exited:
		return nil
	case <-time.After(stopTimeout):
		_ = process.Kill()
		<-exited
		return errors.New("keycloak: did not stop in time and was killed")
	}
}

func waitReady(ctx context.Context, baseURL string, exited <-chan struct{}) error {
	transport := &http.Transport{DisableKeepAlives: true}
	client := &http.Client{Timeout: 2 * time.Second, Transport: transport}
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, baseURL+"/health/ready", nil)
		if err != nil {
			return err
		}
		if resp, err := client.Do(req); err == nil {
			resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return nil
			}
		}
		select {
		case <-exited:
			return errors.New("keycloak: exited before it was ready")
		case <-ctx.Done():
			return fmt.Errorf("keycloak: not ready: %w", ctx.Err())
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// findScript searches for scripts/keycloak.sh from the working directory upwards; a test runs in
// its package's directory.
func findScript() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		script := filepath.Join(dir, "scripts", "keycloak.sh")
		if _, err := os.Stat(script); err == nil {
			return script, nil
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return "", errors.New("keycloak: no scripts/keycloak.sh above the working directory")
		}
		dir = parent
	}
}

func freePort() (int, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer listener.Close()
	return listener.Addr().(*net.TCPAddr).Port, nil
}
