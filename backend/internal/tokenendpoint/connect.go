package tokenendpoint

import (
	"context"
	"crypto/tls"
	"net/http"
	"net/http/httptrace"
	"time"

	"github.com/bcgov/vault-plugin-bcgov-jwt/backend/internal/netguard"
)

// Connection describes a connection that Connect established.
type Connection struct {
	Address    string    // IP address and port of the other end: the proxy's if one is used
	Proxy      string    // host and port of the proxy, empty without one
	TLSVersion string    // for example "TLS 1.3", empty over http
	Protocol   string    // for example "HTTP/2.0"
	ServerTime time.Time // the response's Date header, zero without one
	LocalTime  time.Time // when that response arrived
}

// ClockDifference returns the same as Error.ClockDifference.
func (c Connection) ClockDifference() (time.Duration, bool) {
	return clockDifference(c.ServerTime, c.LocalTime)
}

// Connect opens a new connection to the endpoint, by the route of a token request, and closes it.
// It sends a HEAD request without credentials, for the Date header; any status shows a connection.
// The error is an *Error.
func (c *Client) Connect(ctx context.Context, endpoint string) (Connection, error) {
	call, err := c.newCall(OpConnect, endpoint, nil)
	if err != nil {
		return Connection{}, err
	}
	var connection Connection
	req, err := call.request(httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GotConn: func(info httptrace.GotConnInfo) {
			connection.Address = info.Conn.RemoteAddr().String()
		},
	}))
	if err != nil {
		return Connection{}, err
	}
	req.Method = http.MethodHead

	// Its own transport: name, address and certificate are checked now, and nothing stays open.
	transport := c.newTransport()
	transport.DisableKeepAlives = true
	defer transport.CloseIdleConnections()
	resp, err := newHTTPClient(transport).Do(req)
	if err != nil {
		return Connection{}, call.failed(ctx, err)
	}
	defer resp.Body.Close()

	connection.LocalTime = c.now()
	connection.ServerTime, _ = http.ParseTime(resp.Header.Get("Date"))
	connection.Protocol = resp.Proto
	if resp.TLS != nil {
		connection.TLSVersion = tls.VersionName(resp.TLS.Version)
	}
	if c.proxy.choose != nil {
		if proxy, err := c.proxy.choose(req); err == nil && proxy != nil {
			connection.Proxy = netguard.HostPort(proxy)
		}
	}
	return connection, nil
}
