package integrationtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"github.com/bcgov/vault-plugin-bcgov-jwt/integrationtest/idp"
	"github.com/bcgov/vault-plugin-bcgov-jwt/integrationtest/keycloak"
)

const agentExamples = "../docs/examples/agent"

const (
	// agentPeriod is the lease of a token, or its ttl. The rest of its life is the margin: a loaded machine's time to get the next one.
	agentPeriod    = 5 * time.Second
	agentTokenLife = 20 * time.Second
	// agentStopTimeout leaves the Agent time to stop its program too: if it is killed, that runs on.
	agentStopTimeout = time.Minute
)

// TestAgentExamples runs a real Vault Agent with each configuration of the documentation, as it stands but for the name of the mount.
func TestAgentExamples(t *testing.T) {
	t.Parallel()
	t.Cleanup(func() {
		client := unmounted(t, "").client
		if err := client.Sys().DisableAuthWithContext(context.WithoutCancel(t.Context()), "approle"); err != nil {
			t.Error(err)
		}
	})
	testAgentSetup(t) // before the others, which find AppRole enabled
	for name, test := range map[string]func(*testing.T){
		"leased.hcl over ten periods": testAgentLeased,
		"leased.hcl and an outage":    testAgentOutage,
		"shared.hcl":                  testAgentShared,
		"exec.hcl":                    testAgentExec,
		"proxy.hcl":                   testAgentProxy,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t)
		})
	}
}

// testAgentSetup: the script can be run again, and what it writes is for its user alone and good for one role.
func testAgentSetup(t *testing.T) {
	a := newAgent(t, embeddedProvider(t), "leased", agentTokenLife)
	first := a.read(t, "secret_id")
	a.setUp(t)
	renewed := a.read(t, "secret_id") != first
	require.True(t, renewed, "a new secret_id each time")
	for _, file := range []string{"role_id", "secret_id"} {
		require.NoError(t, isPrivate(filepath.Join(a.dir, file)))
	}
	policy, err := a.mount.client.Sys().GetPolicyWithContext(t.Context(), a.mount.path)
	require.NoError(t, err)
	require.Equal(t, "path \""+a.mount.path+"/creds/myapi\" {\n  capabilities = [\"read\"]\n}", strings.TrimSpace(policy))
}

// testAgentLeased: the file is never without a token that is good, and the provider is asked once for each.
func testAgentLeased(t *testing.T) {
	a := newAgent(t, anyProvider(t), "leased", agentTokenLife)
	a.start(t, "agent", "leased.hcl")
	file := a.watchToken(t)
	file.sees(t, 11)
	a.stop(t)
	a.provider.wasAskedOncePer(t, file.sees(t, 11))
}

// testAgentOutage: the file keeps its token while no other can be had, and has another once one can.
func testAgentOutage(t *testing.T) {
	a := newAgent(t, embeddedProvider(t), "leased", 2*time.Minute)
	a.start(t, "agent", "leased.hcl")
	file := a.watchToken(t)
	file.sees(t, 1)
	a.provider.shut()
	a.prints(t, "(retry attempt 2 ")
	require.Equal(t, 1, file.sees(t, 1))
	a.provider.open()
	file.sees(t, 3)
	a.stop(t)
}

// testAgentShared: there is no lease, and the Agent goes by the ttl.
func testAgentShared(t *testing.T) {
	a := newAgent(t, embeddedProvider(t), "shared", agentTokenLife)
	a.start(t, "agent", "shared.hcl")
	file := a.watchToken(t)
	file.sees(t, 4)
	a.stop(t)
	a.provider.wasAskedOncePer(t, file.sees(t, 4))
}

// testAgentExec: the program is started anew with each token, and its API takes them all.
func testAgentExec(t *testing.T) {
	p := embeddedProvider(t)
	a := newAgent(t, p, "leased", agentTokenLife)
	api := newTokenCounter(t, p)
	a.start(t, "agent", "exec.hcl", "API_URL="+api.URL)
	require.Eventually(t, func() bool { return api.tokens() >= 3 }, 2*time.Minute, 50*time.Millisecond, "%s", a)
	a.stop(t)
	require.Empty(t, api.refusals())
	require.NotContains(t, a.String(), "the API:")
	for i, line := range a.lines("started with", "stopped") {
		require.Contains(t, line, []string{"started with", "stopped"}[i%2], "one program at a time: %s", a)
	}
	a.provider.wasNeverAskedTwiceInAPeriod(t) // although there are two variables
}

