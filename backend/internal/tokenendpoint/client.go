// Package tokenendpoint is a client for OAuth 2.0 authorization servers: OpenID discovery, token
// requests (RFC 6749 §4.4) and revocation (RFC 7009). It connects only to allowed hosts and
// addresses, follows no redirects, and never quotes a request or a response body in an error.
package tokenendpoint

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net"
	"net/http"
	"net/http/httptrace"
	"sync"
	"time"

	"github.com/bcgov/vault-plugin-bcgov-jwt/backend/internal/netguard"
	lru "github.com/hashicorp/golang-lru"
	"golang.org/x/sync/singleflight"
)

// Config holds the operator's settings. The tags are the names in storage.
type Config struct {
	AllowedHosts   []string      `json:"allowed_hosts"`   // see netguard.Config
	CACert         string        `json:"ca_cert"`         // PEM; empty: the system's roots
	RequestTimeout time.Duration `json:"request_timeout"` // for Client.WithTimeout; positive
	MaxRetries     int           `json:"max_retries"`     // of a request, after transient failures
	// AllowInsecure allows http:// and, while AllowedHosts is empty, loopback addresses.
	AllowInsecure bool `json:"allow_insecure_endpoints"`
	// ProxyURL is a forward proxy (http or https), or "environment" for HTTPS_PROXY, HTTP_PROXY and
	// NO_PROXY. Empty: none.
	ProxyURL string `json:"proxy_url"`
}

// Options holds what the program decides.
type Options struct {
	UserAgent string
	Now       func() time.Time // nil: time.Now

	// Set by tests only.
	resolver *net.Resolver // nil: the system's
	backoff  backoff       // zero: the default
}

// Client calls authorization servers. It is safe for concurrent use and must be closed.
type Client struct {
	guard     *netguard.Guard
	proxy     *proxy
	roots     *x509.CertPool
	transport *http.Transport
	http      *http.Client

	resolver   *net.Resolver
	timeout    time.Duration
	maxRetries int
	backoff    backoff
	userAgent  string
	now        func() time.Time

	ctx        context.Context // canceled by Close
	cancel     context.CancelFunc
	background sync.WaitGroup
	mu         sync.Mutex // guards background against Close
	documents  *lru.Cache // of *document, by issuer
	flights    singleflight.Group
}

// New returns a Client. Its error is a *FieldError.
func New(cfg Config, opts Options) (*Client, error) {
	guard, err := netguard.New(netguard.Config{
		AllowedHosts: cfg.AllowedHosts, AllowInsecure: cfg.AllowInsecure,
		Proxied: cfg.ProxyURL != "",
	})
	if err != nil {
		return nil, &FieldError{"allowed_hosts", err.Error()}
	}
	roots, err := parseRoots(cfg.CACert)
	if err != nil {
		return nil, err
	}
	proxy, err := newProxy(cfg)
	if err != nil {
		return nil, err
	}
	c := &Client{
		guard: guard, proxy: proxy, roots: roots,
		resolver: opts.resolver, backoff: opts.backoff, userAgent: opts.UserAgent, now: opts.Now,
		timeout: cfg.RequestTimeout, maxRetries: cfg.MaxRetries,
	}
	if c.documents, err = lru.New(maxDocuments); err != nil {
		return nil, err
	}
	if c.now == nil {
		c.now = time.Now
	}
	if c.backoff == (backoff{}) {
		c.backoff = defaultBackoff()
	}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	c.transport = c.newTransport()
	c.http = newHTTPClient(c.transport)
	return c, nil
}

// parseRoots returns nil, the system's roots, for an empty text. Anything but a certificate is an
// error, so that a truncated paste is noticed here and not when a connection fails.
func parseRoots(text string) (*x509.CertPool, error) {
	if text == "" {
		return nil, nil
	}
	roots := x509.NewCertPool()
	rest := []byte(text)
	for number := 1; len(bytes.TrimSpace(rest)) > 0; number++ {
		block, after := pem.Decode(rest)
		if block == nil || block.Type != "CERTIFICATE" {
			return nil, &FieldError{"ca_cert", fmt.Sprintf(
				"block %d is not a certificate; set PEM blocks of type CERTIFICATE only", number)}
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, &FieldError{
				"ca_cert", fmt.Sprintf("certificate %d cannot be parsed; copy it again", number),
			}
		}
		roots.AddCert(cert)
		rest = after
	}
	return roots, nil
}

// timeoutCause distinguishes our deadline from the caller's.
type timeoutCause struct{ limit time.Duration }

func (t *timeoutCause) Error() string {
	return fmt.Sprintf("no complete response within request_timeout (%s)", t.limit)
}

// CheckURL returns a *netguard.Error, which completes the sentence "<field> …", unless raw is
// allowed as an issuer or endpoint.
func (c *Client) CheckURL(raw string) error {
	_, err := c.guard.CheckURL(raw)
	return err
}

// WithTimeout limits ctx to the request_timeout, which an error can then name.
func (c *Client) WithTimeout(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(ctx, c.timeout, &timeoutCause{c.timeout})
}

// Close ends background work and closes idle connections. Calls in progress continue.
func (c *Client) Close() {
	c.mu.Lock()
	c.cancel()
	c.mu.Unlock()
	c.background.Wait()
	c.transport.CloseIdleConnections()
}

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
