package tokenendpoint

import (
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"time"
	"unicode"
)

// Kind is who can fix a failure. Its text is for logs and counters.
type Kind string

const (
	// KindRejected: the registration here or at the provider must be fixed. Any 4xx but 408 and
	// 429, a 200 with an `error` member, a discovery document of another issuer.
	KindRejected Kind = "refused"
	// KindBlocked: the guard rejected the URL, the host or its address. Nothing was sent.
	KindBlocked Kind = "blocked"
	// KindUnavailable: no connection (DNS, TCP, TLS, proxy), or 408, 429 or 5xx after the retries.
	KindUnavailable Kind = "unavailable"
	// KindMalformed: a response that the standards do not allow.
	KindMalformed Kind = "malformed"
	// KindTimedOut: no complete response in time.
	KindTimedOut Kind = "timed out"
	// KindCanceled: the caller canceled the request.
	KindCanceled Kind = "canceled"
)

// Operation is what was attempted, in the first words of an error.
type Operation string

// The operations of a Client.
const (
	OpDiscovery  Operation = "OpenID discovery"
	OpToken      Operation = "token request"
	OpRevocation Operation = "token revocation"
	OpConnect    Operation = "connection"
)

// Error is a failed call to the provider. It never contains a request, a token, a response body, or
// a URL's query or userinfo.
type Error struct {
	Reason    Reason
	Operation Operation
	URL       string // the endpoint, without query and userinfo

	Status      int    // the HTTP status, 0 without a response
	Code        string // `error` (RFC 6749 §5.2), sanitized
	Description string // `error_description`, sanitized: at most 256 characters
	Detail      string // what went wrong where Code does not say it

	Attempts   int
	RetryAfter time.Duration // 0 if the provider sent none

	ServerTime time.Time // the response's Date header (whole seconds), zero without one
	LocalTime  time.Time // when that response arrived

	cause error // context.Canceled or context.DeadlineExceeded, for errors.Is
}

// Error returns one line: the operation, the endpoint and the outcome.
func (e *Error) Error() string {
	text := fmt.Sprintf("%s at %s: %s", e.Operation, e.URL, e.outcome())
	if e.Attempts > 1 {
		text += fmt.Sprintf(" (%d attempts)", e.Attempts)
	}
	return text
}

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

// KeyRejected reports whether another version of the key may be accepted: the provider rejected the
// client's authentication (RFC 6749 §5.2), and its words, if it has any, do not name another cause.
// Anything but this status and code might be another server's, and must not make us sign with
// another key.
func (e *Error) KeyRejected() bool {
	if e.Status != http.StatusBadRequest && e.Status != http.StatusUnauthorized {
		return e.Status == http.StatusInternalServerError && e.Reason == UnusableKeys // Ory Hydra's
	}
	switch e.Reason {
	case UnknownKey:
		return e.Code == "invalid_client" || e.Code == "invalid_request" // Ory Hydra's
	case UnusableKeys, InvalidSignature, UnknownClient, InvalidClient:
		return e.Code == "invalid_client"
	}
	return false
}

// Unwrap returns context.Canceled or context.DeadlineExceeded if the context ended the call.
// Nothing else is wrapped: some errors of net/http quote the provider's bytes.
func (e *Error) Unwrap() error { return e.cause }

// ClockDifference returns how far the provider's clock is ahead of this machine's (negative:
// behind), to about a second. It is false without a Date header.
func (e *Error) ClockDifference() (time.Duration, bool) {
	return clockDifference(e.ServerTime, e.LocalTime)
}

func clockDifference(server, local time.Time) (time.Duration, bool) {
	if server.IsZero() {
		return 0, false
	}
	return server.Sub(local.Truncate(time.Second)).Truncate(time.Second), true
}

// FieldError is a Config field that New rejects.
type FieldError struct {
	Field   string // the operator's name for it: allowed_hosts, ca_cert, proxy_url, …
	Problem string // what is wrong, and what is accepted
}

func (e *FieldError) Error() string { return e.Field + ": " + e.Problem }

const (
	maxDescription = 256
	maxCode        = 64
	redacted       = "[redacted]"
	jwtStart       = "eyJ" // `{"` in base64url
)

// sanitize makes a provider's text safe to log: one line, at most 256 characters, and nothing that
// could be a token, an assertion or a key. It drops everything from the start of a JWT on.
func sanitize(text string) string {
	text = strings.Map(func(r rune) rune {
		switch {
		case unicode.IsSpace(r):
			return ' '
		case !unicode.IsPrint(r): // control and bidirectional formatting characters
			return -1
		}
		return r
	}, text)
	if at := strings.Index(text, jwtStart); at >= 0 {
		text = text[:at] + redacted
	}
	longWord := regexp.MustCompile(`[A-Za-z0-9+_=-]{61,}`) // longer than any word of a message
	text = longWord.ReplaceAllLiteralString(text, redacted)
	if runes := []rune(text); len(runes) > maxDescription {
		text = string(runes[:maxDescription-1]) + "…"
	}
	return strings.TrimSpace(text)
}

// sanitizeCode is sanitize for an error code: characters of RFC 6749 §5.2, at most 64.
func sanitizeCode(code string) string {
	code = sanitize(strings.Map(func(r rune) rune { // before: it may join parts of a token
		if r < ' ' || r > '~' || r == '"' || r == '\\' {
			return -1
		}
		return r
	}, code))
	return code[:min(len(code), maxCode)]
}
