package integrationtest

import (
	"context"
	"crypto/rand"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	"github.com/hashicorp/vault/api"
	"github.com/stretchr/testify/require"

	"github.com/bcgov/vault-plugin-bcgov-jwt/integrationtest/idp"
	"github.com/bcgov/vault-plugin-bcgov-jwt/integrationtest/keycloak"
)

const (
	// A token of 20 s that is due again after 3 leaves a loaded machine 17 s to get the next one.
	programTokenLife   = 20 * time.Second
	programTokenMargin = 17 * time.Second
	// programVaultPeriod is the life of a program's Vault token, unless the program renews it.
	programVaultPeriod = 10 * time.Second
)

// TestProgramExamples runs the programs of the documentation as they stand: over several token lives, and while no token can be had.
func TestProgramExamples(t *testing.T) {
	t.Parallel()
	for name, start := range map[string]func(*testing.T, *mount, *provider, string) programRun{"curl": startKeepToken, "go": startGoExample} {
		for _, delivery := range []string{"leased", "shared"} {
			t.Run(name+" "+delivery, func(t *testing.T) {
				t.Parallel()
				p := embeddedProvider(t)
				m := newMount(t, p.config)
				role := m.newShortLived(t, p, delivery)
				run := start(t, m, p, delivery)
				begun := time.Now()

				run.sees(t, 4)
				m.delete(t, "roles/"+delivery)
				run.prints(t, "no new token")
				seen := run.sees(t, 0)
				m.write(t, "roles/"+delivery, role)
				run.sees(t, seen+1)
				for time.Since(begun) < 3*programVaultPeriod/2 {
					seen = run.sees(t, seen+1)
				}
				run.stop(t)
			})
		}
	}
}

// newShortLived makes a role whose tokens are soon due again, and returns its settings.
func (m *mount) newShortLived(t *testing.T, p *provider, delivery string) map[string]any {
	t.Helper()
	clientID := newClientID()
	key := m.write(t, "keys/myapi", map[string]any{"client_id": clientID, "issuer": p.issuer})
	client := keycloak.PortalClient(clientID, key.text(t, "public_key"))
	client.Attributes[keycloak.AttributeTokenLifespan] = fmt.Sprint(programTokenLife.Seconds())
	require.NoError(t, p.put(t.Context(), client))
	role := map[string]any{"key": "myapi", "delivery": delivery, "refresh_margin": programTokenMargin.String()}
	m.write(t, "roles/"+delivery, role)
	return role
}

// programRun is an example at work.
type programRun struct {
	*program
	// look returns how many tokens the example has shown so far, or what is wrong with the one that it shows now.
	look func() (int, error)
}

// sees waits until the example has shown so many tokens, and wants each to be good for as long as it is shown.
func (r programRun) sees(t *testing.T, tokens int) int {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		seen, err := r.look()
		require.NoError(t, err, r.end())
		if seen >= tokens {
			return seen
		}
		require.True(t, time.Now().Before(deadline), "%d of %d tokens: %s", seen, tokens, r.end())
	}
}

// startKeepToken runs the shell script. Its look is at the file.
func startKeepToken(t *testing.T, m *mount, _ *provider, role string) programRun {
	t.Helper()
	commands := recordCurl(t)
	file := filepath.Join(t.TempDir(), "token")
	vaultToken := m.programToken(t, role)
	p := m.startProgram(t, vaultToken, "../docs/examples/curl/keep-token.sh", filepath.Dir(commands), m.path, role, file)
	seen := map[string]bool{}
	t.Cleanup(func() {
		ran, err := os.ReadFile(commands)
		if err != nil {
			t.Error(err)
			return
		}
		shared.witness.saw("the command lines of keep-token.sh", string(ran))
		if strings.Contains(string(ran), vaultToken) {
			t.Error("the Vault token was on a command line")
		}
		// It waits between reads. For shared the last second may take two.
		if reads := strings.Count(string(ran), "/creds/"); reads > 3*len(seen)+5 {
			t.Errorf("%d reads for %d tokens", reads, len(seen))
		}
	})
	return programRun{program: p, look: func() (int, error) {
		content, err := os.ReadFile(file)
		if os.IsNotExist(err) && len(seen) == 0 {
			return 0, nil
		}
		if err != nil {
			return 0, err
		}
		info, err := os.Stat(file)
		if err != nil {
			return 0, err
		}
		if info.Mode() != 0o600 {
			return 0, fmt.Errorf("the file's mode is %s", info.Mode())
		}
		seen[string(content)] = true
		return len(seen), stillGood(string(content))
	}}
}

// stillGood says whether a token has not expired.
func stillGood(token string) error {
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

// recordCurl puts a curl into a folder of its own that writes down how it was called, beside it, and then does as curl does.
func recordCurl(t *testing.T) (commands string) {
	t.Helper()
	curl, err := exec.LookPath("curl")
	require.NoError(t, err)
	dir := t.TempDir()
	commands = filepath.Join(dir, "commands")
	recorder := fmt.Sprintf("#!/bin/sh\nprintf '%%s\\n' \"$*\" >>'%s'\nexec '%s' \"$@\"\n", commands, curl)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "curl"), []byte(recorder), 0o700))
	return commands
}

