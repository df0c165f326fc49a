package tokenendpoint

import (
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/net/http/httpproxy"
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

// connectProxy is a forward proxy that sends every CONNECT to one address and records it.
type connectProxy struct {
	*httptest.Server
	mu       sync.Mutex
	received []string
	status   atomic.Int64
}

func serveProxy(t *testing.T, to string) *connectProxy {
	t.Helper()
	p := &connectProxy{}
	p.status.Store(http.StatusOK)
	p.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p.mu.Lock()
		p.received = append(p.received, r.Method+" "+r.Host)
		p.mu.Unlock()
		if status := int(p.status.Load()); status != http.StatusOK {
			w.WriteHeader(status)
			return
		}
		there, err := net.Dial("tcp", to)
		if err != nil {
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		here, buffered, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		_, _ = io.WriteString(here, "HTTP/1.1 200 Connection established\r\n\r\n")
		go func() { defer there.Close(); _, _ = io.Copy(there, buffered) }() // early bytes are buffered
		go func() { defer here.Close(); _, _ = io.Copy(here, there) }()
	}))
	t.Cleanup(p.Close)
	return p
}

func (p *connectProxy) requests() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.received)
}

func proxiedConfig(server *httptest.Server, proxyURL string) Config {
	return Config{
		AllowedHosts:   []string{"example.com", "localhost:8443"},
		CACert:         certificateOf(server),
		ProxyURL:       proxyURL,
		RequestTimeout: 5 * time.Second,
	}
}

func TestProxy_CarriesAllRequests(t *testing.T) {
	t.Parallel()
	server := serve(t, jsonHandler(http.StatusOK, validToken))
	proxy := serveProxy(t, server.Listener.Addr().String())
	opts := quick
	opts.resolver = resolverFor(nil) // the proxy resolves names
	client := newClient(t, proxiedConfig(server, proxy.URL), opts)
	for range 3 {
		_, err := client.RequestToken(t.Context(), "https://example.com/token", emptyForm)
		require.NoError(t, err)
	}
	require.Equal(t, []string{"CONNECT example.com:443"}, proxy.requests(), "one connection for all")

	connection, err := client.Connect(t.Context(), "https://example.com/token")
	require.NoError(t, err)
	require.Equal(t, proxy.Listener.Addr().String(), connection.Proxy)
	require.Equal(t, proxy.Listener.Addr().String(), connection.Address)
	require.Equal(t, "TLS 1.3", connection.TLSVersion)
}

func TestProxy_OnlyListedNamesAreSent(t *testing.T) {
	t.Parallel()
	server := serve(t, jsonHandler(http.StatusOK, validToken))
	proxy := serveProxy(t, server.Listener.Addr().String())
	cfg := proxiedConfig(server, proxy.URL)
	cfg.AllowedHosts = append(cfg.AllowedHosts, "8.8.8.8", "[2606:4700::1111]", "10.0.0.1")
	client := newClient(t, cfg, quick)
	for _, raw := range []string{
		"https://8.8.8.8/", "https://[2606:4700::1111]/", "https://10.0.0.1/", "https://127.0.0.1/", "https://169.254.169.254/",
		"https://other.example.com/", "https://example.com:8443/", "https://metadata.google.internal/", "https://134744072/",
	} {
		require.Error(t, client.CheckURL(raw), raw)
		_, err := client.RequestToken(t.Context(), raw, emptyForm)
		_ = requireError(t, err, KindBlocked)
	}
	require.Empty(t, proxy.requests())
}

func TestProxy_ErrorsHaveReasons(t *testing.T) {
	t.Parallel()
	server := serve(t, jsonHandler(http.StatusOK, validToken))
	for status, c := range map[int]struct {
		attempts int
		reason   Reason
		says     string
	}{
		407: {1, ProxyAuthentication, "the proxy requires authentication (HTTP 407)"},
		403: {1, ProxyRejected, "the proxy rejected the connection with HTTP 403"},
		502: {3, ProxyRejected, "the proxy rejected the connection with HTTP 502"},
	} {
		proxy := serveProxy(t, server.Listener.Addr().String())
		proxy.status.Store(int64(status))
		cfg := proxiedConfig(server, proxy.URL)
		cfg.MaxRetries = 2
		_, err := newClient(t, cfg, quick).RequestToken(t.Context(), "https://example.com/token", emptyForm)
		e := requireError(t, err, KindUnavailable)
		require.Equal(t, c.attempts, e.Attempts)
		require.Contains(t, e.Error(), c.says)
		require.Equal(t, c.reason, e.Reason)
	}
}

const proxyPage = "<html><title>secret page</title>Please log in to the proxy.</html>"

