// Package tokencache shares access tokens: however many readers there are, the provider receives
// one request per token lifetime. A token is replaced ahead of time in the background, and the old
// one is served while the provider cannot issue a new one.
package tokencache

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/bcgov/vault-plugin-bcgov-jwt/backend/internal/exchange"
	"github.com/hashicorp/go-hclog"
)

const (
	// refreshPause is the least time between two attempts to refresh one token.
	refreshPause = time.Second
	// refreshGrace is how long after its start a refresh is worth waiting for, to a reader that
	// would otherwise receive less than the margin: typically a sole reader that follows ttl, which
	// ends where the margin begins.
	refreshGrace = time.Second
)

// ErrClosed is returned after Close to readers that would have to wait for a token.
var ErrClosed = errors.New("the secrets engine is stopping; read again")

// Cache holds one token per name, in memory only. I is the type of a token's inputs: only readers
// with equal inputs share a token, so that a write to any of them leads to a new one, even for a
// request that the write overtook. A Cache is safe for concurrent use and must be closed.
type Cache[I comparable] struct {
	now    func() time.Time
	logger hclog.Logger

	ctx        context.Context // canceled by Close
	cancel     context.CancelFunc
	background sync.WaitGroup

	mu      sync.Mutex // guards all entries, and background against Close
	entries map[string]*entry[I]
}

// New creates an empty Cache that uses this clock.
func New[I comparable](now func() time.Time, logger hclog.Logger) *Cache[I] {
	c := &Cache[I]{now: now, logger: logger, entries: map[string]*entry[I]{}}
	c.ctx, c.cancel = context.WithCancel(context.Background()) //nolint:gosec // Close calls it
	return c
}

// Source obtains a token and determines when to replace it.
type Source struct {
	// Fetch obtains a new token, in limited time. Its context is no reader's, so that one who
	// disconnects does not fail the others.
	Fetch func(context.Context) (*exchange.Token, error)
	// Margin returns how much of its lifetime a token should have left when it is served.
	Margin func(life time.Duration) time.Duration
}

// Shared is a token as served to one reader.
type Shared struct {
	*exchange.Token
	// TTL is when to read again: when the token is due for replacement or, while that fails, soon,
	// but not so soon that readers stampede. Whole seconds, at least 1.
	TTL time.Duration
	// Failure is why the token could not be replaced so far; nil if nothing is wrong.
	Failure error
}

// Token returns the token of a name. A reader waits for the source only if there is no token to
// serve, at most until its own context ends, and briefly if it would receive less than the margin.
// The error is Fetch's, the context's cause, or ErrClosed.
func (c *Cache[I]) Token(
	ctx context.Context, name string, inputs I, source Source,
) (*Shared, error) {
	e, shared, pending := c.lookup(name, inputs, source)
	switch {
	case shared != nil && pending == nil:
		return shared, nil
	case shared != nil:
		return c.awaitBriefly(ctx, e, pending), nil
	case pending == nil:
		return nil, ErrClosed
	}
	select {
	case <-pending.done:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	switch {
	case pending.err == nil:
		return c.share(e), nil
	case c.ctx.Err() != nil:
		return nil, ErrClosed
	default:
		return nil, pending.err
	}
}

// lookup returns the token to serve, if any, and the refresh worth waiting for.
func (c *Cache[I]) lookup(name string, inputs I, source Source) (*entry[I], *Shared, *refresh) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e := c.entries[name]
	if e == nil || e.inputs != inputs {
		e = &entry[I]{name: name, inputs: inputs}
		c.entries[name] = e
	}
	now := c.now()
	if e.due(now) {
		c.startRefresh(e, source)
	}
	switch {
	case !e.usable(now):
		return e, nil, e.refresh
	case e.maxWait(now) > 0:
		return e, e.share(now), e.refresh
	default:
		return e, e.share(now), nil
	}
}

// awaitBriefly returns the new token if it arrives soon, otherwise the old one while it is usable.
func (c *Cache[I]) awaitBriefly(ctx context.Context, e *entry[I], pending *refresh) *Shared {
	c.mu.Lock()
	grace := time.NewTimer(e.maxWait(c.now()))
	c.mu.Unlock()
	defer grace.Stop()
	select {
	case <-pending.done:
	case <-grace.C:
	case <-ctx.Done():
	}
	return c.share(e)
}

func (c *Cache[I]) share(e *entry[I]) *Shared {
	c.mu.Lock()
	defer c.mu.Unlock()
	return e.share(c.now())
}

// startRefresh starts a refresh in the background unless one is running. c.mu must be held.
func (c *Cache[I]) startRefresh(e *entry[I], source Source) {
	if e.refresh != nil || c.ctx.Err() != nil {
		return
	}
	e.refresh = &refresh{startedAt: c.now(), done: make(chan struct{})}
	pause := e.attemptedAt.Add(refreshPause).Sub(c.now())
	c.background.Go(func() { c.run(e, source, pause) })
}

