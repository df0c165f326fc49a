package integrationtest

import (
	"context"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"
	"github.com/stretchr/testify/require"

	"github.com/bcgov/vault-plugin-bcgov-jwt/integrationtest/keycloak"
)

// manyReaders are what the shared delivery is for.
const manyReaders = 1000

// gate stands between Vault and a provider. It counts what comes, and can be shut.
type gate struct {
	next http.Handler

	mu      sync.Mutex
	arrived map[string][]time.Time // by the last part of the path
	opened  chan struct{}          // closed when the gate is opened; nil while it is open
	silent  bool                   // how it is shut
}

func newGate(next http.Handler) *gate {
	return &gate{next: next, arrived: map[string][]time.Time{}}
}

func (g *gate) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	g.mu.Lock()
	endpoint := path.Base(r.URL.Path)
	g.arrived[endpoint] = append(g.arrived[endpoint], time.Now())
	opened, silent := g.opened, g.silent
	g.mu.Unlock()
	if opened != nil && !silent {
		panic(http.ErrAbortHandler)
	}
	if opened != nil {
		select {
		case <-opened:
		case <-r.Context().Done():
			return
		}
	}
	g.next.ServeHTTP(w, r)
}

// cut breaks each connection, as a firewall that resets them does.
func (g *gate) cut() { g.shut(false) }

// silence lets requests come, and nothing go back until the gate is opened.
func (g *gate) silence() { g.shut(true) }

func (g *gate) shut(silent bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.opened, g.silent = make(chan struct{}), silent
}

func (g *gate) open() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.opened != nil {
		close(g.opened)
		g.opened = nil
	}
}

// requests are the times at which requests to an endpoint came, the last part of whose path this is.
func (g *gate) requests(endpoint string) []time.Time {
	g.mu.Lock()
	defer g.mu.Unlock()
	return slices.Clone(g.arrived[endpoint])
}

// gatedKeycloak is the suite's Keycloak behind a gate of the test's own.
func gatedKeycloak(t *testing.T) (*provider, *gate) {
	t.Helper()
	kc := realKeycloak(t)
	target, err := url.Parse(shared.Keycloak)
	require.NoError(t, err)
	g := newGate(&httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(target)
			r.Out.Host = r.In.Host // from which Keycloak takes its own address
		},
		ErrorLog: log.New(io.Discard, "", 0), // a refresh may be under way when a test ends
	})
	admin := keycloak.NewAdmin(serve(t, g.ServeHTTP), "admin", "admin")
	t.Cleanup(admin.Close)
	t.Cleanup(g.open) // the server's end waits for what is under way
	return &provider{issuer: admin.Issuer(testRealm), put: kc.put, admin: admin, config: kc.config}, g
}

// newRole is newClient for tokens of this life, with these settings of the role.
func (m *mount) newRole(t *testing.T, p *provider, name string, life time.Duration, settings map[string]any) {
	t.Helper()
	clientID := m.newClient(t, p, name, map[string]any{"type": "ecdsa-p256"})
	client := keycloak.PortalClient(clientID, m.read(t, "keys/"+name).text(t, "public_key"))
	client.Attributes[keycloak.AttributeTokenLifespan] = strconv.Itoa(int(life.Seconds()))
	require.NoError(t, p.put(t.Context(), client))
	m.write(t, "roles/"+name, settings)
}

// startQuietVault starts a Vault for loads: it has no audit log, and logs no request. Its log is shown to the witness when the test ends.
func startQuietVault(t *testing.T) *raftVault {
	t.Helper()
	vault := startRaftVault(t)
	t.Cleanup(func() {
		logged, err := os.ReadFile(vault.logFile())
		require.NoError(t, err)
		shared.witness.saw("the log of a Vault under load", string(logged))
	})
	return vault
}

// crowd reads creds of a role from many clients at once, and keeps what each read got.
type crowd struct {
	m    *mount
	role string
	next func(reading) time.Time // when a client's next read begins

	mu       sync.Mutex
	readings []reading
}

// reading is what came of one read of one client.
type reading struct {
	client       int
	begun, ended time.Time
	failures     int // of the client in a row, with this one
	status       int
	errorText    string
	warnings     []string

	tokenJTI  string
	issuedAt  time.Time
	expiresAt time.Time
	ttl       time.Duration
}

// remaining is how much of its life the token had when the client asked for it; the engine's answer may be up to the read's duration later. As expires_at has no
// fractions, it may have been up to a second more.
func (r reading) remaining() time.Duration { return r.expiresAt.Sub(r.begun) }

// everySecond is for clients that read so often, however long a read takes.
func everySecond(r reading) time.Time { return r.begun.Add(time.Second) }

