package provider

import (
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"sync/atomic"
)

// front is a reverse proxy, whose address is known before its target runs: some providers must be
// told at their start what their issuer is.
type front struct {
	server *httptest.Server
	target atomic.Pointer[url.URL]
}

func newFront(observe func(http.Handler) http.Handler) *front {
	f := &front{}
	var handler http.Handler = &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(f.target.Load())
			r.Out.Host = r.In.Host // a provider may derive its own address from it
		},
		// A test, and its mount, may end while a token is being refreshed.
		ErrorLog: log.New(io.Discard, "", 0),
	}
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
