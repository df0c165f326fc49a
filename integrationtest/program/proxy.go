package program

import (
	"io"
	"log"
	"net/http"
	"net/http/httputil"
	"net/url"
)

// Proxy passes requests to a server, with the Host header that they came with: the server may
// derive its own address from it.
func Proxy(target func() *url.URL) http.Handler {
	return &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(target())
			r.Out.Host = r.In.Host
		},
		// A test, and its mount, may end while a token is being refreshed.
		ErrorLog: log.New(io.Discard, "", 0),
	}
}
