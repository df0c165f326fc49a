package tokenendpoint

import (
	"net"
	"net/http"
	"net/url"
	"strings"

	"golang.org/x/net/http/httpproxy"
)

// proxy chooses the forward proxy for a request. The zero value uses none.
type proxy struct {
	choose    func(*http.Request) (*url.URL, error) // nil: none
	addresses []string                              // host:port of every proxy that choose may return
}

// newProxy reads the environment, if it is to, once and for this client: net/http's own reader does so once per process.
func newProxy(cfg Config) (*proxy, error) {
	if cfg.ProxyURL == "" {
		return &proxy{}, nil
	}
	if len(cfg.AllowedHosts) == 0 {
		return nil, &FieldError{"proxy_url", "needs allowed_hosts: the proxy resolves names, so the addresses behind them cannot be checked here"}
	}
	if cfg.ProxyURL == "environment" {
		return proxyFromEnvironment(httpproxy.FromEnvironment())
	}
	u, err := parseProxyURL(cfg.ProxyURL)
	if err != nil {
		return nil, &FieldError{"proxy_url", err.Error()}
	}
	if u.User != nil {
		return nil, &FieldError{"proxy_url", "holds a user name or password, which a read of config would show; put it into HTTPS_PROXY and write proxy_url=environment"}
	}
	return &proxy{choose: http.ProxyURL(u), addresses: []string{proxyAddress(u)}}, nil
}

func proxyFromEnvironment(env *httpproxy.Config) (*proxy, error) {
	p := &proxy{}
	for name, raw := range map[string]string{"HTTPS_PROXY": env.HTTPSProxy, "HTTP_PROXY": env.HTTPProxy} {
		if raw == "" {
			continue
		}
		if !strings.Contains(raw, "://") {
			raw = "http://" + raw // host:port alone is customary there
		}
		u, err := parseProxyURL(raw)
		if err != nil {
			return nil, &FieldError{"proxy_url", "environment: " + name + " " + err.Error()}
		}
		p.addresses = append(p.addresses, proxyAddress(u))
	}
	choose := env.ProxyFunc()
	p.choose = func(req *http.Request) (*url.URL, error) { return choose(req.URL) }
	return p, nil
}

func parseProxyURL(raw string) (*url.URL, error) {
	u, err := url.Parse(raw)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Opaque != "" ||
		strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "" {
		return nil, refuse("is not the URL of a proxy; give one such as http://proxy.example.com:3128, or environment")
	}
	if _, err := parseTarget(u); err != nil {
		return nil, err
	}
	return u, nil
}

// proxyAddress is the address as net/http dials it.
func proxyAddress(u *url.URL) string {
	port := u.Port()
	if port == "" {
		port = defaultPort(u.Scheme)
	}
	return net.JoinHostPort(u.Hostname(), port)
}
