package tokenendpoint

import (
	"math/rand/v2"
	"net/http"
	"strconv"
	"time"
)

// retryAfterLimit is the longest wait that a provider's Retry-After is given. One that asks for more is not asked again:
// coming back sooner than it said would only add to its load, and the reader would wait for nothing.
const retryAfterLimit = 5 * time.Second

// backoff bounds the wait before a retry.
type backoff struct{ min, max time.Duration }

func defaultBackoff() backoff {
	return backoff{min: 250 * time.Millisecond, max: 2 * time.Second}
}

// wait is min doubled with each attempt, up to max, less a random share of up to a half, so that readers that failed
// together do not come back together.
func (b backoff) wait(attempt int) time.Duration {
	wait := b.max
	if shifted := b.min << (attempt - 1); attempt < 16 && shifted < b.max {
		wait = shifted
	}
	return wait - rand.N(wait/2+1) //nolint:gosec // to spread requests, not to hide anything
}

// transientStatus says whether the same request may succeed in a moment. 500 and 501 are not among them: a provider's own
// error comes back as often as one asks. Nor is 408, which is a timeout.
func transientStatus(status int) bool {
	switch status {
	case http.StatusTooManyRequests, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return true
	}
	return false
}

// retryAfter reads the Retry-After header (RFC 9110 §10.2.3): seconds or a date, 0 without a valid one.
func retryAfter(header http.Header, now time.Time) time.Duration {
	value := header.Get("Retry-After")
	if seconds, err := strconv.ParseUint(value, 10, 31); err == nil {
		return time.Duration(seconds) * time.Second
	}
	if date, err := http.ParseTime(value); err == nil {
		return max(0, date.Sub(now))
	}
	return 0
}