// testAgentProxy: who may use the socket gets tokens. Vault Proxy is the Agent's proxy under its new name.
func testAgentProxy(t *testing.T) {
	for _, command := range []string{"agent", "proxy"} {
		t.Run("shared, vault "+command, func(t *testing.T) {
			t.Parallel()
			a := newAgent(t, embeddedProvider(t), "shared", agentTokenLife)
			a.start(t, command, "proxy.hcl")
			require.Equal(t, 1, a.tokensBySocket(t, 10))
			require.Equal(t, http.StatusPreconditionFailed, a.bySocket(t, "creds/"+a.role, nil).status, "without the header")
			require.Equal(t, http.StatusForbidden, a.bySocket(t, "keys/"+a.role, vaultRequest()).status, "the policy is the Agent's")
			socket, err := os.Stat(filepath.Join(a.dir, "agent.sock"))
			require.NoError(t, err)
			require.Zero(t, socket.Mode()&0o022, "nobody else may write to it")
			require.NoError(t, stillGood(a.vaultBySocket(t, "read", "-field=access_token", a.mount.path+"/creds/"+a.role)))
			a.stop(t)
		})
	}
	for name, addition := range map[string]string{"leased": "", "leased, with the Agent's cache": "cache {}\n"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := newAgent(t, embeddedProvider(t), "shared", agentTokenLife)
			a.mount.write(t, "roles/"+a.role, map[string]any{"delivery": "leased"})
			a.append(t, "proxy.hcl", addition)
			a.start(t, "agent", "proxy.hcl")
			require.Equal(t, 10, a.tokensBySocket(t, 10), "the cache keeps only what can be renewed")
			a.provider.shut()
			require.Equal(t, http.StatusBadGateway, a.bySocket(t, "creds/"+a.role, vaultRequest()).status)
			require.Equal(t, 3, a.provider.inVain(), "those of one read: the Agent adds none")
			a.stop(t)
		})
	}
}

// anyProvider is the real Keycloak where there is one.
func anyProvider(t *testing.T) *provider {
	t.Helper()
	if shared.keycloak != nil {
		return shared.keycloak
	}
	return embeddedProvider(t)
}

// agent is a Vault Agent in a folder of its own that has the examples, signed in for one role.
type agent struct {
	dir      string
	mount    *mount
	role     string
	provider *turnstile

	command *exec.Cmd
	ended   chan struct{}
	log     lockedBuffer
}

// newAgent prepares all that an Agent needs, with the example's own script.
func newAgent(t *testing.T, p *provider, delivery string, life time.Duration) *agent {
	t.Helper()
	a := &agent{dir: t.TempDir(), role: "myapi", provider: newTurnstile(t, p), mount: newMount(t, p.config), ended: make(chan struct{})}
	if delivery == "shared" {
		a.role = "myapi-shared"
	}
	a.mount.write(t, "config", a.provider.config)
	clientID := newClientID()
	key := a.mount.write(t, "keys/"+a.role, map[string]any{"client_id": clientID, "issuer": p.issuer, "token_endpoint": a.provider.URL})
	client := keycloak.PortalClient(clientID, key.text(t, "public_key"))
	client.Attributes[keycloak.AttributeTokenLifespan] = fmt.Sprint(life.Seconds())
	require.NoError(t, p.put(t.Context(), client))
	a.mount.write(t, "roles/"+a.role, map[string]any{"delivery": delivery, "refresh_margin": (life - agentPeriod).String()})
	a.copyExamples(t)
	a.setUp(t)
	return a
}

// copyExamples puts the examples into the Agent's folder. Their mount is called as the test's.
func (a *agent) copyExamples(t *testing.T) {
	t.Helper()
	files, err := filepath.Glob(agentExamples + "/*.*")
	require.NoError(t, err)
	require.NotEmpty(t, files)
	for _, file := range files {
		content, err := os.ReadFile(file)
		require.NoError(t, err)
		content = bytes.ReplaceAll(content, []byte(`"bcgov-jwt/`), []byte(`"`+a.mount.path+"/"))
		info, err := os.Stat(file)
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(filepath.Join(a.dir, filepath.Base(file)), content, info.Mode()))
	}
}

