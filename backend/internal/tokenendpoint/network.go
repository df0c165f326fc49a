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
	"strings"
	"syscall"
)

// fault names a failure that no provider's words describe. Its text is the Detail of an Error.
type fault string

const (
	faultNoSuchHost    fault = "the host name does not exist"
	faultDNS           fault = "the host name could not be resolved"
	faultConnRefused   fault = "the connection was refused"
	faultUnreachable   fault = "there is no route to the host"
	faultClosed        fault = "the connection was closed before an answer came"
	faultUnknownCA     fault = "the certificate is signed by an unknown authority"
	faultHostname      fault = "the certificate is for another host name"
	faultExpired       fault = "the certificate has expired or is not valid yet"
	faultCertificate   fault = "the certificate is not valid"
	faultPlainHTTP     fault = "the server speaks plain HTTP at this port, not TLS"
	faultTLS           fault = "the TLS handshake failed"
	faultProxyAuth     fault = "the proxy demands a login (HTTP 407)"
	faultProxyRefusal  fault = "the proxy refused the connection"
	faultNetwork       fault = "the connection failed, or what came over it was not HTTP"
	faultTimeout       fault = "no complete answer in time"
	faultNoConnection  fault = "no connection was made"
	faultCanceled      fault = "the reader went away"
	faultGuard         fault = "refused by the guard"
	faultRedirect      fault = "redirects are not followed"
	faultTooLarge      fault = "the answer is larger than 1 MiB"
	faultNotJSON       fault = "the answer is not JSON"
	faultAnswer        fault = "the answer breaks the standard"
	faultOtherIssuer   fault = "the discovery document is another issuer's"
	faultBodyBroken    fault = "the answer broke off"
	faultExpiredAnswer fault = "the token has already expired"
)

// networkFailure is what an error of net/http means.
type networkFailure struct {
	kind      Kind
	fault     fault
	detail    string
	transient bool // may pass in a moment
}

// diagnoseNetwork names an error of net/http, whose own text is never used: it may quote what the server sent. All
// timeouts are final, since the next attempt would have even less time.
func diagnoseNetwork(err error) networkFailure {
	failure := networkFailureOf(err)
	if failure.detail == "" {
		failure.detail = string(failure.fault)
	}
	if op := new(net.OpError); errors.As(err, &op) && op.Op == "proxyconnect" {
		failure.detail = "at the proxy: " + failure.detail
	}
	return failure
}

func networkFailureOf(err error) networkFailure {
	var (
		guard   *guardError
		refusal *proxyRefusal
		dns     *net.DNSError
		timeout net.Error
		cert    *tls.CertificateVerificationError
	)
	switch {
	case errors.Is(err, context.Canceled):
		return networkFailure{kind: Canceled, fault: faultCanceled}
	case errors.As(err, &guard):
		return networkFailure{kind: Blocked, fault: faultGuard, detail: guard.text}
	case errors.As(err, &refusal) && refusal.status == http.StatusProxyAuthRequired:
		return unavailable(faultProxyAuth, false)
	case errors.As(err, &refusal):
		return networkFailure{Unavailable, faultProxyRefusal, fmt.Sprintf("%s with HTTP %d", faultProxyRefusal, refusal.status), transientStatus(refusal.status)}
	case errors.As(err, &cert):
		return unavailable(certificateFault(cert), false)
	case errors.Is(err, http.ErrSchemeMismatch):
		return unavailable(faultPlainHTTP, false)
	case errors.As(err, &timeout) && timeout.Timeout():
		return networkFailure{kind: TimedOut, fault: faultTimeout}
	case errors.As(err, &dns) && dns.IsNotFound:
		return unavailable(faultNoSuchHost, false)
	case errors.As(err, &dns):
		return unavailable(faultDNS, true)
	case isTLSFailure(err):
		return unavailable(faultTLS, false)
	case errors.Is(err, syscall.ECONNREFUSED):
		return unavailable(faultConnRefused, true)
	case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH):
		return unavailable(faultUnreachable, true)
	case isClosed(err):
		return unavailable(faultClosed, true)
	default:
		return unavailable(faultNetwork, false)
	}
}

func unavailable(f fault, transient bool) networkFailure {
	return networkFailure{kind: Unavailable, fault: f, transient: transient}
}

func certificateFault(err error) fault {
	var (
		unknown  x509.UnknownAuthorityError
		hostname x509.HostnameError
		invalid  x509.CertificateInvalidError
	)
	switch {
	case errors.As(err, &unknown):
		return faultUnknownCA
	case errors.As(err, &hostname):
		return faultHostname
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return faultExpired
	default:
		return faultCertificate
	}
}

// isTLSFailure also knows crypto/tls's own errors, which have a prefix but no type.
func isTLSFailure(err error) bool {
	var alert tls.AlertError
	var record tls.RecordHeaderError
	return errors.As(err, &alert) || errors.As(err, &record) || strings.Contains(err.Error(), "tls: ")
}

// isClosed also knows the errors that net/http has no exported value for: a kept connection that the server closed just as
// it was used again, and the end of an HTTP/2 connection or stream.
func isClosed(err error) bool {
	for _, closed := range []error{io.EOF, io.ErrUnexpectedEOF, net.ErrClosed, syscall.ECONNRESET, syscall.ECONNABORTED, syscall.EPIPE} {
		if errors.Is(err, closed) {
			return true
		}
	}
	for _, text := range []string{"server closed idle connection", "http2: ", "stream error: "} {
		if strings.Contains(err.Error(), text) {
			return true
		}
	}
	return false
}
