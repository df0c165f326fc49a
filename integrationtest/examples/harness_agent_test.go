package examples

import (
	"bytes"
	"context"
	"errors"
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

	"github.com/bcgov/vault-plugin-bcgov-jwt/integrationtest/harness"
)

const (
	// agentPeriod is the lease of a token, or its ttl. The rest of its lifetime is the margin, in
	// which a loaded machine obtains the next one.
	agentPeriod        = 5 * time.Second
	agentTokenLifetime = 20 * time.Second
	// agentStopTimeout leaves the Agent time to stop its program too, which would outlive its being
	// killed.
	agentStopTimeout = time.Minute
)

// testAgentSetup: the script can be run again, and what it writes is readable for its user alone
// and valid for one role.
func testAgentSetup(t *testing.T) {
	a := newAgent(t, harness.EmbeddedProvider(t), "leased", agentTokenLifetime)
	first := a.read(t, "secret_id")
	a.setUp(t)
	renewed := a.read(t, "secret_id") != first
	require.True(t, renewed, "a new secret_id each time")
	for _, file := range []string{"role_id", "secret_id"} {
		require.NoError(t, checkPrivate(filepath.Join(a.dir, file)))
	}
	policy, err := a.mount.Client.Sys().GetPolicyWithContext(t.Context(), a.mount.Path)
	require.NoError(t, err)
	rules := "path \"{mount}/creds/myapi\" {\n  capabilities = [\"read\"]\n}"
	require.Equal(t, a.mount.Expand(rules), strings.TrimSpace(policy))
}

// testAgentLeased: the file always has a valid token, and each is requested once.
func testAgentLeased(t *testing.T) {
	a := newAgent(t, harness.AnyProvider(t), "leased", agentTokenLifetime)
	a.start(t, "agent", "leased.hcl")
	file := a.watchToken(t)
	file.waitForTokens(t, 11)
	a.stop(t)
	a.provider.requireOneRequestPerToken(t, file.waitForTokens(t, 11))
}

// testAgentOutage: the file keeps its token while no other is available, and is updated once one
// is.
func testAgentOutage(t *testing.T) {
	a := newAgent(t, harness.EmbeddedProvider(t), "leased", 2*time.Minute)
	a.start(t, "agent", "leased.hcl")
	file := a.watchToken(t)
	file.waitForTokens(t, 1)
	a.provider.close()
	a.waitForOutput(t, "(retry attempt 2 ")
	require.Equal(t, 1, file.waitForTokens(t, 1))
	a.provider.open()
	file.waitForTokens(t, 3)
	a.stop(t)
}

// testAgentShared: without a lease the Agent follows the ttl.
func testAgentShared(t *testing.T) {
	a := newAgent(t, harness.EmbeddedProvider(t), "shared", agentTokenLifetime)
	a.start(t, "agent", "shared.hcl")
	file := a.watchToken(t)
	file.waitForTokens(t, 4)
	a.stop(t)
	a.provider.requireOneRequestPerToken(t, file.waitForTokens(t, 4))
}

// testAgentExec: the program is restarted with each token, and its API accepts them all.
func testAgentExec(t *testing.T) {
	p := harness.EmbeddedProvider(t)
	a := newAgent(t, p, "leased", agentTokenLifetime)
	api := p.NewAPI(t)
	a.start(t, "agent", "exec.hcl", "API_URL="+api.URL)
	require.Eventually(t, func() bool { return api.Tokens() >= 3 },
		2*time.Minute, 50*time.Millisecond, "%s", a)
	a.stop(t)
	require.Empty(t, api.Rejections())
	require.NotContains(t, a.String(), "API response:")
	for i, line := range a.lines("started with", "stopped") {
		require.Contains(t, line, []string{"started with", "stopped"}[i%2],
			"one program at a time: %s", a)
	}
	a.provider.requireOneRequestPerPeriod(t) // although there are two variables
}

