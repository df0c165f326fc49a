package tokenendpoint

import (
	"fmt"
	"strings"
	"time"
)

// Kind says who can mend a failure, which is what its HTTP status in Vault follows from.
type Kind int

const (
	// Refused: the provider answered, and the registration here or there must be mended: any 4xx but 408 and 429, a
	// 200 with an `error` member, a discovery document of another issuer.
	Refused Kind = iota + 1
	// Blocked: the guard refused the URL, the host or its address. Nothing was sent.
	Blocked
	// Unavailable: no connection (DNS, TCP, TLS, proxy), or 408, 429 or 5xx after the retries.
	Unavailable
	// Malformed: an answer that the standards do not allow.
	Malformed
	// TimedOut: no complete answer in the time there was.
	TimedOut
	// Canceled: the reader went away.
	Canceled
)

// String returns the kind in lower case, for logs and counters.
func (k Kind) String() string {
	switch k {
	case Refused:
		return "refused"
	case Blocked:
		return "blocked"
	case Unavailable:
		return "unavailable"
	case Malformed:
		return "malformed"
	case TimedOut:
		return "timed out"
	case Canceled:
		return "canceled"
	default:
		return "unknown"
	}
}

// Operation is what was tried, as the first words of an error.
type Operation string

// The operations of a Client.
const (
	OpDiscovery  Operation = "OpenID discovery"
	OpToken      Operation = "token request"
	OpRevocation Operation = "token revocation"
	OpConnect    Operation = "connection"
)

// Error is a failed conversation with the provider. No part of it holds a request, a token, a provider's body, or a
// URL's query or userinfo.
type Error struct {
	Kind      Kind
	Operation Operation
	URL       string // the endpoint, without query and userinfo

	Status      int    // the HTTP status, 0 when there was no answer
	Code        string // the answer's `error` (RFC 6749 §5.2), sanitised
	Description string // the answer's `error_description`, sanitised: at most 256 characters
	Detail      string // what went wrong where Code does not say it

	// Meaning is what the failure most likely means and Remedy the next step, each one sentence. Remedy may hold the
	// placeholders {mount} (with a final slash), {key}, {role}, and {register} for how the key gets to be known to the
	// provider, as an imperative. Both may be empty.
	Meaning string
	Remedy  string

	// KeyRefused: the provider did not accept the signing key, and nothing but the key (400 or 401, `invalid_client`,
	// and the description absent, "Unable to load public key", "Error when loading public keys" or a failed signature).
	// Another version may succeed.
	KeyRefused bool

	Attempts   int           // requests sent or tried
	RetryAfter time.Duration // what the provider asked to wait, 0 if it did not

	ServerTime time.Time // the answer's Date header (whole seconds), zero without one
	LocalTime  time.Time // when that answer came

	cause error // context.Canceled or context.DeadlineExceeded, for errors.Is
}

// Error is one line: what was tried, at which endpoint, what came of it.
func (e *Error) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s at %s: ", e.Operation, e.URL)
	b.WriteString(e.said())
	if e.Attempts > 1 {
		fmt.Fprintf(&b, " (%d attempts)", e.Attempts)
	}
	return b.String()
}

// said is what the provider or the network answered.
func (e *Error) said() string {
	var parts []string
	if e.Status != 0 {
		parts = append(parts, fmt.Sprintf("HTTP %d", e.Status))
	}
	if e.Code != "" {
		parts = append(parts, e.Code)
	}
	said := strings.Join(parts, " ")
	for _, part := range []string{e.Description, e.Detail} {
		switch {
		case part == "":
		case said == "":
			said = part
		default:
			said += ": " + part
		}
	}
	return said
}

// Unwrap returns context.Canceled or context.DeadlineExceeded where the context ended the conversation. Nothing else is
// wrapped: net/http quotes the provider's bytes in some of its errors.
func (e *Error) Unwrap() error { return e.cause }

// ClockDifference is how far the provider's clock is ahead of this machine's (negative: behind), to about a second. It is
// false without a Date header.
func (e *Error) ClockDifference() (time.Duration, bool) {
	if e.ServerTime.IsZero() {
		return 0, false
	}
	return clockDifference(e.ServerTime, e.LocalTime), true
}

// FieldError is a setting of Config that New refuses.
type FieldError struct {
	Field   string // as an operator writes it: allowed_hosts, ca_cert, proxy_url, …
	Problem string // what is wrong, and what is right
}

func (e *FieldError) Error() string { return e.Field + ": " + e.Problem }