// followTTL is when Vault Agent reads again: a second after the ttl that it was told, and after a failure 0.25 s later, 0.5 s, and so on.
func followTTL(r reading) time.Time {
	if r.failures > 0 {
		return r.ended.Add(min(250*time.Millisecond<<min(r.failures-1, 10), time.Minute))
	}
	return r.ended.Add(r.ttl + time.Second)
}

// startCrowd has clients begin one after the other within a time, and read until the test ends or stop is called. A read that was begun is ended.
func (m *mount) startCrowd(t *testing.T, role string, clients int, within time.Duration, next func(reading) time.Time) (c *crowd, stop func()) {
	t.Helper()
	c = &crowd{m: m.crowded(t, clients), role: role, next: next}
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	begin := time.Now()
	for client := range clients {
		running.Go(func() { c.run(ctx, client, begin.Add(within*time.Duration(client)/time.Duration(clients))) })
	}
	stop = sync.OnceFunc(func() {
		cancel()
		running.Wait()
	})
	t.Cleanup(stop)
	return c, stop
}

// crowded is the mount through a client with a connection for each reader. It shows the witness nothing: so many answers are too many to keep.
func (m *mount) crowded(t *testing.T, readers int) *mount {
	t.Helper()
	transport := &http.Transport{MaxIdleConnsPerHost: readers}
	t.Cleanup(transport.CloseIdleConnections)
	config := m.client.CloneConfig()
	config.HttpClient = &http.Client{Transport: transport, Timeout: time.Minute}
	client, err := api.NewClient(config)
	require.NoError(t, err)
	client.SetToken(m.client.Token())
	return &mount{path: m.path, uuid: m.uuid, client: client}
}

func (c *crowd) run(ctx context.Context, client int, at time.Time) {
	failures := 0
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(time.Until(at)):
		}
		got := c.read(context.WithoutCancel(ctx))
		failures++
		if got.status == http.StatusOK {
			failures = 0
		}
		got.client, got.failures = client, failures
		c.mu.Lock()
		c.readings = append(c.readings, got)
		c.mu.Unlock()
		at = c.next(got)
	}
}

func (c *crowd) read(ctx context.Context) reading {
	r := reading{begun: time.Now()}
	got, err := c.m.request(ctx, http.MethodGet, "/v1/"+c.m.path+"/creds/"+c.role, nil, nil)
	r.ended, r.status, r.errorText, r.warnings = time.Now(), got.status, got.errorText(), got.warnings
	if err != nil {
		r.status, r.errorText = 0, err.Error()
		return r
	}
	r.tokenJTI, _ = got.data["token_jti"].(string)
	issuedAt, _ := got.data["issued_at"].(string)
	r.issuedAt, _ = time.Parse(time.RFC3339, issuedAt)
	expiresAt, _ := got.data["expires_at"].(string)
	r.expiresAt, _ = time.Parse(time.RFC3339, expiresAt)
	ttl, _ := got.data["ttl"].(float64)
	r.ttl = time.Duration(ttl) * time.Second
	return r
}

// so returns the readings so far for which this holds.
func (c *crowd) so(holds func(reading) bool) []reading {
	c.mu.Lock()
	defer c.mu.Unlock()
	var found []reading
	for _, r := range c.readings {
		if holds(r) {
			found = append(found, r)
		}
	}
	return found
}

func anyReading(reading) bool { return true }

func succeeded(r reading) bool { return r.status == http.StatusOK }

func failed(r reading) bool { return r.status != http.StatusOK }

// awaitAll waits until this many clients have a reading for which this holds.
func (c *crowd) awaitAll(t *testing.T, clients int, within time.Duration, what string, holds func(reading) bool) {
	t.Helper()
	require.Eventually(t, func() bool { return len(clientsOf(c.so(holds))) >= clients }, within, 100*time.Millisecond, what)
}

func clientsOf(readings []reading) map[int]bool {
	clients := map[int]bool{}
	for _, r := range readings {
		clients[r.client] = true
	}
	return clients
}

func tokensOf(readings []reading) map[string]bool {
	tokens := map[string]bool{}
	for _, r := range readings {
		tokens[r.tokenJTI] = true
	}
	return tokens
}

// requireNone shows some of the readings that should not be.
func requireNone(t *testing.T, readings []reading, what string) {
	t.Helper()
	for _, r := range readings[:min(3, len(readings))] {
		t.Errorf("%s: client %d, begun %s, after %s, with %s left: %d %s", what, r.client, r.begun.Format("15:04:05.000"),
			r.ended.Sub(r.begun).Round(time.Millisecond), r.remaining().Round(time.Millisecond), r.status, r.errorText)
	}
	if len(readings) > 0 {
		t.Fatalf("%s: %d readings", what, len(readings))
	}
}