// testAgentProxy: whoever may use the socket obtains tokens. Vault Proxy is the Agent's proxy under
// its new name.
func testAgentProxy(t *testing.T) {
	for _, command := range []string{"agent", "proxy"} {
		t.Run("shared, vault "+command, func(t *testing.T) {
			t.Parallel()
			a := newAgent(t, harness.EmbeddedProvider(t), "shared", agentTokenLifetime)
			a.start(t, command, "proxy.hcl")
			require.Equal(t, 1, a.tokensBySocket(t, 10))
			got := a.readBySocket(t, "creds/"+a.role, nil)
			require.Equal(t, http.StatusPreconditionFailed, got.Status, "without the header")
			got = a.readBySocket(t, "keys/"+a.role, vaultRequest())
			require.Equal(t, http.StatusForbidden, got.Status, "the policy is the Agent's")
			socket, err := os.Stat(filepath.Join(a.dir, "agent.sock"))
			require.NoError(t, err)
			require.Zero(t, socket.Mode()&0o022, "no other user may write to it")
			token := a.vaultBySocket(t, "read", "-field=access_token",
				a.mount.Path+"/creds/"+a.role)
			require.NoError(t, checkUnexpired(token))
			a.stop(t)
		})
	}
	for name, addition := range map[string]string{
		"leased": "", "leased, with the Agent's cache": "cache {}\n",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := newAgent(t, harness.EmbeddedProvider(t), "shared", agentTokenLifetime)
			a.mount.Write(t, "roles/"+a.role, map[string]any{"delivery": "leased"})
			a.append(t, "proxy.hcl", addition)
			a.start(t, "agent", "proxy.hcl")
			require.Equal(t, 10, a.tokensBySocket(t, 10),
				"the cache keeps only what can be renewed")
			a.provider.close()
			got := a.readBySocket(t, "creds/"+a.role, vaultRequest())
			require.Equal(t, http.StatusBadGateway, got.Status)
			require.Equal(t, 3, a.provider.rejections(), "those of one read: the Agent adds none")
			a.stop(t)
		})
	}
}

// agent is a Vault Agent in a folder of its own with the examples, authorized to read one role.
type agent struct {
	dir      string
	mount    *harness.Mount
	role     string
	provider *endpointGate

	*process // once it is started
}

// newAgent prepares everything that an Agent needs, with the example's own script.
func newAgent(
	t *testing.T, p *harness.Provider, delivery string, lifetime time.Duration,
) *agent {
	t.Helper()
	a := &agent{
		dir: t.TempDir(), role: "myapi",
		provider: newEndpointGate(t, p), mount: harness.NewMount(t, p.Config),
	}
	if delivery == "shared" {
		a.role = "myapi-shared"
	}
	a.mount.Write(t, "config", a.provider.config)
	a.mount.NewClientWithTokenLifetime(t, p, a.role, lifetime,
		map[string]any{"token_endpoint": a.provider.URL},
		map[string]any{"delivery": delivery, "refresh_margin": (lifetime - agentPeriod).String()})
	a.copyExamples(t)
	a.setUp(t)
	return a
}

// copyExamples copies the examples to the Agent's folder, with the path of the test's mount.
func (a *agent) copyExamples(t *testing.T) {
	t.Helper()
	files, err := filepath.Glob(example("agent/*.*"))
	require.NoError(t, err)
	require.NotEmpty(t, files)
	for _, file := range files {
		content, err := os.ReadFile(file)
		require.NoError(t, err)
		content = bytes.ReplaceAll(content, []byte(`"bcgov-jwt/`), []byte(`"`+a.mount.Path+"/"))
		info, err := os.Stat(file)
		require.NoError(t, err)
		target := filepath.Join(a.dir, filepath.Base(file))
		require.NoError(t, os.WriteFile(target, content, info.Mode()))
	}
}

// setUp runs the example's script with which the Agent can log in. The application has the name of
// the mount, which is unique.
func (a *agent) setUp(t *testing.T) {
	t.Helper()
	setup := a.command(t, "./setup.sh", a.mount.Path, a.role, a.mount.Path)
	setup.Env = append(setup.Env, harness.Vault().ClientEnvironment(a.mount.Client.Token())...)
	printed, err := setup.CombinedOutput()
	harness.Detector().Record("the output of setup.sh", string(printed))
	require.NoError(t, err, string(printed))
	leaked := strings.Contains(string(printed), a.read(t, "secret_id"))
	require.False(t, leaked, "the secret_id was printed")
	a.mount.DeletePolicyAfterTest(t, a.mount.Path)
}

