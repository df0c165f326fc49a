package tokenendpoint

import (
	"fmt"
	"strings"
	"time"
)

// Kind is who can fix a failure, which its HTTP status in Vault follows from.
type Kind int

const (
	// KindRejected: the provider answered, and the registration here or there must be fixed: any 4xx
	// but 408 and 429, a 200 with an `error` member, a discovery document of another issuer.
	KindRejected Kind = iota + 1
	// KindBlocked: the guard rejected the URL, the host or its address. Nothing was sent.
	KindBlocked
	// KindUnavailable: no connection (DNS, TCP, TLS, proxy), or 408, 429 or 5xx after the retries.
	KindUnavailable
	// KindMalformed: an answer that the standards do not allow.
	KindMalformed
	// KindTimedOut: no complete answer in time.
	KindTimedOut
	// KindCanceled: the caller canceled the request.
	KindCanceled
)

// String returns the kind in lower case, for logs and counters.
func (k Kind) String() string {
	switch k {
	case KindRejected:
		return "rejected"
	case KindBlocked:
		return "blocked"
	case KindUnavailable:
		return "unavailable"
	case KindMalformed:
		return "malformed"
	case KindTimedOut:
		return "timed out"
	case KindCanceled:
		return "canceled"
	default:
		return "unknown"
	}
}

// Operation is what was attempted, as the first words of an error.
type Operation string

// The operations of a Client.
const (
	OpDiscovery  Operation = "OpenID discovery"
	OpToken      Operation = "token request"
	OpRevocation Operation = "token revocation"
	OpConnect    Operation = "connection"
)

// Error is a failed call to the provider. No part of it contains a request, a token, a provider's
// body, or a URL's query or userinfo.
type Error struct {
	Reason    Reason
	Operation Operation
	URL       string // the endpoint, without query and userinfo

	Status      int    // the HTTP status, 0 without an answer
	Code        string // the answer's `error` (RFC 6749 §5.2), sanitized
	Description string // the answer's `error_description`, sanitized: at most 256 characters
	Detail      string // what went wrong where Code does not say it

	Attempts   int           // requests sent or attempted
	RetryAfter time.Duration // how long the provider wants callers to wait, 0 if it does not say

	ServerTime time.Time // the answer's Date header (whole seconds), zero without one
	LocalTime  time.Time // when that answer came

	cause error // context.Canceled or context.DeadlineExceeded, for errors.Is
}

// Error is one line: the operation, the endpoint and the outcome.
func (e *Error) Error() string {
	text := fmt.Sprintf("%s at %s: %s", e.Operation, e.URL, e.outcome())
	if e.Attempts > 1 {
		text += fmt.Sprintf(" (%d attempts)", e.Attempts)
	}
	return text
}

// outcome is what the provider or the network answered.
func (e *Error) outcome() string {
	var parts []string
	if e.Status != 0 {
		parts = append(parts, strings.TrimSpace(fmt.Sprintf("HTTP %d %s", e.Status, e.Code)))
	}
	for _, part := range []string{e.Description, e.Detail} {
		if part != "" {
			parts = append(parts, part)
		}
	}
	return strings.Join(parts, ": ")
}

// Unwrap returns context.Canceled or context.DeadlineExceeded where the context ended the call.
// Nothing else is wrapped: net/http quotes the provider's bytes in some of its errors.
func (e *Error) Unwrap() error { return e.cause }

// ClockDifference returns how far the provider's clock is ahead of this machine's (negative:
// behind), to about a second. It is false without a Date header.
func (e *Error) ClockDifference() (time.Duration, bool) {
	return clockDifference(e.ServerTime, e.LocalTime)
}

// clockDifference returns how far server is ahead of local, to the second, which is all that a Date
// header tells.
func clockDifference(server, local time.Time) (time.Duration, bool) {
	if server.IsZero() {
		return 0, false
	}
	return server.Sub(local.Truncate(time.Second)).Truncate(time.Second), true
}

// FieldError is a field of Config that New rejects.
type FieldError struct {
	Field   string // as an operator writes it: allowed_hosts, ca_cert, proxy_url, …
	Problem string // what is wrong, and what is accepted
}

func (e *FieldError) Error() string { return e.Field + ": " + e.Problem }