func TestProxy_FaultsHaveReasons(t *testing.T) {
	t.Parallel()
	page := func(status int) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/html")
			w.WriteHeader(status)
			_, _ = io.WriteString(w, proxyPage)
		}
	}
	broken := func(answer string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			conn, _, err := http.NewResponseController(w).Hijack()
			if err == nil {
				_, _ = io.WriteString(conn, answer)
				_ = conn.Close()
			}
		}
	}
	// A web server takes the start of TLS for its next request.
	webServer := func(w http.ResponseWriter, _ *http.Request) {
		conn, _, err := http.NewResponseController(w).Hijack()
		if err == nil {
			_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n")
			_, _ = conn.Read(make([]byte, 1<<14))
			_, _ = io.WriteString(conn, "HTTP/1.1 400 Bad Request\r\n\r\n"+proxyPage)
			_ = conn.Close()
		}
	}
	for name, c := range map[string]struct {
		proxy    http.HandlerFunc // nil: it is down
		endpoint string
		kind     Kind
		reason   Reason
		attempts int
		says     string
	}{
		"down":                         {nil, "https://example.com", KindUnavailable, ConnectionRefused, 3, "at the proxy: connection refused"},
		"down, http":                   {nil, "http://example.com:443", KindUnavailable, ConnectionRefused, 3, "at the proxy: connection refused"},
		"HTML to CONNECT, 200":         {webServer, "https://example.com", KindUnavailable, PlainHTTP, 1, "speaks plain HTTP on this port, not TLS"},
		"HTML to CONNECT, 403":         {page(403), "https://example.com", KindUnavailable, ProxyRejected, 1, "the proxy rejected the connection with HTTP 403"},
		"HTML to CONNECT, 503":         {page(503), "https://example.com", KindUnavailable, ProxyRejected, 3, "the proxy rejected the connection with HTTP 503"},
		"HTML in the response's place": {page(200), "http://example.com:443", KindMalformed, NotJSON, 1, "HTTP 200: the response is not JSON but text/html"},
		"HTML in place of it, 503":     {page(503), "http://example.com:443", KindUnavailable, Reason("service_unavailable"), 3, "HTTP 503: the response has no OAuth error code (it is text/html)"},
		"a login page in place of it":  {page(407), "http://example.com:443", KindRejected, Reason("proxy_unauthorized"), 1, "HTTP 407"},
		"no HTTP to CONNECT":           {broken(proxyPage), "https://example.com", KindUnavailable, NetworkFailure, 1, "does not speak HTTP"},
		"CONNECT cut off":              {broken("HTTP/1.1 200 Conn"), "https://example.com", KindUnavailable, ConnectionClosed, 3, "the connection was closed before a response"},
		"CONNECT closed":               {broken(""), "https://example.com", KindUnavailable, ConnectionClosed, 3, "the connection was closed before a response"},
		"never-ending headers":         {endlessHeaders, "https://example.com", KindUnavailable, ConnectionClosed, 3, "the connection was closed before a response"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := serve(t, nil)
			proxy := httptest.NewServer(c.proxy)
			t.Cleanup(proxy.Close)
			if c.proxy == nil {
				proxy.Close()
			}
			cfg := proxiedConfig(server, proxy.URL)
			cfg.MaxRetries, cfg.AllowInsecure = 2, true
			client := newClient(t, cfg, quick)
			for _, op := range []Operation{OpToken, OpDiscovery} {
				e := requireError(t, perform(t.Context(), client, op, c.endpoint), c.kind)
				require.Equal(t, c.reason, e.Reason, "%s", e)
				require.Equal(t, c.attempts, e.Attempts)
				require.Contains(t, e.Error(), c.says)
				require.NotContains(t, e.Error(), "secret")
			}
		})
	}
}

// endlessHeaders answers CONNECT with headers until the client leaves.
func endlessHeaders(w http.ResponseWriter, _ *http.Request) {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	defer conn.Close()
	_, err = io.WriteString(conn, "HTTP/1.1 200 Connection established\r\n")
	for err == nil {
		_, err = io.WriteString(conn, "X-Filler: "+strings.Repeat("x", 1<<10)+"\r\n")
	}
}

func TestProxy_SilenceMeansNoConnection(t *testing.T) {
	t.Parallel()
	server := serve(t, nil)
	proxy := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { silence(r) }))
	t.Cleanup(proxy.Close)
	cfg := proxiedConfig(server, proxy.URL)
	cfg.RequestTimeout = 300 * time.Millisecond
	client := newClient(t, cfg, quick)
	ctx, cancel := client.WithTimeout(t.Context())
	defer cancel()
	e := requireError(t, perform(ctx, client, OpToken, "https://example.com"), KindTimedOut)
	require.Equal(t, NoConnection, e.Reason)
}