// command returns a command in the Agent's folder that finds the vault command.
func (a *agent) command(t *testing.T, name string, args ...string) *exec.Cmd {
	t.Helper()
	cmd := harness.Vault().Command(t.Context(), name, args...)
	cmd.Dir = a.dir
	cmd.Env = append(cmd.Env, harness.Vault().PathVariable())
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

// start starts the Agent, or another subcommand of vault, and stops it when the test ends at the
// latest.
func (a *agent) start(t *testing.T, subcommand, config string, environment ...string) {
	t.Helper()
	cmd := a.command(t, harness.Vault().Binary, subcommand, "-config="+config)
	cmd.Env = append(append(cmd.Env, "VAULT_ADDR="+a.mount.Client.Address()), environment...)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = agentStopTimeout
	a.process = startProcess(t, cmd)
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM) // it may have ended already
		<-a.ended
		harness.Detector().Record("the output of the Agent of "+config, a.String())
	})
}

// stop requires that the Agent has run until now, and that it ends when it is told to.
func (a *agent) stop(t *testing.T) {
	t.Helper()
	a.requireRunning(t)
	require.NoError(t, a.cmd.Process.Signal(syscall.SIGTERM))
	select {
	case <-a.ended:
	case <-time.After(agentStopTimeout):
		t.Fatal("it does not end: " + a.String())
	}
}

// waitForOutput waits until the Agent has printed a text.
func (a *agent) waitForOutput(t *testing.T, text string) {
	t.Helper()
	require.Eventually(t, func() bool { return strings.Contains(a.String(), text) },
		2*time.Minute, 20*time.Millisecond, "%s", a)
}

// lines returns the lines of the Agent or its program that begin with one of these words.
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

// tokenFile is a file that must always have a valid token once it exists.
type tokenFile struct {
	agent *agent
	path  string
	stop  context.CancelFunc
	done  chan struct{}

	mu   sync.Mutex
	seen map[string]bool
	err  error
}

// watchToken inspects the Agent's token file repeatedly until the test ends or something is wrong.
func (a *agent) watchToken(t *testing.T) *tokenFile {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	f := &tokenFile{
		agent: a, path: filepath.Join(a.dir, "token"), stop: stop, done: make(chan struct{}),
		seen: map[string]bool{},
	}
	go func() {
		defer close(f.done)
		for f.inspect() && ctx.Err() == nil {
			time.Sleep(20 * time.Millisecond)
		}
	}()
	t.Cleanup(func() {
		f.stop()
		<-f.done
	})
	return f
}

// inspect reads the file, and reports whether everything is well.
func (f *tokenFile) inspect() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	content, err := os.ReadFile(f.path)
	if os.IsNotExist(err) && len(f.seen) == 0 {
		return true
	}
	f.seen[string(content)] = true
	f.err = errors.Join(err, checkUnexpired(string(content)), checkPrivate(f.path))
	return f.err == nil
}

// waitForTokens waits until the file has had so many tokens, requires that everything was well
// throughout, and returns how many there have been.
func (f *tokenFile) waitForTokens(t *testing.T, tokens int) int {
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

// endpointGate stands in front of a provider's token endpoint, records the requests that pass, and
// can be closed.
type endpointGate struct {
	URL    string
	config map[string]any // with which a mount reaches it

	mu       sync.Mutex
	isClosed bool
	passed   []time.Time
	rejected int
}

func newEndpointGate(t *testing.T, p *harness.Provider) *endpointGate {
	t.Helper()
	endpoint, err := url.Parse(p.TokenEndpoint())
	require.NoError(t, err)
	next := &httputil.ReverseProxy{
		Transport: p.HTTPClient(t).Transport,
		Rewrite: func(r *httputil.ProxyRequest) {
			r.Out.URL, r.Out.Host = endpoint, endpoint.Host
		},
	}
	gate := &endpointGate{config: map[string]any{"allow_insecure_endpoints": true}}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !gate.pass() {
			panic(http.ErrAbortHandler) // which breaks the connection
		}
		next.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	gate.URL = server.URL
	if hosts, ok := p.Config["allowed_hosts"].(string); ok {
		gate.config["allowed_hosts"] = hosts + "," + server.Listener.Addr().String()
	}
	return gate
}

func (g *endpointGate) pass() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.isClosed {
		g.rejected++
		return false
	}
	g.passed = append(g.passed, time.Now())
	return true
}

