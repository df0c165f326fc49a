package tokencache

import (
	"time"

	"github.com/bcgov/vault-plugin-bcgov-jwt/backend/internal/exchange"
)

// slot holds the token of one name and basis. The cache's lock guards it.
type slot[B comparable] struct {
	name  string
	basis B

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

// conclude ends the refresh under way, for all who wait for it.
func (s *slot[B]) conclude(token *exchange.Token, err error, margin func(time.Duration) time.Duration) {
	s.failure, s.refresh.err = err, err
	if err == nil {
		s.token, s.margin = token, margin(token.Lifetime)
	}
	close(s.refresh.done)
	s.refresh = nil
}

func (s *slot[B]) expiry() time.Time { return s.token.RequestedAt.Add(s.token.Lifetime) }

// remaining goes by both clocks: the monotonic one stands still while a machine is suspended, the other may be set back.
func (s *slot[B]) remaining(now time.Time) time.Duration {
	return min(s.expiry().Sub(now), s.expiry().Round(0).Sub(now.Round(0)))
}

// short is 5 s, and less for a token of a short life.
func (s *slot[B]) short() time.Duration { return min(5*time.Second, s.token.Lifetime/10) }

// due says whether to get a new token: early enough that it is there before the margin is touched.
func (s *slot[B]) due(now time.Time) bool {
	return s.token == nil || s.remaining(now) <= s.margin+s.short()
}

// usable says whether a reader can be given the token: it needs some life to be used in.
func (s *slot[B]) usable(now time.Time) bool {
	return s.token != nil && s.remaining(now) > s.short()
}

// worthWaiting is how long a reader who would get less than the margin waits for the refresh: not for one that failed or
// is known to be slow, and no longer than the token can be used.
func (s *slot[B]) worthWaiting(now time.Time) time.Duration {
	if s.refresh == nil || s.failure != nil || s.remaining(now) >= s.margin {
		return 0
	}
	return min(s.refresh.begunAt.Add(refreshGrace).Sub(now), s.remaining(now)-s.short())
}

func (s *slot[B]) share(now time.Time) *Shared {
	left := s.remaining(now)
	ttl := left - s.margin
	if s.failure != nil || left < s.margin { // the provider is down, or slow
		ttl = min(10*time.Second, left/2)
	}
	return &Shared{Token: s.token, TTL: max(ttl.Truncate(time.Second), time.Second), Failure: s.failure}
}
