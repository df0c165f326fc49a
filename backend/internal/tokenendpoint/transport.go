package tokenendpoint

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"net/url"
	"slices"
	"time"
)

const (
	// idlePerHost spares most requests of a burst the TLS handshake.
	idlePerHost = 128
	idleTimeout = 90 * time.Second
	// connsPerHost keeps a provider that is slow from using up this machine's ports and its own
	// connections: further requests wait. At 100 ms per response it allows 2,560 per second.
	connsPerHost = 2 * idlePerHost
	// A silent HTTP/2 connection is pinged: on one that a firewall dropped, every request would run
	// into its deadline.
	pingAfter   = 15 * time.Second
	pingTimeout = 5 * time.Second

	maxHeaderBytes = 64 << 10
)

func (c *Client) newTransport() *http.Transport {
	return &http.Transport{
		Proxy:                  c.proxy.choose,
		OnProxyConnectResponse: checkConnectResponse,
		DialContext:            c.dial,
		TLSClientConfig:        &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: c.roots},
		TLSHandshakeTimeout:    c.dialTimeout(),
		ForceAttemptHTTP2:      true,
		HTTP2: &http.HTTP2Config{
			SendPingTimeout: pingAfter, PingTimeout: pingTimeout,
		},
		MaxIdleConnsPerHost:    idlePerHost,
		MaxConnsPerHost:        connsPerHost,
		IdleConnTimeout:        idleTimeout,
		MaxResponseHeaderBytes: maxHeaderBytes,
	}
}

// newHTTPClient follows no redirects (a 307 would send the assertion elsewhere), keeps no cookies.
func newHTTPClient(transport *http.Transport) *http.Client {
	return &http.Client{
		Transport: transport,
		CheckRedirect: func(*http.Request, []*http.Request) error {
			return http.ErrUseLastResponse
		},
	}
}

// dialTimeout ends what net/http continues in the background after a request. It outlasts the
// request's own deadline, whose error says more.
func (c *Client) dialTimeout() time.Duration { return c.timeout + time.Second }

// dial checks every address after resolution. The proxy is the operator's choice and exempt.
func (c *Client) dial(ctx context.Context, network, hostPort string) (net.Conn, error) {
	dialer := net.Dialer{Timeout: c.dialTimeout(), Resolver: c.resolver}
	if !slices.Contains(c.proxy.addresses, hostPort) {
		control, err := c.guard.Control(hostPort)
		if err != nil {
			return nil, err
		}
		dialer.Control = control
	}
	return dialer.DialContext(ctx, network, hostPort)
}

func checkConnectResponse(
	_ context.Context, _ *url.URL, _ *http.Request, resp *http.Response,
) error {
	if resp.StatusCode != http.StatusOK {
		return &proxyError{resp.StatusCode}
	}
	return nil
}
