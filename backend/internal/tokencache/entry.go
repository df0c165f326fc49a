package tokencache

import (
	"time"

	"github.com/bcgov/vault-plugin-bcgov-jwt/backend/internal/exchange"
)

// entry holds the token of one name and inputs. The cache's lock guards it.
type entry[I comparable] struct {
	name   string
	inputs I

	token  *exchange.Token // nil before the first
	margin time.Duration   // of the token

	refresh     *refresh  // the one under way, or nil
	attemptedAt time.Time // when the last one began to fetch
	failure     error     // of the last one; nil if it succeeded
}

// refresh is one replacement of a token. err may be read once done is closed.
type refresh struct {
	begunAt time.Time
	done    chan struct{}
	err     error
}

// finish ends the refresh under way, for all who wait for it.
func (e *entry[I]) finish(token *exchange.Token, err error, margin func(time.Duration) time.Duration) {
	e.failure, e.refresh.err = err, err
	if err == nil {
		e.token, e.margin = token, margin(token.Lifetime)
	}
	close(e.refresh.done)
	e.refresh = nil
}

func (e *entry[I]) expiry() time.Time { return e.token.RequestedAt.Add(e.token.Lifetime) }

// remaining goes by both clocks: the monotonic one stands still while a machine is suspended, the other may be set back.
func (e *entry[I]) remaining(now time.Time) time.Duration {
	return min(e.expiry().Sub(now), e.expiry().Round(0).Sub(now.Round(0)))
}

// short is 5 s, and less for a token of a short life.
func (e *entry[I]) short() time.Duration { return min(5*time.Second, e.token.Lifetime/10) }

// due says whether to get a new token: early enough that it is there before the margin is touched.
func (e *entry[I]) due(now time.Time) bool {
	return e.token == nil || e.remaining(now) <= e.margin+e.short()
}

// usable says whether a reader can be given the token: it needs some life to be used in.
func (e *entry[I]) usable(now time.Time) bool {
	return e.token != nil && e.remaining(now) > e.short()
}

// worthWaiting is how long a reader who would get less than the margin waits for the refresh: not for one that failed or
// is known to be slow, and no longer than the token can be used.
func (e *entry[I]) worthWaiting(now time.Time) time.Duration {
	if e.refresh == nil || e.failure != nil || e.remaining(now) >= e.margin {
		return 0
	}
	return min(e.refresh.begunAt.Add(refreshGrace).Sub(now), e.remaining(now)-e.short())
}

func (e *entry[I]) share(now time.Time) *Shared {
	left := e.remaining(now)
	ttl := left - e.margin
	if e.failure != nil || left < e.margin { // the provider is down, or slow
		ttl = min(10*time.Second, left/2)
	}
	return &Shared{Token: e.token, TTL: max(ttl.Truncate(time.Second), time.Second), Failure: e.failure}
}
