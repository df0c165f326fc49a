package tokenendpoint

import (
	"context"
	"crypto/tls"
	"net/http"
	"net/http/httptrace"
	"time"

	"github.com/bcgov/vault-plugin-bcgov-jwt/backend/internal/netguard"
)

// Connection describes a connection that Connect made.
type Connection struct {
	Address    string    // IP address and port that were connected to: the proxy's, if there is one
	Proxy      string    // host and port of the proxy, empty without one
	TLSVersion string    // for example "TLS 1.3", empty over http
	Protocol   string    // for example "HTTP/2.0"
	ServerTime time.Time // the answer's Date header, zero without one
	LocalTime  time.Time // when that answer came
}

// ClockDifference is how far the provider's clock is ahead of this machine's (negative: behind), to about a second. It is
// false without a Date header.
func (c Connection) ClockDifference() (time.Duration, bool) {
	return clockDifference(c.ServerTime, c.LocalTime)
}

// Connect makes a new connection to the endpoint, the way a token request goes, and closes it again. It sends a HEAD
// request without credentials, for the Date header; whatever status comes back is a connection made. The error is an
// *Error.
func (c *Client) Connect(ctx context.Context, endpoint string) (Connection, error) {
	call, err := c.newCall(OpConnect, endpoint, nil)
	if err != nil {
		return Connection{}, err
	}
	var made Connection
	req, err := http.NewRequestWithContext(httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GotConn: func(info httptrace.GotConnInfo) {
			call.connected.Store(true)
			made.Address = info.Conn.RemoteAddr().String()
		},
	}), http.MethodHead, endpoint, nil)
	if err != nil {
		return Connection{}, call.failed(ctx, err)
	}
	c.setHeaders(req)

	// A transport of its own, so that name, address and certificate are tried now and nothing stays open.
	transport := c.newTransport()
	transport.DisableKeepAlives = true
	defer transport.CloseIdleConnections()

	call.attempts = 1
	resp, err := newHTTPClient(transport).Do(req)
	if err != nil {
		return Connection{}, call.failed(ctx, err)
	}
	defer resp.Body.Close()
	made.LocalTime = c.now()
	made.ServerTime, _ = http.ParseTime(resp.Header.Get("Date"))
	made.Protocol = resp.Proto
	if resp.TLS != nil {
		made.TLSVersion = tls.VersionName(resp.TLS.Version)
	}
	if c.proxy.choose != nil {
		if proxy, err := c.proxy.choose(req); err == nil && proxy != nil {
			made.Proxy = netguard.HostPort(proxy)
		}
	}
	return made, nil
}
