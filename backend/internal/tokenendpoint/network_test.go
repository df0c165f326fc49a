package tokenendpoint

import (
	"context"
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

// Errors that are hard to provoke; the rest is in TestNetworkErrorsAreExplained.
func TestNetworkErrorsAreSorted(t *testing.T) {
	t.Parallel()
	dial := func(cause error) error {
		return &url.Error{Op: "Post", URL: "https://u:secret@idp.example.com", Err: &net.OpError{Op: "dial", Net: "tcp", Err: cause}}
	}
	for name, c := range map[string]struct {
		err       error
		kind      Kind
		fault     fault
		transient bool
	}{
		"the system's own timeout":  {dial(os.NewSyscallError("connect", syscall.ETIMEDOUT)), TimedOut, faultTimeout, false},
		"DNS timeout":               {dial(&net.DNSError{IsTimeout: true}), TimedOut, faultTimeout, false},
		"DNS server failure":        {dial(&net.DNSError{IsTemporary: true}), Unavailable, faultDNS, true},
		"no such host":              {dial(&net.DNSError{IsNotFound: true}), Unavailable, faultNoSuchHost, false},
		"host unreachable":          {dial(syscall.EHOSTUNREACH), Unavailable, faultUnreachable, true},
		"network unreachable":       {dial(syscall.ENETUNREACH), Unavailable, faultUnreachable, true},
		"reset":                     {dial(syscall.ECONNRESET), Unavailable, faultClosed, true},
		"end of file":               {fmt.Errorf("read: %w", io.ErrUnexpectedEOF), Unavailable, faultClosed, true},
		"a kept connection, closed": {errors.New("http: server closed idle connection"), Unavailable, faultClosed, true},
		"a lost HTTP/2 connection":  {errors.New("http2: client connection lost"), Unavailable, faultClosed, true},
		"TLS version":               {errors.New("tls: server selected unsupported protocol version 301"), Unavailable, faultTLS, false},
		"canceled":                  {dial(context.Canceled), Canceled, faultCanceled, false},
		"deadline":                  {dial(context.DeadlineExceeded), TimedOut, faultTimeout, false},
		"unknown":                   {errors.New(`malformed HTTP response "secret"`), Unavailable, faultNetwork, false},
	} {
		got := diagnoseNetwork(c.err)
		require.Equal(t, networkFailure{c.kind, c.fault, string(c.fault), c.transient}, got, name)
	}
}

func TestKindsHaveNames(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for kind := Refused; kind <= Canceled; kind++ {
		require.NotEqual(t, "unknown", kind.String())
		require.False(t, seen[kind.String()])
		seen[kind.String()] = true
	}
	require.Equal(t, "unknown", Kind(0).String())
}