func summary(readings []reading) string {
	least, slowest := readings[0].remaining(), time.Duration(0)
	for _, r := range readings {
		least, slowest = min(least, r.remaining()), max(slowest, r.ended.Sub(r.begun))
	}
	return fmt.Sprintf("%d reads, the least life left %s, the slowest %s", len(readings), least.Round(time.Millisecond), slowest.Round(time.Millisecond))
}

// TestManyReadersCostOneRequestPerTokenLife has a thousand clients read once a second, over three lives of a token, and the fourth token come late.
func TestManyReadersCostOneRequestPerTokenLife(t *testing.T) {
	t.Parallel()
	const (
		life   = 30 * time.Second
		margin = 10 * time.Second              // by rule
		used   = life - margin - 3*time.Second // before the next token is asked for
		late   = 2 * time.Second
	)
	p, g := gatedKeycloak(t)
	m := startQuietVault(t).mountAt(t, "shared")
	m.write(t, "config", p.config)
	m.write(t, "config", map[string]any{"request_timeout": "45s"}) // a busy machine's Keycloak may be slow
	m.newRole(t, p, "myapi", life, map[string]any{"delivery": "shared"})
	c, stop := m.startCrowd(t, "myapi", manyReaders, time.Second, everySecond)

	tokens := map[string]bool{}
	for range 3 {
		c.awaitAll(t, manyReaders, 2*life, "every client has the next token", func(r reading) bool { return r.status == http.StatusOK && !tokens[r.tokenJTI] })
		tokens = tokensOf(c.so(succeeded))
	}
	m.read(t, "creds/myapi") // which the witness sees
	g.silence()
	require.Eventually(t, func() bool { return len(g.requests("token")) == 4 }, life, 10*time.Millisecond, "the provider is asked for the next token")
	held := time.Now()
	prompt := c.so(succeeded)

	// While it is on its way all go on with the one before. A client ends one read before it begins the next, so none waits for it.
	pass(t, late)
	c.awaitAll(t, manyReaders, life, "every client goes on", func(r reading) bool { return r.begun.After(held) })
	released := time.Now()
	g.open()
	c.awaitAll(t, manyReaders, life, "every client has the late token", func(r reading) bool { return r.begun.After(released) && !tokens[r.tokenJTI] })
	stop()

	requireNone(t, c.so(failed), "failed")
	requireNone(t, c.so(func(r reading) bool { return r.ended.Before(released) && !tokens[r.tokenJTI] }), "the token that was held back")
	requireNone(t, slices.DeleteFunc(slices.Clone(prompt), func(r reading) bool { return r.remaining() >= margin }), "less than the margin")
	requests := g.requests("token")
	require.Len(t, requests, 4)
	require.Len(t, tokensOf(c.so(succeeded)), len(requests))
	for i := range requests[1:] {
		require.Greater(t, requests[i+1].Sub(requests[i]), used-time.Second, "between requests")
	}
	whileHeld := c.so(func(r reading) bool { return r.begun.After(held) && r.begun.Before(released) })
	t.Logf("%s: %s. Held back for %s: %s", held.Sub(requests[0]), summary(prompt), released.Sub(held), summary(whileHeld))
}

// outage is a way for a provider to be away, in the middle of a token's life.
type outage struct {
	name         string
	shut         func(*gate)
	readers      int
	life, margin time.Duration
	short        time.Duration // what a token has left when it is served no more
	status       int           // of what a reader gets then
	text         string
}

// TestReadersOutlastAnOutage has readers follow ttl as Vault Agent does. The margins are long, so that most of a life is an outage.
func TestReadersOutlastAnOutage(t *testing.T) {
	t.Parallel()
	rows := []outage{
		{
			"connections break", (*gate).cut, manyReaders, 80 * time.Second, 55 * time.Second, 5 * time.Second,
			http.StatusBadGateway, "the connection was closed before an answer",
		},
		{
			"nothing comes back", (*gate).silence, manyReaders, 80 * time.Second, 55 * time.Second, 5 * time.Second,
			http.StatusGatewayTimeout, "no complete answer within request_timeout",
		},
		{
			"a short life", (*gate).cut, 10, 30 * time.Second, 15 * time.Second, 3 * time.Second,
			http.StatusBadGateway, "the connection was closed before an answer",
		},
	}
	realKeycloak(t)
	vault := startQuietVault(t)
	for i, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			row.run(t, vault.mountAt(t, fmt.Sprintf("outage-%d", i)))
		})
	}
}

