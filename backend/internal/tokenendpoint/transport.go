package tokenendpoint

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
)

const (
	// idlePerHost connections wait for the next request, so that a burst of readers does not pay a TLS handshake each.
	idlePerHost = 128
	idleTimeout = 90 * time.Second
	// A silent HTTP/2 connection is asked for a sign of life, as otherwise every request on one that a firewall dropped
	// would run into its deadline.
	pingAfter   = 15 * time.Second
	pingTimeout = 5 * time.Second

	maxHeaderBytes = 64 << 10
)

func (c *Client) newTransport() *http.Transport {
	return &http.Transport{
		Proxy:                  c.proxy.choose,
		OnProxyConnectResponse: checkProxyAnswer,
		DialContext:            c.dial,
		TLSClientConfig:        &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: c.roots},
		TLSHandshakeTimeout:    c.dialTimeout(),
		ForceAttemptHTTP2:      true,
		HTTP2:                  &http.HTTP2Config{SendPingTimeout: pingAfter, PingTimeout: pingTimeout},
		MaxIdleConnsPerHost:    idlePerHost,
		IdleConnTimeout:        idleTimeout,
		MaxResponseHeaderBytes: maxHeaderBytes,
	}
}

// newHTTPClient follows no redirect (a 307 would send the assertion elsewhere) and keeps no cookies. It hides the
// transport's CloseIdleConnections, which go-retryablehttp calls after every failed request: one endpoint's failure must
// not cost all others their connections.
func newHTTPClient(transport *http.Transport) *http.Client {
	return &http.Client{
		Transport:     struct{ http.RoundTripper }{transport},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// dialTimeout ends what net/http goes on with in the background when a request has ended. It comes after the request's own
// deadline, whose error tells more.
func (c *Client) dialTimeout() time.Duration { return c.timeout + time.Second }

// dial connects to a host, or to the proxy, with every address checked after resolution.
func (c *Client) dial(ctx context.Context, network, hostPort string) (net.Conn, error) {
	dialer := net.Dialer{Timeout: c.dialTimeout(), Resolver: c.resolver}
	if !slices.Contains(c.proxy.addresses, hostPort) {
		t, err := parseDialled(hostPort)
		if err != nil {
			return nil, err
		}
		if err := c.guard.checkTarget(t); err != nil {
			return nil, err
		}
		dialer.Control = c.guard.checkDial(t.host, c.guard.listed(t))
	}
	return dialer.DialContext(ctx, network, hostPort)
}

func parseDialled(hostPort string) (target, error) {
	host, port, err := net.SplitHostPort(hostPort)
	if err != nil {
		return target{}, refuse("has no host and port")
	}
	if strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	return parseHostPort(host, port)
}

// proxyRefusal is a proxy's answer to CONNECT other than 200.
type proxyRefusal struct{ status int }

func (e *proxyRefusal) Error() string { return fmt.Sprintf("the proxy answered HTTP %d", e.status) }

func checkProxyAnswer(_ context.Context, _ *url.URL, _ *http.Request, answer *http.Response) error {
	if answer.StatusCode != http.StatusOK {
		return &proxyRefusal{answer.StatusCode}
	}
	return nil
}
