package tokenendpoint

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

// Errors that are hard to provoke; TestError_NetworkFailuresHaveReasons has the others.
func TestError_NetworkErrorsAreClassified(t *testing.T) {
	t.Parallel()
	dial := func(cause error) error {
		return &url.Error{Op: "Post", URL: "https://u:secret@idp.example.com", Err: &net.OpError{Op: "dial", Net: "tcp", Err: cause}}
	}
	invalid := func(cause error) error { return dial(&tls.CertificateVerificationError{Err: cause}) }
	for name, c := range map[string]struct {
		err       error
		kind      Kind
		reason    Reason
		transient bool
	}{
		"a timeout of the system":    {dial(os.NewSyscallError("connect", syscall.ETIMEDOUT)), KindTimedOut, Timeout, false},
		"DNS timeout":                {dial(&net.DNSError{IsTimeout: true}), KindTimedOut, Timeout, false},
		"DNS server failure":         {dial(&net.DNSError{IsTemporary: true}), KindUnavailable, ResolutionFailed, true},
		"no such host":               {dial(&net.DNSError{IsNotFound: true}), KindUnavailable, NoSuchHost, false},
		"host unreachable":           {dial(syscall.EHOSTUNREACH), KindUnavailable, Unreachable, true},
		"network unreachable":        {dial(syscall.ENETUNREACH), KindUnavailable, Unreachable, true},
		"reset":                      {dial(syscall.ECONNRESET), KindUnavailable, ConnectionClosed, true},
		"end of file":                {fmt.Errorf("read: %w", io.ErrUnexpectedEOF), KindUnavailable, ConnectionClosed, true},
		"an idle connection, closed": {errors.New("http: server closed idle connection"), KindUnavailable, ConnectionClosed, true},
		"a lost HTTP/2 connection":   {errors.New("http2: client connection lost"), KindUnavailable, ConnectionClosed, true},
		"TLS version":                {errors.New("tls: server selected unsupported protocol version 301"), KindUnavailable, HandshakeFailed, false},
		"an alert":                   {dial(tls.AlertError(40)), KindUnavailable, HandshakeFailed, false},
		"no TLS record":              {dial(tls.RecordHeaderError{Msg: "first record does not look like a TLS handshake"}), KindUnavailable, HandshakeFailed, false},
		"a certificate of no CA":     {invalid(x509.CertificateInvalidError{Reason: x509.NotAuthorizedToSign}), KindUnavailable, InvalidCertificate, false},
		"an odd certificate":         {invalid(x509.UnhandledCriticalExtension{}), KindUnavailable, InvalidCertificate, false},
		"an expired certificate":     {invalid(x509.CertificateInvalidError{Reason: x509.Expired}), KindUnavailable, CertificateExpired, false},
		"canceled":                   {dial(context.Canceled), KindCanceled, Canceled, false},
		"deadline":                   {dial(context.DeadlineExceeded), KindTimedOut, Timeout, false},
		"unknown":                    {errors.New(`malformed HTTP response "secret"`), KindUnavailable, NetworkFailure, false},
	} {
		got := diagnoseNetwork(c.err)
		require.Equal(t, c.reason, got.reason, name)
		require.Equal(t, c.kind, got.reason.Kind(), name)
		require.Equal(t, c.transient, got.transient, name)
		require.NotContains(t, got.detail, "secret", name)
	}
}

func TestKind_NamesAreDistinct(t *testing.T) {
	t.Parallel()
	seen := map[Kind]bool{}
	for _, kind := range []Kind{
		KindRejected, KindBlocked, KindUnavailable, KindMalformed, KindTimedOut, KindCanceled,
	} {
		require.NotEmpty(t, kind)
		require.False(t, seen[kind])
		seen[kind] = true
	}
}
