package tokenendpoint

import (
	"errors"
	"net/http"
	"net/url"
	"strings"

	"golang.org/x/net/http/httpproxy"

	"github.com/bcgov/vault-plugin-bcgov-jwt/backend/internal/netguard"
)

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
		return nil, &FieldError{"proxy_url", "requires allowed_hosts: the proxy resolves names, " +
			"so addresses cannot be checked"}
	}
	if cfg.ProxyURL == "environment" {
		return proxyFromEnvironment(httpproxy.FromEnvironment())
	}
	if !strings.Contains(cfg.ProxyURL, "://") {
		return nil, &FieldError{"proxy_url", "has no scheme; begin it with http:// or https://, " +
			"such as http://proxy.example.com:3128, or set environment"}
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
