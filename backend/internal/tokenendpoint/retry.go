package tokenendpoint

import (
	"math/rand/v2"
	"net/http"
	"strconv"
	"time"
)

// retryAfterLimit is the longest Retry-After to wait for. A longer one ends the call: an earlier
// retry would only add to the provider's load, and the caller would wait for nothing.
const retryAfterLimit = 5 * time.Second

// backoff bounds the wait before a retry.
type backoff struct{ min, max time.Duration }

func defaultBackoff() backoff {
	return backoff{min: 250 * time.Millisecond, max: 2 * time.Second}
}

// wait returns min doubled with each attempt, up to max, less up to half at random, so that callers
// that failed together do not retry together.
func (b backoff) wait(attempt int) time.Duration {
	wait := b.max
	if shifted := b.min << (attempt - 1); attempt < 16 && shifted < b.max {
		wait = shifted
	}
	return wait - rand.N(wait/2+1) //nolint:gosec // jitter needs no secrecy
}

// transientStatus reports whether the same request may soon succeed. Not after 500 and 501, which
// recur, or 408, which is a timeout.
func transientStatus(status int) bool {
	switch status {
	case http.StatusTooManyRequests, http.StatusBadGateway,
		http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return true
	}
	return false
}

// retryAfter parses a Retry-After header (RFC 9110 §10.2.3), seconds or a date. Invalid or absent:
// 0.
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
