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
	"slices"
	"strings"
	"syscall"

	"github.com/bcgov/vault-plugin-bcgov-jwt/backend/internal/netguard"
)

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