func (c *Cache[I]) run(e *entry[I], source Source, pause time.Duration) {
	select {
	case <-time.After(pause):
	case <-c.ctx.Done():
	}
	attemptedAt := c.now()
	token, err := source.Fetch(c.ctx)

	c.mu.Lock()
	defer c.mu.Unlock()
	e.attemptedAt = attemptedAt
	if c.ctx.Err() == nil {
		c.logOutcome(e, err)
	}
	e.finish(token, err, source.Margin)
}

// logOutcome logs the first of several failures, which readers of the old token do not notice, and
// the success after them.
func (c *Cache[I]) logOutcome(e *entry[I], err error) {
	switch {
	case err != nil && e.failure == nil && e.usable(c.now()):
		c.logger.Warn("shared token refresh failed; serving the old token until it expires",
			"role", e.name, "expires_at", e.expiry().UTC().Format(time.RFC3339), "error", err)
	case e.token != nil && err == nil && e.failure != nil:
		c.logger.Info("shared token refreshed after failures", "role", e.name)
	}
}

// Drop drops the token of a name. Those who wait for a running fetch still receive its token, and
// nobody else does.
func (c *Cache[I]) Drop(name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.entries, name)
}

// DropIf drops the tokens whose inputs match.
func (c *Cache[I]) DropIf(matches func(I) bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for name, e := range c.entries {
		if matches(e.inputs) {
			delete(c.entries, name)
		}
	}
}

// Len counts the tokens that have not expired.
func (c *Cache[I]) Len() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	held, now := 0, c.now()
	for _, e := range c.entries {
		if e.token != nil && e.remaining(now) > 0 {
			held++
		}
	}
	return held
}

// Close drops all tokens, cancels running fetches and waits for their goroutines.
func (c *Cache[I]) Close() {
	c.mu.Lock()
	c.cancel()
	c.entries = map[string]*entry[I]{}
	c.mu.Unlock()
	c.background.Wait()
}

// entry holds the token of one name and its inputs. The cache's lock guards it.
type entry[I comparable] struct {
	name   string
	inputs I

	token  *exchange.Token // nil before the first
	margin time.Duration   // of the token

	refresh     *refresh  // the running one, or nil
	attemptedAt time.Time // when the last one began to fetch
	failure     error     // of the last one; nil if it succeeded
}

// refresh is one replacement of a token. err may be read once done is closed.
type refresh struct {
	startedAt time.Time
	done      chan struct{}
	err       error
}

// finish ends the running refresh, for all who wait for it.
func (e *entry[I]) finish(
	token *exchange.Token, err error, margin func(time.Duration) time.Duration,
) {
	e.failure, e.refresh.err = err, err
	if err == nil {
		e.token, e.margin = token, margin(token.Lifetime)
	}
	close(e.refresh.done)
	e.refresh = nil
}

func (e *entry[I]) expiry() time.Time { return e.token.RequestedAt.Add(e.token.Lifetime) }

// remaining uses both clocks: the monotonic one stops while a machine is suspended, and the wall
// clock may be set back.
func (e *entry[I]) remaining(now time.Time) time.Duration {
	return min(e.expiry().Sub(now), e.expiry().Round(0).Sub(now.Round(0)))
}

// reserve returns the least lifetime worth serving: 5 s, less for a short-lived token.
func (e *entry[I]) reserve() time.Duration { return min(5*time.Second, e.token.Lifetime/10) }

// due reports whether to refresh: early enough to have the new token before the margin begins.
func (e *entry[I]) due(now time.Time) bool {
	return e.token == nil || e.remaining(now) <= e.margin+e.reserve()
}

func (e *entry[I]) usable(now time.Time) bool {
	return e.token != nil && e.remaining(now) > e.reserve()
}

// maxWait returns how long a reader that would receive less than the margin waits for the refresh:
// not if refreshes fail or this one is known to be slow, and only while the token is usable.
func (e *entry[I]) maxWait(now time.Time) time.Duration {
	if e.refresh == nil || e.failure != nil || e.remaining(now) >= e.margin {
		return 0
	}
	return min(e.refresh.startedAt.Add(refreshGrace).Sub(now), e.remaining(now)-e.reserve())
}

func (e *entry[I]) share(now time.Time) *Shared {
	left := e.remaining(now)
	ttl := left - e.margin
	if e.failure != nil || left < e.margin { // the provider is down or slow
		ttl = min(10*time.Second, left/2)
	}
	ttl = max(ttl.Truncate(time.Second), time.Second)
	return &Shared{Token: e.token, TTL: ttl, Failure: e.failure}
}
