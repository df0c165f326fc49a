package tokenendpoint

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"syscall"

	"github.com/bcgov/vault-plugin-bcgov-jwt/backend/internal/netguard"
)

func blockedReason(err error) Reason {
	if rejection, ok := errors.AsType[*netguard.Error](err); ok && rejection.Unlisted {
		return HostNotListed
	}
	return URLNotAllowed
}

// blocked is a URL that the guard rejected before anything was sent.
func blocked(op Operation, endpoint string, err error) *Error {
	return &Error{
		Reason: blockedReason(err), Operation: op,
		URL: redactURL(endpoint), Detail: "the URL " + err.Error(),
	}
}

// blockedEndpoint is a discovery document's token endpoint that the guard rejected.
func (c *call) blockedEndpoint(r *response, err error) *Error {
	detail := "`token_endpoint` in the discovery document " + err.Error()
	return c.newError(r, blockedReason(err), detail)
}

func (c *call) failed(ctx context.Context, err error) *Error {
	return c.unfinished(ctx, c.newError(&response{}, "", ""), diagnoseNetwork(err))
}

// unusable is a 200 response with an invalid body (err is a *responseError) or a truncated one.
func (c *call) unusable(ctx context.Context, r *response, err error) *Error {
	if invalid, ok := errors.AsType[*responseError](err); ok {
		return c.newError(r, invalid.reason, invalid.detail)
	}
	failure := diagnoseNetwork(err)
	if failure.reason.Kind() == KindUnavailable {
		failure = networkFailure{reason: ResponseTruncated, detail: "the response was cut off"}
	}
	return c.unfinished(ctx, c.newError(r, "", ""), failure)
}

// unfinished blames the context if that ended the call, and the network otherwise.
func (c *call) unfinished(ctx context.Context, e *Error, failure networkFailure) *Error {
	switch {
	case errors.Is(ctx.Err(), context.Canceled):
		failure, e.cause = diagnoseNetwork(context.Canceled), context.Canceled
	case ctx.Err() != nil:
		failure = networkFailure{
			reason: Timeout, detail: "no complete response before the request's own deadline",
		}
		if own, ok := errors.AsType[*timeoutCause](context.Cause(ctx)); ok {
			failure.detail = own.Error()
		}
		e.cause = context.DeadlineExceeded
	}
	switch waited := failure.reason == Timeout && c.attempts > 0 && !c.connected.Load(); {
	case waited && c.dialed.Load():
		failure.reason = NoConnection
		failure.detail += ": no connection was made"
	case waited:
		failure.detail += fmt.Sprintf(": all %d connections to the host were in use", connsPerHost)
	}
	e.Reason, e.Detail = failure.reason, failure.detail
	return e
}

// rejected is a response that is not a success, by its status or by an `error` in a 200.
func (c *call) rejected(r *response) *Error {
	switch {
	case r.status >= 300 && r.status < 400:
		return c.newError(r, Redirected, describeRedirect(r))
	case r.status < 300 && r.status != http.StatusOK:
		return c.newError(r, InvalidResponse, "expected HTTP 200")
	}
	e := c.newError(r, "", "")
	members, err := r.object()
	if err == nil {
		e.Code = sanitizeCode(members.text("error"))
		e.Description = sanitize(members.text("error_description"))
	}
	if e.Code == "" {
		e.Detail = "the response has no OAuth error code"
		if r.mediaType != "" && !isJSON(r.mediaType) {
			e.Detail += " (it is " + sanitizeCode(r.mediaType) + ")"
		}
	}
	if e.RetryAfter > retryAfterLimit {
		retryAfter := fmt.Sprintf("; retry after %d s", int(e.RetryAfter.Seconds()))
		e.Detail = strings.TrimPrefix(e.Detail+retryAfter, "; ")
	}
	e.Reason = reasonOf(e)
	if c.op == OpRevocation { // the provider may repeat the access token, whatever its form
		e.Code, e.Description = "", ""
	}
	return e
}

// describeRedirect quotes only the host of the Location: the rest may contain anything.
func describeRedirect(r *response) string {
	const detail = "redirects are not followed"
	location, err := url.Parse(r.header.Get("Location"))
	if err != nil {
		return detail
	}
	host, err := netguard.Host(location)
	if err != nil || len(host) > maxCode || sanitize(host) != host { // relative or junk
		return detail
	}
	return detail + " (this one leads to " + host + ")"
}

