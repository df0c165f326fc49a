package provider

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"sync/atomic"

	"github.com/bcgov/vault-plugin-bcgov-jwt/integrationtest/program"
)

// front is a reverse proxy, whose address is known before its target runs: some providers must be
// told at their start what their issuer is.
type front struct {
	server *httptest.Server
	target atomic.Pointer[url.URL]
}

func newFront(observe func(http.Handler) http.Handler) *front {
	f := &front{}
	handler := program.Proxy(f.target.Load)
	if observe != nil {
		handler = observe(handler)
	}
	f.server = httptest.NewServer(handler)
	return f
}

func (f *front) url() string { return f.server.URL }

func (f *front) open(baseURL string) error {
	target, err := url.Parse(baseURL)
	f.target.Store(target)
	return err
}

func (f *front) close() { f.server.Close() }