func (g *endpointGate) close() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.isClosed = true
}

func (g *endpointGate) open() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.isClosed = false
}

// rejections returns how many requests found it closed.
func (g *endpointGate) rejections() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.rejected
}

// requireOneRequestPerToken requires a request for each token, but for one that may have been under
// way, and none too soon.
func (g *endpointGate) requireOneRequestPerToken(t *testing.T, tokens int) {
	t.Helper()
	requests := g.requireOneRequestPerPeriod(t)
	require.Contains(t, []int{tokens, tokens + 1}, requests, "requests for %d tokens", tokens)
}

// requireOneRequestPerPeriod requires a period between two requests, or what counts as one on a
// loaded machine.
func (g *endpointGate) requireOneRequestPerPeriod(t *testing.T) (requests int) {
	t.Helper()
	g.mu.Lock()
	defer g.mu.Unlock()
	for i := 1; i < len(g.passed); i++ {
		require.Greater(t, g.passed[i].Sub(g.passed[i-1]), agentPeriod/2, "request %d", i+1)
	}
	return len(g.passed)
}

func vaultRequest() http.Header { return http.Header{"X-Vault-Request": {"true"}} }

// readBySocket reads a path of the mount through the Agent's socket, without a Vault token.
func (a *agent) readBySocket(t *testing.T, path string, header http.Header) harness.Response {
	t.Helper()
	got, err := a.requestBySocket(t.Context(), path, header)
	require.NoError(t, err)
	return got
}

func (a *agent) requestBySocket(
	ctx context.Context, path string, header http.Header,
) (harness.Response, error) {
	address := "http://agent/v1/" + a.mount.Path + "/" + path
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, http.NoBody)
	if err != nil {
		return harness.Response{}, err
	}
	req.Header = header
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", filepath.Join(a.dir, "agent.sock"))
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: dial}}
	resp, err := client.Do(req)
	if err != nil {
		return harness.Response{}, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return harness.Response{}, err
	}
	harness.Detector().RecordCreds("a response of the Agent's socket", body)
	resp.Body = io.NopCloser(bytes.NewReader(body))
	if got, err := harness.ReadResponse(resp); err == nil {
		return got, nil
	}
	return harness.Response{Status: resp.StatusCode}, nil // the proxy's own errors are not JSON
}

// tokensBySocket reads the role's token so many times concurrently, and returns the number of
// different ones.
func (a *agent) tokensBySocket(t *testing.T, reads int) int {
	t.Helper()
	a.waitLoggedIn(t)
	var mu sync.Mutex
	tokens := map[string]bool{}
	var all errgroup.Group
	for range reads {
		all.Go(func() error {
			got, err := a.requestBySocket(t.Context(), "creds/"+a.role, vaultRequest())
			token, _ := got.Data["access_token"].(string)
			mu.Lock()
			defer mu.Unlock()
			tokens[token] = true
			return errors.Join(err, checkUnexpired(token))
		})
	}
	require.NoError(t, all.Wait())
	return len(tokens)
}

// waitLoggedIn waits until the Agent has a Vault token: before that it passes requests on without
// one.
func (a *agent) waitLoggedIn(t *testing.T) {
	t.Helper()
	require.Eventually(t, func() bool {
		got, err := a.requestBySocket(t.Context(), "creds/"+a.role, vaultRequest())
		return err == nil && got.Status == http.StatusOK
	}, time.Minute, 50*time.Millisecond, "%s", a)
}

// vaultBySocket runs the vault command against the Agent, without a Vault token.
func (a *agent) vaultBySocket(t *testing.T, args ...string) string {
	t.Helper()
	cmd := a.command(t, harness.Vault().Binary, args...)
	cmd.Env = append(cmd.Env, "VAULT_ADDR=unix://"+filepath.Join(a.dir, "agent.sock"))
	printed, err := cmd.Output()
	require.NoError(t, err)
	harness.Detector().RecordToken("the output of vault at the Agent's socket", string(printed))
	return string(printed)
}