func (o outage) run(t *testing.T, m *mount) {
	t.Helper()
	p, g := gatedKeycloak(t)
	m.write(t, "config", p.config)
	m.newRole(t, p, "myapi", o.life, map[string]any{"delivery": "shared", "refresh_margin": o.margin.Seconds()})
	followers, stopFollowers := m.startCrowd(t, "myapi", o.readers, o.life/8, followTTL)
	followers.awaitAll(t, o.readers, o.life, "every client has the token", succeeded)
	issuedAt, expiresAt := followers.so(succeeded)[0].issuedAt, followers.so(succeeded)[0].expiresAt
	// Keycloak says what remains of a token, and so a second less where it was slow: a tenth of that is the bound.
	short := min(5*time.Second, expiresAt.Sub(issuedAt)/10)
	require.InDelta(t, o.short.Seconds(), short.Seconds(), 0.2)
	o.short = short
	old := tokensOf(followers.so(succeeded))
	require.Len(t, old, 1)
	o.shut(g)

	// Once the followers have met the outage, there are others, who come all the time.
	followers.awaitAll(t, o.readers, o.life, "every client is told of the outage", func(r reading) bool { return slices.ContainsFunc(r.warnings, isOutageWarning) })
	others, stopOthers := m.startCrowd(t, "myapi", 10, time.Second, everySecond)
	others.awaitAll(t, 1, o.life, "a token is served no more in the end", failed)
	stopFollowers()
	pass(t, time.Until(expiresAt))
	g.open()
	opened := time.Now()
	isNew := func(r reading) bool { return r.status == http.StatusOK && !old[r.tokenJTI] }
	others.awaitAll(t, 10, time.Minute, "every client has a new token", isNew)
	stopOthers()

	first := slices.MinFunc(others.so(isNew), func(a, b reading) int { return a.ended.Compare(b.ended) })
	require.Less(t, first.ended.Sub(opened), 5*time.Second, "until tokens flow again")
	o.requireServedWhileItLasts(t, expiresAt, append(followers.so(anyReading), others.so(func(r reading) bool { return !isNew(r) && r.begun.Before(opened) })...))
	o.requireNoStampede(t, expiresAt, followers)
}

func isOutageWarning(text string) bool {
	return strings.HasPrefix(text, "The token could not be refreshed yet; it is valid until expires_at: token request at ")
}

// requireServedWhileItLasts allows for an expires_at without its fractions, and for nothing else: a read is answered at some time between its begin and its end.
func (o outage) requireServedWhileItLasts(t *testing.T, expiresAt time.Time, readings []reading) {
	t.Helper()
	lastServed := expiresAt.Add(-o.short)
	for _, r := range readings {
		if r.status == http.StatusOK {
			require.True(t, r.begun.Before(lastServed.Add(time.Second)), "served with %s left", expiresAt.Sub(r.begun))
			continue
		}
		require.True(t, r.ended.After(lastServed), "%d %s with %s left", r.status, r.errorText, expiresAt.Sub(r.ended))
		require.Equal(t, o.status, r.status, r.errorText)
		requireNames(t, r.errorText, "token request at ", o.text)
	}
}

// requireNoStampede looks at the time between when a new token was due and when the old one was served no more.
func (o outage) requireNoStampede(t *testing.T, expiresAt time.Time, followers *crowd) {
	t.Helper()
	from, to := expiresAt.Add(-o.margin-o.short), expiresAt.Add(-o.short)
	reads := followers.so(func(r reading) bool { return r.begun.After(from) && r.begun.Before(to) })
	perSecond := float64(len(reads)) / to.Sub(from).Seconds()
	t.Logf("%.0f reads a second, and up to %.0f in 10 s", perSecond, most(reads, 10*time.Second)/10)
	require.Less(t, perSecond, 150.0)
}

// most is how many readings began within such a time at most.
func most(readings []reading, within time.Duration) float64 {
	slices.SortFunc(readings, func(a, b reading) int { return a.begun.Compare(b.begun) })
	most, first := 0, 0
	for i, r := range readings {
		for r.begun.Sub(readings[first].begun) > within {
			first++
		}
		most = max(most, i-first+1)
	}
	return float64(most)
}

// mountAt mounts the plugin in this Vault until the test ends.
func (v *raftVault) mountAt(t *testing.T, at string) *mount {
	t.Helper()
	client, err := v.client(shared.witness)
	require.NoError(t, err)
	require.NoError(t, client.Sys().MountWithContext(t.Context(), at, &api.MountInput{Type: pluginName}))
	m := &mount{path: at, client: client}
	m.adopt(t)
	return m
}