// setUp lets the Agent sign in, by the example's script. The application is called as the mount, which is the test's alone.
func (a *agent) setUp(t *testing.T) {
	t.Helper()
	setup := a.run(t, "./setup.sh", a.mount.path, a.role, a.mount.path)
	setup.Env = append(setup.Env, "VAULT_ADDR="+a.mount.client.Address(), "VAULT_TOKEN="+a.mount.client.Token())
	printed, err := setup.CombinedOutput()
	shared.witness.saw("what setup.sh printed", string(printed))
	require.NoError(t, err, string(printed))
	leaked := strings.Contains(string(printed), a.read(t, "secret_id"))
	require.False(t, leaked, "the secret_id was printed")
	t.Cleanup(func() {
		if err := a.mount.client.Sys().DeletePolicyWithContext(context.WithoutCancel(t.Context()), a.mount.path); err != nil {
			t.Error(err)
		}
	})
}

// run is a command in the Agent's folder that finds the suite's vault.
func (a *agent) run(t *testing.T, command string, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), command, args...)
	cmd.Dir = a.dir
	path := filepath.Dir(shared.Vault.Command) + string(os.PathListSeparator) + os.Getenv("PATH")
	cmd.Env = append(shared.Vault.environment(), "PATH="+path)
	cmd.SysProcAttr = dieWithParent()
	cmd.WaitDelay = time.Second
	return cmd
}

func (a *agent) read(t *testing.T, file string) string {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(a.dir, file))
	require.NoError(t, err)
	return string(content)
}

func (a *agent) append(t *testing.T, file, text string) {
	t.Helper()
	content := a.read(t, file) + text
	require.NoError(t, os.WriteFile(filepath.Join(a.dir, file), []byte(content), 0o600))
}

// start starts the Agent, or what else is in the vault command, which is stopped with the test at the latest.
func (a *agent) start(t *testing.T, command, config string, environment ...string) {
	t.Helper()
	a.command = a.run(t, shared.Vault.Command, command, "-config="+config)
	a.command.Env = append(append(a.command.Env, "VAULT_ADDR="+a.mount.client.Address()), environment...)
	a.command.Stdout, a.command.Stderr = &a.log, &a.log
	a.command.Cancel = func() error { return a.command.Process.Signal(syscall.SIGTERM) }
	a.command.WaitDelay = agentStopTimeout
	require.NoError(t, a.command.Start())
	go func() {
		_ = a.command.Wait() // an Agent that was stopped has no status worth telling
		close(a.ended)
	}()
	t.Cleanup(func() {
		_ = a.command.Process.Signal(syscall.SIGTERM) // it may have ended already
		<-a.ended
		shared.witness.saw("what the Agent of "+config+" printed", a.String())
	})
}

// stop wants the Agent to have run until now, and to end when it is asked to.
func (a *agent) stop(t *testing.T) {
	t.Helper()
	select {
	case <-a.ended:
		t.Fatal("it ended by itself: " + a.String())
	default:
	}
	require.NoError(t, a.command.Process.Signal(syscall.SIGTERM))
	select {
	case <-a.ended:
	case <-time.After(agentStopTimeout):
		t.Fatal("it does not end: " + a.String())
	}
}

// String is what the Agent and its program have printed so far.
func (a *agent) String() string { return a.log.String() }

// prints waits until the Agent has printed this text.
func (a *agent) prints(t *testing.T, text string) {
	t.Helper()
	require.Eventually(t, func() bool { return strings.Contains(a.String(), text) }, 2*time.Minute, 20*time.Millisecond, "%s", a)
}

// lines are those that the Agent or its program printed with one of these words in it.
func (a *agent) lines(words ...string) []string {
	var found []string
	for line := range strings.Lines(a.String()) {
		for _, word := range words {
			if strings.HasPrefix(line, word) {
				found = append(found, line)
			}
		}
	}
	return found
}