func (c *call) newError(r *response, reason Reason, detail string) *Error {
	return &Error{
		Reason: reason, Operation: c.op, URL: redactURL(c.endpoint.String()), Detail: detail,
		Status: r.status, Attempts: c.attempts, RetryAfter: retryAfter(r.header, r.receivedAt),
		ServerTime: r.serverTime, LocalTime: r.receivedAt,
	}
}

// redactURL drops the parts of a URL that may contain a secret.
func redactURL(raw string) string {
	u, err := url.Parse(raw)
	if err != nil || u.Host == "" {
		return "(no valid URL)"
	}
	return (&url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path, RawPath: u.RawPath}).String()
}

// networkFailure is the meaning of an error of net/http.
type networkFailure struct {
	reason    Reason
	detail    string
	transient bool // a retry may succeed
}

func final(reason Reason, detail string) networkFailure {
	return networkFailure{reason: reason, detail: detail}
}

// diagnoseNetwork classifies an error of net/http but never quotes it, because it may quote what
// the server sent. Timeouts are final, since the next attempt would have even less time.
func diagnoseNetwork(err error) networkFailure {
	failure := networkFailureOf(err)
	if op, ok := errors.AsType[*net.OpError](err); ok && op.Op == "proxyconnect" {
		failure.detail = "at the proxy: " + failure.detail
	}
	return failure
}

func networkFailureOf(err error) networkFailure {
	var (
		blocked *netguard.Error
		proxied *proxyError
		dns     *net.DNSError
		timeout net.Error
		cert    *tls.CertificateVerificationError
	)
	switch {
	case errors.Is(err, context.Canceled):
		return final(Canceled, "the request was canceled")
	case errors.As(err, &blocked):
		return final(blockedReason(blocked), blocked.Error())
	case errors.As(err, &proxied):
		return proxied.failure()
	case errors.As(err, &cert):
		return certificateFailure(cert)
	case errors.Is(err, http.ErrSchemeMismatch):
		return final(PlainHTTP, "the server speaks plain HTTP on this port, not TLS")
	case errors.As(err, &timeout) && timeout.Timeout():
		return final(Timeout, "no complete response in time")
	case errors.As(err, &dns) && dns.IsNotFound:
		return final(NoSuchHost, "the host name does not exist")
	case errors.As(err, &dns):
		return networkFailure{ResolutionFailed, "the host name could not be resolved", true}
	case strings.Contains(err.Error(), "tls: "): // the errors of crypto/tls have no common type
		return final(HandshakeFailed, "the TLS handshake failed")
	case errors.Is(err, syscall.ECONNREFUSED):
		return networkFailure{ConnectionRefused, "connection refused", true}
	case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH):
		return networkFailure{Unreachable, "no route to the host", true}
	case isClosed(err):
		return networkFailure{ConnectionClosed, "the connection was closed before a response", true}
	default:
		return final(NetworkFailure, "the connection failed, or the server does not speak HTTP")
	}
}

func certificateFailure(err error) networkFailure {
	var (
		unknown  x509.UnknownAuthorityError
		hostname x509.HostnameError
		invalid  x509.CertificateInvalidError
	)
	switch {
	case errors.As(err, &unknown):
		return final(UnknownAuthority, "the certificate is signed by an unknown authority")
	case errors.As(err, &hostname):
		return final(WrongHostName, "the certificate is for a different host name")
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return final(CertificateExpired, "the certificate has expired or is not valid yet")
	default:
		return final(InvalidCertificate, "the certificate is not valid")
	}
}

// proxyError is a proxy's response to CONNECT other than 200.
type proxyError struct{ status int }

func (e *proxyError) Error() string { return fmt.Sprintf("the proxy returned HTTP %d", e.status) }

func (e *proxyError) failure() networkFailure {
	if e.status == http.StatusProxyAuthRequired {
		return final(ProxyAuthentication, "the proxy requires authentication (HTTP 407)")
	}
	detail := fmt.Sprintf("the proxy rejected the connection with HTTP %d", e.status)
	return networkFailure{ProxyRejected, detail, transientStatus(e.status)}
}

// isClosed also recognizes errors that net/http does not export: an idle connection that the server
// closed just as it was reused, and the end of an HTTP/2 connection or stream.
func isClosed(err error) bool {
	closed := []error{
		io.EOF, io.ErrUnexpectedEOF, net.ErrClosed,
		syscall.ECONNRESET, syscall.ECONNABORTED, syscall.EPIPE,
	}
	texts := []string{"server closed idle connection", "http2: ", "stream error: "}
	return slices.ContainsFunc(closed, func(target error) bool { return errors.Is(err, target) }) ||
		slices.ContainsFunc(texts, func(t string) bool { return strings.Contains(err.Error(), t) })
}