func TestProxy_URLIsValidated(t *testing.T) {
	t.Parallel()
	for raw, says := range map[string]string{
		"proxy.example.com:3128":            "has no scheme",
		"proxy":                             "has no scheme",
		"Environment":                       "has no scheme",
		"socks5://proxy.example.com":        "not a proxy URL",
		"http://proxy.example.com/path":     "not a proxy URL",
		"http://proxy.example.com?a=b":      "not a proxy URL",
		"http://proxy.example.com#a":        "not a proxy URL",
		"http://":                           "no host",
		"http://proxy.example.com:0":        "between 1 and 65535",
		"http://u:secret@proxy.example.com": "user name or password",
	} {
		_, err := New(Config{AllowedHosts: []string{"example.com"}, ProxyURL: raw, RequestTimeout: time.Second}, quick)
		var field *FieldError
		require.ErrorAs(t, err, &field, raw)
		require.Equal(t, "proxy_url", field.Field)
		require.ErrorContains(t, err, says, raw)
		require.NotContains(t, err.Error(), "secret")
	}
	for _, raw := range []string{"http://proxy.example.com:3128", "https://proxy.example.com/", "environment", "http://127.0.0.1:3128"} {
		cfg := Config{AllowedHosts: []string{"example.com"}, ProxyURL: raw, RequestTimeout: time.Second}
		newClient(t, cfg, quick)
		cfg.AllowedHosts = nil
		_, err := New(cfg, quick)
		require.ErrorContains(t, err, "proxy_url: requires allowed_hosts", raw)
	}
}

func TestProxy_EnvironmentIsHonored(t *testing.T) { // not parallel: it sets the environment
	server := serve(t, jsonHandler(http.StatusOK, validToken))
	viaProxy := serveProxy(t, server.Listener.Addr().String())
	t.Setenv("HTTPS_PROXY", viaProxy.URL)
	t.Setenv("https_proxy", "")
	t.Setenv("NO_PROXY", "direct.example.com,metadata.example.com,example.com"+portOf(server))
	t.Setenv("no_proxy", "")

	opts := quick
	opts.resolver = resolverFor(map[string][]string{
		"direct.example.com": {"127.0.0.1"}, "metadata.example.com": {"169.254.169.254"}, "example.com": {"127.0.0.1"},
	})
	cfg := proxiedConfig(server, "environment")
	cfg.AllowedHosts = append(cfg.AllowedHosts, "direct.example.com:1", "metadata.example.com", "example.com"+portOf(server))
	client := newClient(t, cfg, opts)
	_, err := client.RequestToken(t.Context(), "https://example.com/token", emptyForm)
	require.NoError(t, err)
	require.Equal(t, []string{"CONNECT example.com:443"}, viaProxy.requests())

	_, err = client.RequestToken(t.Context(), "https://metadata.example.com/token", emptyForm)
	require.Contains(t, requireError(t, err, KindBlocked).Detail, "cloud metadata", "direct connections are guarded at dial")
	_, err = client.RequestToken(t.Context(), "https://direct.example.com:1/token", emptyForm)
	require.Contains(t, requireError(t, err, KindUnavailable).Detail, "refused")
	connection, err := client.Connect(t.Context(), "https://example.com"+portOf(server))
	require.NoError(t, err)
	require.Equal(t, Connection{Address: server.Listener.Addr().String()}, Connection{Address: connection.Address, Proxy: connection.Proxy})
	require.Len(t, viaProxy.requests(), 1)

	t.Setenv("HTTPS_PROXY", "")
	direct := newClient(t, configFor(server), quick)
	_, err = direct.RequestToken(t.Context(), server.URL, emptyForm)
	require.NoError(t, err)
}

func TestProxy_EnvironmentIsValidated(t *testing.T) {
	t.Parallel()
	p, err := proxyFromEnvironment(&httpproxy.Config{HTTPSProxy: "proxy.example.com:3128", HTTPProxy: "http://u:p@proxy.example.com"})
	require.NoError(t, err, "no read shows a login in the environment")
	require.ElementsMatch(t, []string{"proxy.example.com:3128", "proxy.example.com:80"}, p.addresses)
	for range 20 { // in whatever order they are looked at
		for _, env := range []*httpproxy.Config{{HTTPSProxy: "proxy.example.com:3128"}, {HTTPProxy: "proxy.example.com:3128"}} {
			p, err := proxyFromEnvironment(env)
			require.NoError(t, err)
			require.Equal(t, []string{"proxy.example.com:3128"}, p.addresses)
		}
	}
	_, err = proxyFromEnvironment(&httpproxy.Config{HTTPSProxy: "socks5://u:secret@proxy.example.com"})
	require.ErrorContains(t, err, "environment: HTTPS_PROXY is not a proxy URL")
	require.NotContains(t, err.Error(), "secret")
}

// Without proxy_url the environment must have no effect.
func TestProxy_EnvironmentIsIgnoredByDefault(t *testing.T) {
	server := serve(t, jsonHandler(http.StatusOK, validToken))
	viaProxy := serveProxy(t, server.Listener.Addr().String())
	t.Setenv("HTTPS_PROXY", viaProxy.URL)
	opts := quick
	opts.resolver = resolverFor(map[string][]string{"example.com": {"127.0.0.1"}})
	cfg := configFor(server)
	cfg.AllowedHosts = []string{"example.com" + portOf(server)}
	_, err := newClient(t, cfg, opts).RequestToken(t.Context(), "https://example.com"+portOf(server), emptyForm)
	require.NoError(t, err)
	require.Empty(t, viaProxy.requests())
}
