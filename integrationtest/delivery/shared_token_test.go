package delivery

import (
	"fmt"
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bcgov/vault-plugin-bcgov-jwt/integrationtest/harness"
)

// TestSharedToken_OneRequestPerLifetime has a thousand clients that read once a second, over the
// lifetimes of three tokens or, on a busy machine, more; then a token is late.
func TestSharedToken_OneRequestPerLifetime(t *testing.T) {
	t.Parallel()
	const (
		lifetime = 30 * time.Second
		margin   = 10 * time.Second                  // the default
		used     = lifetime - margin - 3*time.Second // before the next token is requested
		delay    = 2 * time.Second                   // of the late token
	)
	p, g := gatedKeycloak(t)
	defer g.open() // before the crowd ends, which waits for its reads
	m := mountAt(t, harness.StartRaftVault(t), "shared")
	m.Write(t, "config", p.Config)
	// On a busy machine Keycloak may be slow.
	m.Write(t, "config", map[string]any{"request_timeout": "45s"})
	newRole(t, m, p, "myapi", lifetime, map[string]any{"delivery": "shared"})
	c, stop := startCrowd(t, m, "myapi", manyReaders, time.Second, everySecond)

	tokens := map[string]bool{}
	for range 3 {
		isNext := func(r reading) bool { return r.status == http.StatusOK && !tokens[r.tokenJTI] }
		c.awaitAll(t, manyReaders, 2*lifetime, "every client has the next token", isNext)
		tokens = tokensOf(c.filter(succeeded))
	}
	m.Read(t, "creds/myapi") // whose token the leak detector knows
	g.silence()
	sent := len(g.requests("token"))
	require.Eventually(t, func() bool { return len(g.requests("token")) > sent },
		lifetime, 10*time.Millisecond, "the next token is requested")
	held := time.Now()
	prompt := c.filter(succeeded)
	tokens = tokensOf(prompt)

	// Until it arrives all clients continue with the previous one. A client completes one read
	// before it begins the next, so none waits for the token.
	harness.Sleep(t, delay)
	c.awaitAll(t, manyReaders, lifetime, "every client continues", func(r reading) bool {
		return r.begun.After(held)
	})
	released := time.Now()
	g.open()
	c.awaitAll(t, manyReaders, lifetime, "every client has the late token", func(r reading) bool {
		return r.begun.After(released) && !tokens[r.tokenJTI]
	})
	stop()

	requireNone(t, c.filter(failed), "failed")
	requireNone(t, c.filter(func(r reading) bool {
		return r.ended.Before(released) && !tokens[r.tokenJTI]
	}), "the token that was held back")
	requireNone(t, slices.DeleteFunc(slices.Clone(prompt), func(r reading) bool {
		return r.remaining() >= margin
	}), "less than the margin")
	requests := g.requests("token")
	// The last one's token may not have been read yet.
	require.LessOrEqual(t, len(requests), len(tokensOf(c.filter(succeeded)))+1)
	for i := range requests[1:] {
		// A request may arrive later than it was sent.
		require.Greater(t, requests[i+1].Sub(requests[i]), used-3*time.Second, "between requests")
	}
	whileHeld := c.filter(func(r reading) bool {
		return r.begun.After(held) && r.begun.Before(released)
	})
	t.Logf("%s: %s. Held back for %s: %s",
		held.Sub(requests[0]), summarize(prompt), released.Sub(held), summarize(whileHeld))
}

// TestSharedToken_ReadersOutlastOutage has readers that follow ttl as Vault Agent does. The margins
// are long, so that most of a lifetime is an outage.
func TestSharedToken_ReadersOutlastOutage(t *testing.T) {
	t.Parallel()
	rows := []outage{
		{
			"connections break", (*gate).cut, manyReaders,
			80 * time.Second, 55 * time.Second, 5 * time.Second,
			http.StatusBadGateway, "the connection was closed before a response",
		},
		{
			"nothing comes back", (*gate).silence, manyReaders,
			80 * time.Second, 55 * time.Second, 5 * time.Second,
			http.StatusGatewayTimeout, "no complete response within request_timeout",
		},
		{
			"a short life", (*gate).cut, 10, 30 * time.Second, 15 * time.Second, 3 * time.Second,
			http.StatusBadGateway, "the connection was closed before a response",
		},
	}
	harness.Keycloak(t)
	vault := harness.StartRaftVault(t)
	for i, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			row.run(t, mountAt(t, vault, fmt.Sprintf("outage-%d", i)))
		})
	}
}

// TestSharedToken_ReplacedWhenSettingsChange: once any setting with which a token was requested has
// changed, its readers receive another one. info counts the tokens.
func TestSharedToken_ReplacedWhenSettingsChange(t *testing.T) {
	t.Parallel()
	kc := harness.Keycloak(t)
	m := harness.NewMount(t, kc.Config)
	held := func() int { return m.Read(t, "info").Number(t, "shared_tokens") }
	token := func(role string) string { return m.Read(t, "creds/"+role).Text(t, "token_jti") }
	for i, role := range []string{"myapi", "other"} {
		newRole(t, m, kc, role, 300*time.Second, map[string]any{"delivery": "shared"})
		require.Equal(t, i, held())
		first := token(role)
		require.Equal(t, first, token(role))
		require.Equal(t, i+1, held())
	}
	changes := []struct {
		path   string
		change map[string]any
		others bool // whether it concerns the other role too
	}{
		{"roles/myapi", map[string]any{"refresh_margin": 20}, false},
		{"keys/myapi", map[string]any{"assertion_ttl": 40}, false},
		{"config", map[string]any{"max_retries": 1}, true},
	}
	for _, row := range changes {
		mine, other := token("myapi"), token("other")
		m.Write(t, row.path, row.change)
		require.NotEqual(t, mine, token("myapi"), row.path)
		require.Equal(t, row.others, other != token("other"), row.path)
		require.Equal(t, 2, held())
	}
	m.Delete(t, "roles/myapi")
	require.Equal(t, 1, held())
}