// startGoExample runs the Go program against an API that takes the provider's tokens. Its look is at what came there.
func startGoExample(t *testing.T, m *mount, p *provider, role string) programRun {
	t.Helper()
	var mu sync.Mutex
	seen := map[string]bool{}
	var refused error
	gateway := idp.NewGateway(p.issuer, p.httpClient(t), time.Now)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		recorder := httptest.NewRecorder()
		gateway.ServeHTTP(recorder, r)
		w.WriteHeader(recorder.Code)
		mu.Lock()
		defer mu.Unlock()
		seen[r.Header.Get("Authorization")] = true
		if recorder.Code != http.StatusOK {
			refused = fmt.Errorf("the API answered %d %s", recorder.Code, recorder.Body)
		}
	}))
	t.Cleanup(server.Close)

	binary := filepath.Join(t.TempDir(), "example")
	built, err := exec.CommandContext(t.Context(), "go", "build", "-buildvcs=false", "-o", binary, "../docs/examples/go").CombinedOutput()
	require.NoError(t, err, string(built))
	program := m.startProgram(t, m.programToken(t, role), binary, "", "-creds", m.path+"/creds/"+role, "-url", server.URL, "-every", "100ms")
	return programRun{program: program, look: func() (int, error) {
		mu.Lock()
		defer mu.Unlock()
		return len(seen), refused
	}}
}

// programToken makes a Vault token with the example's policy, which ends soon unless it is renewed.
func (m *mount) programToken(t *testing.T, role string) string {
	t.Helper()
	policy, err := os.ReadFile("../docs/examples/policies/reader.hcl")
	require.NoError(t, err)
	rules := strings.NewReplacer("bcgov-jwt/", m.path+"/", "/myapi", "/"+role).Replace(string(policy))
	name := "program-" + strings.ToLower(rand.Text())
	require.NoError(t, m.client.Sys().PutPolicyWithContext(t.Context(), name, rules))
	t.Cleanup(func() {
		if err := m.client.Sys().DeletePolicyWithContext(context.WithoutCancel(t.Context()), name); err != nil {
			t.Error(err)
		}
	})
	token, err := m.client.Auth().Token().CreateOrphanWithContext(t.Context(), &api.TokenCreateRequest{
		Policies: []string{name}, Period: programVaultPeriod.String(),
	})
	require.NoError(t, err)
	return token.Auth.ClientToken
}

// program is a command that runs until it is stopped.
type program struct {
	command *exec.Cmd
	ended   chan struct{}
	printed lockedBuffer
}

// startProgram starts a command that knows where Vault is; it finds other commands in path first.
func (m *mount) startProgram(t *testing.T, vaultToken, command, path string, args ...string) *program {
	t.Helper()
	p := &program{command: exec.CommandContext(t.Context(), command, args...), ended: make(chan struct{})}
	p.command.Env = append(shared.Vault.environment(), "VAULT_ADDR="+m.client.Address(), "VAULT_TOKEN="+vaultToken, "PATH="+path+":"+os.Getenv("PATH"))
	p.command.Stdout, p.command.Stderr = &p.printed, &p.printed
	p.command.SysProcAttr = dieWithParent()
	p.command.SysProcAttr.Setpgid = true // so that a shell's sleep can be stopped with it
	p.command.WaitDelay = time.Second
	require.NoError(t, p.command.Start())
	go func() {
		_ = p.command.Wait() // it is killed, so its status tells nothing
		close(p.ended)
	}()
	t.Cleanup(func() {
		p.kill()
		shared.witness.saw("what "+filepath.Base(command)+" printed", p.printed.String())
		if strings.Contains(p.printed.String(), vaultToken) {
			t.Error("the Vault token was printed")
		}
	})
	return p
}

func (p *program) kill() {
	_ = syscall.Kill(-p.command.Process.Pid, syscall.SIGKILL) // it may be stopped already
	<-p.ended
}

// stop wants the program to have run until now.
func (p *program) stop(t *testing.T) {
	t.Helper()
	select {
	case <-p.ended:
		t.Fatal("it ended by itself: " + p.end())
	default:
		p.kill()
	}
}

// end is what the program printed last, for a failed test.
func (p *program) end() string {
	output := p.printed.String()
	return output[max(0, len(output)-1000):]
}

// prints waits until the example has shown this text, and wants its tokens to be good meanwhile.
func (r programRun) prints(t *testing.T, text string) {
	t.Helper()
	for deadline := time.Now().Add(programTokenMargin); !strings.Contains(r.printed.String(), text); time.Sleep(20 * time.Millisecond) {
		r.sees(t, 0)
		require.True(t, time.Now().Before(deadline), r.end())
	}
}
