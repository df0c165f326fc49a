package tokencache

import (
	"time"

	"github.com/bcgov/vault-plugin-bcgov-jwt/backend/internal/exchange"
)

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