// tokenFile is a file that must never be without a token that is good, once it is there.
type tokenFile struct {
	agent *agent
	path  string
	stop  context.CancelFunc
	done  chan struct{}

	mu   sync.Mutex
	seen map[string]bool
	err  error
}

// watchToken looks at the Agent's token file again and again until the test ends or something is wrong.
func (a *agent) watchToken(t *testing.T) *tokenFile {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	f := &tokenFile{agent: a, path: filepath.Join(a.dir, "token"), stop: stop, done: make(chan struct{}), seen: map[string]bool{}}
	go func() {
		defer close(f.done)
		for f.look() && ctx.Err() == nil {
			time.Sleep(20 * time.Millisecond)
		}
	}()
	t.Cleanup(func() {
		f.stop()
		<-f.done
	})
	return f
}

// look takes a look at the file, and says whether all is well.
func (f *tokenFile) look() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	content, err := os.ReadFile(f.path)
	if os.IsNotExist(err) && len(f.seen) == 0 {
		return true
	}
	f.seen[string(content)] = true
	f.err = errors.Join(err, stillGood(string(content)), isPrivate(f.path))
	return f.err == nil
}

// isPrivate says whether a file is for its owner alone.
func isPrivate(path string) error {
	info, err := os.Stat(path)
	if err == nil && info.Mode() != 0o600 {
		err = fmt.Errorf("the mode of %s is %s", path, info.Mode())
	}
	return err
}

// sees waits until the file has had so many tokens, and wants each look at it to have been well.
func (f *tokenFile) sees(t *testing.T, tokens int) int {
	t.Helper()
	require.Eventually(t, func() bool {
		f.mu.Lock()
		defer f.mu.Unlock()
		return f.err != nil || len(f.seen) >= tokens
	}, 2*time.Minute, 20*time.Millisecond, "%d tokens: %s", tokens, f.agent)
	f.mu.Lock()
	defer f.mu.Unlock()
	require.NoError(t, f.err, f.agent.String())
	return len(f.seen)
}

// turnstile stands before a provider's token endpoint, notes when somebody passes, and can be shut.
type turnstile struct {
	URL    string
	config map[string]any // what a mount must be told to reach it

	mu         sync.Mutex
	isShut     bool
	passed     []time.Time
	turnedAway int
}

func newTurnstile(t *testing.T, p *provider) *turnstile {
	t.Helper()
	endpoint, err := url.Parse(p.tokenEndpoint())
	require.NoError(t, err)
	transport := http.DefaultTransport
	if p.config["ca_cert"] != nil {
		transport = p.httpClient(t).Transport
	}
	next := &httputil.ReverseProxy{Transport: transport, Rewrite: func(r *httputil.ProxyRequest) {
		r.Out.URL, r.Out.Host = endpoint, endpoint.Host
	}}
	turnstile := &turnstile{config: map[string]any{"allow_insecure_endpoints": true}}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !turnstile.pass() {
			panic(http.ErrAbortHandler) // the connection is cut
		}
		next.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	turnstile.URL = server.URL
	if hosts, ok := p.config["allowed_hosts"].(string); ok {
		turnstile.config["allowed_hosts"] = hosts + "," + server.Listener.Addr().String()
	}
	return turnstile
}

func (s *turnstile) pass() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.isShut {
		s.turnedAway++
		return false
	}
	s.passed = append(s.passed, time.Now())
	return true
}

func (s *turnstile) shut() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.isShut = true
}

func (s *turnstile) open() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.isShut = false
}

// inVain is how many requests found it shut.
func (s *turnstile) inVain() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.turnedAway
}

// wasAskedOncePer wants a request for each token that was seen, but for one that may have been under way, and none too soon.
func (s *turnstile) wasAskedOncePer(t *testing.T, tokens int) {
	t.Helper()
	requests := s.wasNeverAskedTwiceInAPeriod(t)
	require.Contains(t, []int{tokens, tokens + 1}, requests, "requests for %d tokens", tokens)
}

// wasNeverAskedTwiceInAPeriod wants what lies between two requests to be a period, or what counts as one on a loaded machine.
func (s *turnstile) wasNeverAskedTwiceInAPeriod(t *testing.T) (requests int) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := 1; i < len(s.passed); i++ {
		require.Greater(t, s.passed[i].Sub(s.passed[i-1]), agentPeriod/2, "request %d", i+1)
	}
	return len(s.passed)
}

