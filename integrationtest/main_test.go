// Package integrationtest holds the plugin to what a user sees: the built binary in a real Vault server, the unmodified vault command, and a real Keycloak or
// the embedded provider.
package integrationtest

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
)

// envSuite hands what the supervisor started to the process that runs the tests.
const envSuite = "BCGOV_JWT_TEST_SUITE"

// parallelTests run at once: they wait for servers and clocks more than they compute.
const parallelTests = "6"

const shutdownGrace = 10 * time.Second

// shared is what all tests of the package use: TestMain has no other way to hand it to them.
//

var shared *suite

// suite is one Vault server with the plugin in its catalog, and one Keycloak where there is one.
type suite struct {
	Vault *vaultServer
	// Keycloak is the base URL of a Keycloak with testRealm in it, or empty.
	Keycloak string

	witness  *witness
	keycloak *provider // Keycloak behind a proxy that remembers what secrets pass
}

// TestMain runs the tests in a child process, so that the servers are stopped however the tests end: a panic or a timeout in a test ends its whole process.
func TestMain(m *testing.M) {
	flag.Parse()
	handed, isChild := os.LookupEnv(envSuite)
	switch {
	case flag.Lookup("test.list").Value.String() != "":
		os.Exit(m.Run())
	case isChild:
		os.Exit(runTests(m, handed))
	default:
		os.Exit(supervise())
	}
}

func runTests(m *testing.M, handed string) int {
	if parallel := flag.Lookup("test.parallel").Value; parallel.String() == strconv.Itoa(runtime.GOMAXPROCS(0)) { // its default
		if err := parallel.Set(parallelTests); err != nil {
			return fail(err)
		}
	}
	shared = &suite{witness: newWitness()}
	if err := json.Unmarshal([]byte(handed), shared); err != nil {
		return fail(err)
	}
	if shared.Keycloak != "" {
		proxied, err := newKeycloakProvider(shared.Keycloak, shared.witness)
		if err != nil {
			return fail(err)
		}
		defer proxied.close()
		shared.keycloak = proxied
	}
	code := m.Run()
	leaks, err := shared.leaks()
	if err != nil {
		return fail(err)
	}
	if len(leaks) > 0 {
		return fail(fmt.Errorf("secrets that some test made came out again:\n%s", strings.Join(leaks, "\n")))
	}
	return code
}

func fail(err error) int {
	fmt.Fprintln(os.Stderr, "integrationtest:", err)
	return 1
}

// supervise starts the servers, runs this test binary again as the child that uses them, and stops them.
func supervise() (code int) {
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
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
	handed, err := json.Marshal(started)
	if err != nil {
		return err
	}
	binary, err := os.Executable()
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, binary, os.Args[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Env = append(withoutVault(os.Environ()), envSuite+"="+string(handed), keycloak.EnvBaseURL+"="+started.Keycloak)
	cmd.SysProcAttr = dieWithParent()
	return cmd.Run()
}

// withoutVault leaves out what would lead a Vault client to the developer's own server.
func withoutVault(environment []string) []string {
	var kept []string
	for _, variable := range environment {
		if !strings.HasPrefix(variable, "VAULT_") {
			kept = append(kept, variable)
		}
	}
	return kept
}

// startSuite starts both servers at once. stop ends what was started, also when that was not all.
func startSuite(ctx context.Context) (started *suite, stop func() error, err error) {
	started = &suite{}
	var keycloakServer *keycloak.Server
	servers, startup := errgroup.WithContext(ctx)
	servers.Go(func() (err error) {
		started.Vault, err = startVault(startup)
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
			errs = append(errs, started.Vault.stop())
		}
		return errors.Join(errs...)
	}
	return started, stop, err
}

// startKeycloak returns nil where no Keycloak can be had and none is demanded: each test that needs it then says so.
func startKeycloak(ctx context.Context) (*keycloak.Server, error) {
	server, err := keycloak.Start(ctx)
	if errors.Is(err, keycloak.ErrUnavailable) && os.Getenv("CI") != "true" {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return server, prepareRealm(ctx, server.Admin())
}
