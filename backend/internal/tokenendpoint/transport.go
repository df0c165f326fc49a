package tokenendpoint

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/bcgov/vault-plugin-bcgov-jwt/backend/internal/netguard"
	"golang.org/x/net/http/httpproxy"
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

// proxy selects the forward proxy of a request. The zero value uses none.
type proxy struct {
	choose    func(*http.Request) (*url.URL, error) // nil: none
	addresses []string                              // host:port of all that choose may return
}

// newProxy reads the environment once per client; net/http does so once per process.
func newProxy(cfg Config) (*proxy, error) {
	if cfg.ProxyURL == "" {
		return &proxy{}, nil
	}
	if len(cfg.AllowedHosts) == 0 {
		return nil, &FieldError{"proxy_url", "requires allowed_hosts, as the proxy resolves " +
			"names; also set allowed_hosts=…"}
	}
	if cfg.ProxyURL == "environment" {
		return proxyFromEnvironment(httpproxy.FromEnvironment())
	}
	if !strings.Contains(cfg.ProxyURL, "://") {
		return nil, &FieldError{"proxy_url", "has no scheme; set a URL such as " +
			"http://proxy.example.com:3128, or proxy_url=environment"}
	}
	u, err := parseProxyURL(cfg.ProxyURL)
	if err != nil {
		return nil, &FieldError{"proxy_url", err.Error()}
	}
	if u.User != nil {
		return nil, &FieldError{"proxy_url", "contains a user name or password, which a read of " +
			"the configuration would show; set HTTPS_PROXY and use proxy_url=environment"}
	}
	return &proxy{choose: http.ProxyURL(u), addresses: []string{netguard.HostPort(u)}}, nil
}

func proxyFromEnvironment(env *httpproxy.Config) (*proxy, error) {
	p := &proxy{}
	for name, raw := range map[string]string{
		"HTTPS_PROXY": env.HTTPSProxy, "HTTP_PROXY": env.HTTPProxy,
	} {
		if raw == "" {
			continue
		}
		if !strings.Contains(raw, "://") {
			raw = "http://" + raw // a bare host:port is common there
		}
		u, err := parseProxyURL(raw)
		if err != nil {
			return nil, &FieldError{"proxy_url", "environment: " + name + " " + err.Error()}
		}
		p.addresses = append(p.addresses, netguard.HostPort(u))
	}
	choose := env.ProxyFunc()
	p.choose = func(req *http.Request) (*url.URL, error) { return choose(req.URL) }
	return p, nil
}

func parseProxyURL(raw string) (*url.URL, error) {
	u, err := url.Parse(raw)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Opaque != "" ||
		strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "" {
		return nil, errors.New("is not a proxy URL; set one such as " +
			"http://proxy.example.com:3128, or environment")
	}
	_, err = netguard.Host(u)
	return u, err
}
