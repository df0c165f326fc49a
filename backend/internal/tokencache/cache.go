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

// Cache holds one token per name, in memory only. B is what a token rests on: readers only share a token with those who
// come with an equal basis, so that a write to anything in it means a new token, also for a request that the write overtook.
// A Cache is safe for concurrent use, and Close must be called at its end.
type Cache[B comparable] struct {
	now    func() time.Time
	logger hclog.Logger

	life       context.Context // ends with Close
	endLife    context.CancelFunc
	background sync.WaitGroup

	mu     sync.Mutex // guards all slots, and background against Close
	closed bool
	slots  map[string]*slot[B]
}

// New makes an empty Cache that goes by this clock.
func New[B comparable](now func() time.Time, logger hclog.Logger) *Cache[B] {
	c := &Cache[B]{now: now, logger: logger, slots: map[string]*slot[B]{}}
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
func (c *Cache[B]) Token(ctx context.Context, name string, basis B, source Source) (*Shared, error) {
	s, shared, refresh := c.look(name, basis, source)
	switch {
	case shared != nil && refresh == nil:
		return shared, nil
	case shared != nil:
		return c.awaitBriefly(ctx, s, refresh), nil
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
		return c.share(s), nil
	case c.life.Err() != nil:
		return nil, ErrClosed
	default:
		return nil, refresh.err
	}
}

// look returns what there is to serve, and the refresh that is worth waiting for: any where there is nothing to serve.
func (c *Cache[B]) look(name string, basis B, source Source) (*slot[B], *Shared, *refresh) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.slots[name]
	if s == nil || s.basis != basis {
		s = &slot[B]{name: name, basis: basis}
		c.slots[name] = s
	}
	now := c.now()
	if s.due(now) {
		c.begin(s, source)
	}
	switch {
	case !s.usable(now):
		return s, nil, s.refresh
	case s.worthWaiting(now) > 0:
		return s, s.share(now), s.refresh
	default:
		return s, s.share(now), nil
	}
}

// awaitBriefly returns the new token if it comes soon, otherwise the old one while that is usable.
func (c *Cache[B]) awaitBriefly(ctx context.Context, s *slot[B], refresh *refresh) *Shared {
	c.mu.Lock()
	grace := time.NewTimer(s.worthWaiting(c.now()))
	c.mu.Unlock()
	defer grace.Stop()
	select {
	case <-refresh.done:
	case <-grace.C:
	case <-ctx.Done():
	}
	return c.share(s)
}

func (c *Cache[B]) share(s *slot[B]) *Shared {
	c.mu.Lock()
	defer c.mu.Unlock()
	return s.share(c.now())
}

// begin starts a refresh in the background unless one is under way. It is called under the lock.
func (c *Cache[B]) begin(s *slot[B], source Source) {
	if s.refresh != nil || c.closed {
		return
	}
	s.refresh = &refresh{begunAt: c.now(), done: make(chan struct{})}
	pause := s.attemptedAt.Add(refreshPause).Sub(c.now())
	c.background.Go(func() { c.run(s, source, pause) })
}

// run replaces the token of a slot. It is the only one to do so at a time.
func (c *Cache[B]) run(s *slot[B], source Source, pause time.Duration) {
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
	s.attemptedAt = attemptedAt
	if c.life.Err() == nil {
		c.tell(s, err)
	}
	s.conclude(token, err, source.Margin)
}

// tell logs the first of several failures and the success after them: readers who are served do not notice the former.
func (c *Cache[B]) tell(s *slot[B], err error) {
	switch {
	case err != nil && s.failure == nil && s.usable(c.now()):
		c.logger.Warn("a shared token could not be replaced; it is served while it lasts", "role", s.name, "expires_at", s.expiry().UTC().Format(time.RFC3339), "error", err)
	case s.token != nil && err == nil && s.failure != nil:
		c.logger.Info("a shared token was replaced, after failures", "role", s.name)
	}
}

// Drop forgets the token of a name. A fetch under way goes on for those who wait for it, and nobody else gets its token.
func (c *Cache[B]) Drop(name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.slots, name)
}

// DropIf forgets the tokens whose basis matches.
func (c *Cache[B]) DropIf(matches func(B) bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for name, s := range c.slots {
		if matches(s.basis) {
			delete(c.slots, name)
		}
	}
}

// Len counts the tokens that have not expired.
func (c *Cache[B]) Len() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	held, now := 0, c.now()
	for _, s := range c.slots {
		if s.token != nil && s.remaining(now) > 0 {
			held++
		}
	}
	return held
}

// Close forgets all tokens and ends the fetches under way. No goroutine is left when it returns.
func (c *Cache[B]) Close() {
	c.mu.Lock()
	c.closed = true
	c.endLife()
	c.slots = map[string]*slot[B]{}
	c.mu.Unlock()
	c.background.Wait()
}
