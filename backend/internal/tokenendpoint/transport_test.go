package tokenendpoint

import (
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// The names are allowed; what they resolve to is not.
func TestDial_ChecksAddressesAfterResolution(t *testing.T) {
	t.Parallel()
	server := serve(t, jsonHandler(http.StatusOK, validToken))
	_, port, err := net.SplitHostPort(server.Listener.Addr().String())
	require.NoError(t, err)

	names := map[string][]string{
		"metadata.example.com":  {"169.254.169.254"},
		"linklocal.example.com": {"fe80::1"},
		"mapped.example.com":    {"::ffff:169.254.169.254"},
		"nat64.example.com":     {"64:ff9b::a9fe:a9fe"},
		"private.example.com":   {"10.0.0.1"},
		"example.com":           {"127.0.0.1"},
		"both.example.com":      {"169.254.169.254", "10.0.0.1"},
	}
	opts := quick
	opts.resolver = resolverFor(names)
	unlisted := newClient(t, Config{RequestTimeout: 5 * time.Second}, opts)
	for name := range names {
		_, err := unlisted.RequestToken(t.Context(), "https://"+name+":"+port+"/token", emptyForm)
		e := requireError(t, err, KindBlocked)
		require.Contains(t, e.Detail, name+" is not allowed: ")
		require.Equal(t, 1, e.Attempts, "a rejected address is not tried again")
		require.Equal(t, !strings.Contains(e.Detail, "never allowed"), e.Reason == HostNotListed, "listing the host helps, or is not suggested")
	}

	cfg := configFor(server)
	for name := range names {
		cfg.AllowedHosts = append(cfg.AllowedHosts, name+":"+port)
	}
	listed := newClient(t, cfg, opts)
	for _, name := range []string{"metadata.example.com", "linklocal.example.com", "mapped.example.com", "nat64.example.com"} {
		_, err := listed.RequestToken(t.Context(), "https://"+name+":"+port+"/token", emptyForm)
		require.Contains(t, requireError(t, err, KindBlocked).Detail, "never allowed", name)
	}
	token, err := listed.RequestToken(t.Context(), "https://example.com:"+port+"/token", emptyForm)
	require.NoError(t, err, "a listed name may be at a loopback address")
	require.NotEmpty(t, token.AccessToken)

	_, err = listed.RequestToken(t.Context(), "https://missing.example.com:"+port+"/token", emptyForm)
	require.Contains(t, requireError(t, err, KindBlocked).Detail, "not listed")
	_, err = unlisted.RequestToken(t.Context(), "https://missing.example.com/token", emptyForm)
	require.Contains(t, requireError(t, err, KindUnavailable).Detail, "does not exist")
}

// Connections are given up before a firewall forgets them.
func TestTransport_ConnectionsHaveLimits(t *testing.T) {
	t.Parallel()
	transport := newClient(t, Config{RequestTimeout: 10 * time.Second}, quick).transport
	require.Equal(t, 90*time.Second, transport.IdleConnTimeout)
	require.Equal(t, 15*time.Second, transport.HTTP2.SendPingTimeout)
	require.Equal(t, 5*time.Second, transport.HTTP2.PingTimeout)
	require.Equal(t, 11*time.Second, transport.TLSHandshakeTimeout)
	require.EqualValues(t, 64<<10, transport.MaxResponseHeaderBytes)
}
