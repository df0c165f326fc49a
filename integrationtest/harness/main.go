// Package harness runs the built plugin in a real Vault server, with the unmodified vault command
// and with a real Keycloak or the embedded provider, for the packages of integration tests beside
// it. Each of those calls Main from its TestMain.
package harness

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/bcgov/vault-plugin-bcgov-jwt/integrationtest/keycloak"
	"github.com/bcgov/vault-plugin-bcgov-jwt/integrationtest/program"
)

// envSuite passes what the supervisor started to the process that runs the tests.
const envSuite = "BCGOV_JWT_TEST_SUITE"

// parallelTests run at the same time: they wait for servers and clocks more than they compute.
const parallelTests = "6"

const shutdownGrace = 10 * time.Second

// shared is what all tests of a package use: TestMain has no other way to pass it to them.
var shared *suite //nolint:gochecknoglobals // set by Main before the first test

// suite is one Vault server with the plugin in its catalog, and one Keycloak if available.
type suite struct {
	Vault *VaultServer
	// Keycloak is the base URL of a Keycloak that has keycloakRealm, or empty.
	Keycloak string

	detector *LeakDetector
	keycloak *Provider // Keycloak behind a proxy that records the secrets that pass
}

// Vault returns the server that the tests of a package share.
func Vault() *VaultServer { return shared.Vault }

// KeycloakURL returns the base URL of Keycloak itself, not of the recording proxy that Keycloak returns.
func KeycloakURL() string { return shared.Keycloak }

// Detector returns the leak detector that the tests of a package share.
func Detector() *LeakDetector { return shared.detector }

// Leaks returns where a known secret has appeared so far, the server's own files included.
func Leaks() ([]string, error) { return shared.leaks() }

// Main runs the tests of a package and returns the exit code. It runs them in a child process, so
// that the servers are stopped however the tests end: a panic or a timeout in a test ends its whole
// process. At the end everything that the tests and the servers printed is searched for secrets.
func Main(m *testing.M) int {
	flag.Parse()
	passed, isChild := os.LookupEnv(envSuite)
	switch {
	case flag.Lookup("test.list").Value.String() != "":
		return m.Run()
	case isChild:
		return runTests(m, passed)
	default:
		return supervise()
	}
}

func runTests(m *testing.M, passed string) int {
	parallel := flag.Lookup("test.parallel").Value
	if parallel.String() == strconv.Itoa(runtime.GOMAXPROCS(0)) { // its default
		if err := parallel.Set(parallelTests); err != nil {
			return fail(err)
		}
	}
	shared = &suite{detector: newLeakDetector()}
	if err := json.Unmarshal([]byte(passed), shared); err != nil {
		return fail(err)
	}
	if shared.Keycloak != "" {
		proxied, err := newKeycloakProvider(shared.Keycloak, shared.detector)
		if err != nil {
			return fail(err)
		}
		defer proxied.Close()
		shared.keycloak = proxied
	}
	code := m.Run()
	leaks, err := shared.leaks()
	if err != nil {
		return fail(err)
	}
	if len(leaks) > 0 {
		return fail(fmt.Errorf("secrets of the tests were revealed:\n%s",
			strings.Join(leaks, "\n")))
	}
	return code
}

func fail(err error) int {
	fmt.Fprintln(os.Stderr, "harness:", err)
	return 1
}

// supervise starts the servers, runs this test binary again as the child that uses them, and stops
// them.
func supervise() (code int) {
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM,
		syscall.SIGHUP)
	defer cancel()
	started, stop, err := startSuite(ctx)
	defer func() {
		if err := stop(); err != nil {
			code = fail(err)
		}
	}()
	if err != nil {
		return fail(err)
	}
	err = runChild(ctx, started)
	var exit *exec.ExitError
	switch {
	case ctx.Err() != nil:
		return fail(errors.New("interrupted"))
	case errors.As(err, &exit):
		return exit.ExitCode()
	case err != nil:
		return fail(err)
	default:
		return 0
	}
}

func runChild(ctx context.Context, started *suite) error {
	passed, err := json.Marshal(started)
	if err != nil {
		return err
	}
	binary, err := os.Executable()
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, binary, os.Args[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Env = append(withoutVault(os.Environ()),
		envSuite+"="+string(passed), keycloak.EnvBaseURL+"="+started.Keycloak)
	cmd.SysProcAttr = program.DieWithParent()
	return cmd.Run()
}

// withoutVault omits what would point a client at the developer's own Vault or OpenBao.
func withoutVault(environment []string) []string {
	var kept []string
	for _, variable := range environment {
		if !strings.HasPrefix(variable, "VAULT_") && !strings.HasPrefix(variable, "BAO_") {
			kept = append(kept, variable)
		}
	}
	return kept
}

// startSuite starts both servers concurrently. stop ends what was started, after an error too.
func startSuite(ctx context.Context) (started *suite, stop func() error, err error) {
	started = &suite{}
	var keycloakServer *program.Server
	servers, startup := errgroup.WithContext(ctx)
	servers.Go(func() (err error) {
		started.Vault, err = startVault(startup, false)
		return err
	})
	servers.Go(func() (err error) {
		keycloakServer, err = startKeycloak(startup)
		return err
	})
	err = servers.Wait()
	if keycloakServer != nil {
		started.Keycloak = keycloakServer.BaseURL
	}
	stop = func() error {
		var errs []error
		if keycloakServer != nil {
			errs = append(errs, keycloakServer.Stop())
		}
		if started.Vault != nil {
			errs = append(errs, started.Vault.Stop())
		}
		return errors.Join(errs...)
	}
	return started, stop, err
}

// startKeycloak returns nil if Keycloak is neither available nor required: each test that needs it
// then says so.
func startKeycloak(ctx context.Context) (*program.Server, error) {
	server, err := keycloak.Start(ctx)
	if errors.Is(err, program.ErrUnavailable) && !program.Required() {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return server, prepareRealm(ctx, keycloak.NewAdmin(server.BaseURL, "admin", "admin"))
}

// leaks adds the server's own files to what was recorded.
func (s *suite) leaks() ([]string, error) {
	found := s.detector.Leaks(func(string) bool { return true })
	for _, file := range []string{s.Vault.LogFile(), s.Vault.AuditFile()} {
		text, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		if len(text) == 0 {
			return nil, errors.New(file + " is empty")
		}
		found = append(found, s.detector.Find(file, text)...)
	}
	return found, nil
}