// tokenCounter is an API that notes which tokens it is called with.
type tokenCounter struct {
	URL string

	mu      sync.Mutex
	seen    map[string]bool
	refused []string
}

func newTokenCounter(t *testing.T, p *provider) *tokenCounter {
	t.Helper()
	c := &tokenCounter{seen: map[string]bool{}}
	gateway := idp.NewGateway(p.issuer, p.httpClient(t), time.Now)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		recorder := httptest.NewRecorder()
		gateway.ServeHTTP(recorder, r)
		w.WriteHeader(recorder.Code)
		c.mu.Lock()
		defer c.mu.Unlock()
		c.seen[r.Header.Get("Authorization")] = true
		if recorder.Code != http.StatusOK {
			c.refused = append(c.refused, fmt.Sprint(recorder.Code, " ", recorder.Body))
		}
	}))
	t.Cleanup(server.Close)
	c.URL = server.URL
	return c
}

func (c *tokenCounter) tokens() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.seen)
}

func (c *tokenCounter) refusals() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.refused
}

func vaultRequest() http.Header { return http.Header{"X-Vault-Request": {"true"}} }

// bySocket reads a path of the mount through the Agent's socket, without a Vault token.
func (a *agent) bySocket(t *testing.T, path string, header http.Header) answer {
	t.Helper()
	got, err := a.askSocket(t.Context(), path, header)
	require.NoError(t, err)
	return got
}

func (a *agent) askSocket(ctx context.Context, path string, header http.Header) (answer, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://agent/v1/"+a.mount.path+"/"+path, nil)
	if err != nil {
		return answer{}, err
	}
	req.Header = header
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", filepath.Join(a.dir, "agent.sock"))
	}}}
	resp, err := client.Do(req)
	if err != nil {
		return answer{}, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return answer{}, err
	}
	shared.witness.saw("an answer of the Agent's socket", shared.witness.without(tokenPart, "access_token", body))
	resp.Body = io.NopCloser(bytes.NewReader(body))
	if got, err := readAnswer(resp); err == nil {
		return got, nil
	}
	return answer{status: resp.StatusCode}, nil // the proxy's own refusals are not JSON
}

// tokensBySocket reads the role's token so many times at once, and returns how many different ones there were.
func (a *agent) tokensBySocket(t *testing.T, reads int) int {
	t.Helper()
	a.waitSignedIn(t)
	var mu sync.Mutex
	tokens := map[string]bool{}
	var all errgroup.Group
	for range reads {
		all.Go(func() error {
			got, err := a.askSocket(t.Context(), "creds/"+a.role, vaultRequest())
			token, _ := got.data["access_token"].(string)
			mu.Lock()
			defer mu.Unlock()
			tokens[token] = true
			return errors.Join(err, stillGood(token))
		})
	}
	require.NoError(t, all.Wait())
	return len(tokens)
}

// waitSignedIn waits until the Agent has a Vault token: before that it passes on requests without one.
func (a *agent) waitSignedIn(t *testing.T) {
	t.Helper()
	require.Eventually(t, func() bool {
		got, err := a.askSocket(t.Context(), "creds/"+a.role, vaultRequest())
		return err == nil && got.status == http.StatusOK
	}, time.Minute, 50*time.Millisecond, "%s", a)
}

// vaultBySocket runs the vault command against the Agent, without a Vault token.
func (a *agent) vaultBySocket(t *testing.T, args ...string) string {
	t.Helper()
	cmd := a.run(t, shared.Vault.Command, args...)
	cmd.Env = append(cmd.Env, "VAULT_ADDR=unix://"+filepath.Join(a.dir, "agent.sock"))
	printed, err := cmd.Output()
	require.NoError(t, err)
	shared.witness.sawToken("what vault printed of the Agent's socket", string(printed))
	return string(printed)
}

// lockedBuffer can be read while a command writes to it.
type lockedBuffer struct {
	mu     sync.Mutex
	buffer bytes.Buffer
}

func (b *lockedBuffer) Write(text []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buffer.Write(text)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buffer.String()
}
