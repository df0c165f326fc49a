// Package tokenendpoint talks to an OAuth 2.0 authorization server: OpenID discovery, token requests (RFC 6749 §4.4) and
// revocation (RFC 7009). Its HTTP client is guarded: it connects only to hosts and addresses that it may, follows no
// redirect, and never lets a request or an answer into an error.
package tokenendpoint

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net"
	"net/http"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"

	"github.com/bcgov/vault-plugin-bcgov-jwt/backend/internal/netguard"
)

// Config is how an operator limits and directs the Client.
type Config struct {
	// AllowedHosts are the hosts that may be reached: `host` or `*.suffix` (not the apex), each with an optional `:port`
	// (443 without). Empty: any host at a public address.
	AllowedHosts []string
	// CACert is PEM and replaces the system's roots. Empty: the system's roots.
	CACert string
	// RequestTimeout limits one whole conversation: see Client.WithTimeout. It must be positive.
	RequestTimeout time.Duration
	// MaxRetries is how often a request is tried again after a failure that may pass.
	MaxRetries int
	// AllowInsecure allows http:// and, while AllowedHosts is empty, loopback addresses.
	AllowInsecure bool
	// ProxyURL is a forward proxy (http or https), or "environment" for HTTPS_PROXY, HTTP_PROXY and NO_PROXY. Empty: none.
	ProxyURL string
}

// Options is what the program, not the operator, decides.
type Options struct {
	UserAgent string
	Now       func() time.Time // nil: time.Now

	resolver *net.Resolver // nil: the system's; tests put names at addresses
	backoff  backoff       // zero: the default; tests do not wait
}

// Client talks to authorization servers. It is safe for concurrent use, and Close must be called at its end.
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

	life       context.Context // ends with Close
	endLife    context.CancelFunc
	background sync.WaitGroup
	mu         sync.Mutex // guards documents, and background against Close
	documents  map[string]*document
	flights    singleflight.Group
}

// New validates cfg and builds a Client. Its error is a *FieldError.
func New(cfg Config, opts Options) (*Client, error) {
	if cfg.RequestTimeout <= 0 {
		return nil, &FieldError{"request_timeout", "must be positive"}
	}
	if cfg.MaxRetries < 0 {
		return nil, &FieldError{"max_retries", "must not be negative"}
	}
	guard, err := netguard.New(netguard.Config{
		AllowedHosts: cfg.AllowedHosts, AllowInsecure: cfg.AllowInsecure, Proxied: cfg.ProxyURL != "",
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
		documents: map[string]*document{},
	}
	if c.now == nil {
		c.now = time.Now
	}
	if c.backoff == (backoff{}) {
		c.backoff = defaultBackoff()
	}
	c.life, c.endLife = context.WithCancel(context.Background())
	c.transport = c.newTransport()
	c.http = newHTTPClient(c.transport)
	return c, nil
}

// parseRoots returns nil, the system's roots, for an empty text. A block that is no certificate is an error rather than
// skipped, so that a cut paste is noticed here and not by a failing connection.
func parseRoots(text string) (*x509.CertPool, error) {
	if text == "" {
		return nil, nil
	}
	roots := x509.NewCertPool()
	rest := []byte(text)
	for number := 1; len(bytes.TrimSpace(rest)) > 0; number++ {
		block, after := pem.Decode(rest)
		if block == nil || block.Type != "CERTIFICATE" {
			return nil, &FieldError{"ca_cert", fmt.Sprintf("block %d is not a certificate; give PEM blocks of type CERTIFICATE only", number)}
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, &FieldError{"ca_cert", fmt.Sprintf("certificate %d cannot be parsed; copy it anew", number)}
		}
		roots.AddCert(cert)
		rest = after
	}
	return roots, nil
}

// timeoutCause tells our own deadline from one that the caller brought.
type timeoutCause struct{ limit time.Duration }

func (t *timeoutCause) Error() string {
	return fmt.Sprintf("no complete answer within request_timeout (%s)", t.limit)
}

// CheckURL reports an *netguard.Error, which completes the sentence "<field> …", unless the guard
// allows raw as an issuer or endpoint.
func (c *Client) CheckURL(raw string) error {
	_, err := c.guard.CheckURL(raw)
	return err
}

// WithTimeout limits ctx to the configured request_timeout, so that a TimedOut error can name it.
func (c *Client) WithTimeout(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(ctx, c.timeout, &timeoutCause{c.timeout})
}

// Close ends background work and closes idle connections. Conversations under way go on to their end under their own
// contexts.
func (c *Client) Close() {
	c.mu.Lock()
	c.endLife()
	c.mu.Unlock()
	c.background.Wait()
	c.transport.CloseIdleConnections()
}
