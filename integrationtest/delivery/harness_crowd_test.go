package delivery

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bcgov/vault-plugin-bcgov-jwt/integrationtest/harness"
)

// manyReaders are what the shared delivery is for.
const manyReaders = 1000

// crowd reads creds of a role from many concurrent clients, and keeps the outcome of each read.
type crowd struct {
	m    *harness.Mount
	role string
	next func(reading) time.Time // when a client's next read begins

	mu       sync.Mutex
	readings []reading
}

// reading is the outcome of one read of one client.
type reading struct {
	client       int
	begun, ended time.Time
	failures     int // consecutive ones of the client, this one included
	status       int
	errorText    string
	warnings     []string

	tokenJTI  string
	issuedAt  time.Time
	expiresAt time.Time
	ttl       time.Duration
}

// remaining returns how long the token was still valid when the client requested it; the engine's
// response may be up to the read's duration later. As expires_at has no fractions, it may have been
// up to a second more.
func (r reading) remaining() time.Duration { return r.expiresAt.Sub(r.begun) }

// everySecond is for clients that read once a second, however long a read takes.
func everySecond(r reading) time.Time { return r.begun.Add(time.Second) }

// followTTL returns when Vault Agent reads again: a second after the ttl of the response, and after
// a failure 0.25 s later, then 0.5 s, and so on.
func followTTL(r reading) time.Time {
	if r.failures > 0 {
		return r.ended.Add(min(250*time.Millisecond<<min(r.failures-1, 10), time.Minute))
	}
	return r.ended.Add(r.ttl + time.Second)
}

// startCrowd starts clients one after the other within a time, which read until the test ends or
// stop is called. A read that has begun is completed.
func startCrowd(
	t *testing.T, m *harness.Mount, role string, clients int, within time.Duration,
	next func(reading) time.Time,
) (c *crowd, stop func()) {
	t.Helper()
	c = &crowd{m: m.WithConnections(t, clients), role: role, next: next}
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	begin := time.Now()
	for client := range clients {
		delay := within * time.Duration(client) / time.Duration(clients)
		running.Go(func() { c.run(ctx, client, begin.Add(delay)) })
	}
	stop = sync.OnceFunc(func() {
		cancel()
		running.Wait()
	})
	t.Cleanup(stop)
	return c, stop
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
	got, err := c.m.Request(ctx, http.MethodGet, "creds/"+c.role, nil)
	r.ended, r.status = time.Now(), got.Status
	r.errorText, r.warnings = got.ErrorText(), got.Warnings
	if err != nil {
		r.status, r.errorText = 0, err.Error()
		return r
	}
	r.tokenJTI, _ = got.Data["token_jti"].(string)
	issuedAt, _ := got.Data["issued_at"].(string)
	r.issuedAt, _ = time.Parse(time.RFC3339, issuedAt)
	expiresAt, _ := got.Data["expires_at"].(string)
	r.expiresAt, _ = time.Parse(time.RFC3339, expiresAt)
	ttl, _ := got.Data["ttl"].(float64)
	r.ttl = time.Duration(ttl) * time.Second
	return r
}

// filter returns the readings so far for which a condition holds.
func (c *crowd) filter(holds func(reading) bool) []reading {
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

func all(reading) bool { return true }

func succeeded(r reading) bool { return r.status == http.StatusOK }

func failed(r reading) bool { return r.status != http.StatusOK }

// awaitAll waits until this many clients have a reading for which a condition holds.
func (c *crowd) awaitAll(
	t *testing.T, clients int, within time.Duration, what string, holds func(reading) bool,
) {
	t.Helper()
	require.Eventually(t, func() bool { return len(clientsOf(c.filter(holds))) >= clients },
		within, 100*time.Millisecond, what)
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

// requireNone prints some of the readings, which must not exist.
func requireNone(t *testing.T, readings []reading, what string) {
	t.Helper()
	for _, r := range readings[:min(3, len(readings))] {
		t.Errorf("%s: client %d, begun %s, after %s, with %s left: %d %s",
			what, r.client, r.begun.Format("15:04:05.000"),
			r.ended.Sub(r.begun).Round(time.Millisecond),
			r.remaining().Round(time.Millisecond), r.status, r.errorText)
	}
	if len(readings) > 0 {
		t.Fatalf("%s: %d readings", what, len(readings))
	}
}

func summarize(readings []reading) string {
	least, slowest := readings[0].remaining(), time.Duration(0)
	for _, r := range readings {
		least, slowest = min(least, r.remaining()), max(slowest, r.ended.Sub(r.begun))
	}
	return fmt.Sprintf("%d reads, at least %s of validity left, the slowest %s",
		len(readings), least.Round(time.Millisecond), slowest.Round(time.Millisecond))
}
