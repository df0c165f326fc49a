// Package tokencache shares access tokens: however many readers there are, the provider gets one request per token life. A
// token is replaced ahead of time in the background, and served on while the provider cannot give a new one.
package tokencache

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/bcgov/vault-plugin-bcgov-jwt/backend/internal/exchange"
)

const (
	// refreshPause is the least time between two attempts to replace one token.
	refreshPause = time.Second
	// refreshGrace is how long after its begin a refresh is worth waiting for, to a reader that would get less than the margin:
	// one that follows ttl, as that ends where the margin begins, where no other came before.
	refreshGrace = time.Second
)

// ErrClosed is what a reader gets who would have to wait for a token after Close.
var ErrClosed = errors.New("the secrets engine is stopping")

// Cache holds one token per name, in memory only. I is what a token rests on: readers only share a token with those who
// come with equal inputs, so that a write to anything in it means a new token, also for a request that the write overtook.
// A Cache is safe for concurrent use, and Close must be called at its end.
type Cache[I comparable] struct {
	now    func() time.Time
	logger hclog.Logger

	life       context.Context // ends with Close
	endLife    context.CancelFunc
	background sync.WaitGroup

	mu      sync.Mutex // guards all entries, and background against Close
	closed  bool
	entries map[string]*entry[I]
}

// New makes an empty Cache that goes by this clock.
func New[I comparable](now func() time.Time, logger hclog.Logger) *Cache[I] {
	c := &Cache[I]{now: now, logger: logger, entries: map[string]*entry[I]{}}
	c.life, c.endLife = context.WithCancel(context.Background()) //nolint:gosec // Close calls it
	return c
}

// Source is how a token is made, and when it is to be replaced.
type Source struct {
	// Fetch gets a new token, in a limited time. Its context is no reader's, so that one who goes away does not fail the
	// others.
	Fetch func(context.Context) (*exchange.Token, error)
	// Margin is how much of its life a token should have left when a reader gets it.
	Margin func(life time.Duration) time.Duration
}

// Shared is a token as one reader gets it.
type Shared struct {
	*exchange.Token
	// TTL is when to read again: when the token is due to be replaced or, while that fails, soon, yet not so soon that
	// readers stampede. Whole seconds, at least 1.
	TTL time.Duration
	// Failure is why the token could not be replaced so far; nil if there is nothing wrong.
	Failure error
}

// Token returns the token of a name. A reader waits for the source only where there is no token to serve, at most until
// its own context ends, and for a moment where it would get less than the margin. The error is Fetch's, the context's
// cause, or ErrClosed.
func (c *Cache[I]) Token(ctx context.Context, name string, inputs I, source Source) (*Shared, error) {
	e, shared, refresh := c.lookup(name, inputs, source)
	switch {
	case shared != nil && refresh == nil:
		return shared, nil
	case shared != nil:
		return c.awaitBriefly(ctx, e, refresh), nil
	case refresh == nil:
		return nil, ErrClosed
	}
	select {
	case <-refresh.done:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	switch {
	case refresh.err == nil:
		return c.share(e), nil
	case c.life.Err() != nil:
		return nil, ErrClosed
	default:
		return nil, refresh.err
	}
}

// lookup returns what there is to serve, and the refresh that is worth waiting for: any where there is nothing to serve.
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
	case e.worthWaiting(now) > 0:
		return e, e.share(now), e.refresh
	default:
		return e, e.share(now), nil
	}
}

// awaitBriefly returns the new token if it comes soon, otherwise the old one while that is usable.
func (c *Cache[I]) awaitBriefly(ctx context.Context, e *entry[I], refresh *refresh) *Shared {
	c.mu.Lock()
	grace := time.NewTimer(e.worthWaiting(c.now()))
	c.mu.Unlock()
	defer grace.Stop()
	select {
	case <-refresh.done:
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

// startRefresh starts a refresh in the background unless one is under way. It is called under the lock.
func (c *Cache[I]) startRefresh(e *entry[I], source Source) {
	if e.refresh != nil || c.closed {
		return
	}
	e.refresh = &refresh{begunAt: c.now(), done: make(chan struct{})}
	pause := e.attemptedAt.Add(refreshPause).Sub(c.now())
	c.background.Go(func() { c.run(e, source, pause) })
}

// run replaces the token of an entry. It is the only one to do so at a time.
func (c *Cache[I]) run(e *entry[I], source Source, pause time.Duration) {
	if pause > 0 {
		select {
		case <-time.After(pause):
		case <-c.life.Done():
		}
	}
	attemptedAt := c.now()
	token, err := source.Fetch(c.life)

	c.mu.Lock()
	defer c.mu.Unlock()
	e.attemptedAt = attemptedAt
	if c.life.Err() == nil {
		c.logOutcome(e, err)
	}
	e.finish(token, err, source.Margin)
}

// logOutcome logs the first of several failures and the success after them: readers who are served do not notice the former.
func (c *Cache[I]) logOutcome(e *entry[I], err error) {
	switch {
	case err != nil && e.failure == nil && e.usable(c.now()):
		c.logger.Warn("a shared token could not be replaced; it is served while it lasts", "role", e.name, "expires_at", e.expiry().UTC().Format(time.RFC3339), "error", err)
	case e.token != nil && err == nil && e.failure != nil:
		c.logger.Info("a shared token was replaced, after failures", "role", e.name)
	}
}

// Drop forgets the token of a name. A fetch under way goes on for those who wait for it, and nobody else gets its token.
func (c *Cache[I]) Drop(name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.entries, name)
}

// DropIf forgets the tokens whose inputs match.
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

// Close forgets all tokens and ends the fetches under way. No goroutine is left when it returns.
func (c *Cache[I]) Close() {
	c.mu.Lock()
	c.closed = true
	c.endLife()
	c.entries = map[string]*entry[I]{}
	c.mu.Unlock()
	c.background.Wait()
}
