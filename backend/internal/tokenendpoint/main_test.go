package tokenendpoint

import (
	"context"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"golang.org/x/net/dns/dnsmessage"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m)
}

// serve starts a TLS server that is closed with the test.
func serve(tb testing.TB, handler http.HandlerFunc) *httptest.Server {
	tb.Helper()
	server := httptest.NewUnstartedServer(handler)
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.EnableHTTP2 = false
	server.StartTLS()
	tb.Cleanup(server.Close)
	return server
}

// jsonHandler always returns the same JSON.
func jsonHandler(status int, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		fmt.Fprint(w, body)
	}
}

// silence waits until the client disconnects, and sends nothing even then.
func silence(r *http.Request) {
	_, _ = io.Copy(io.Discard, r.Body) // lets the server notice
	<-r.Context().Done()
	panic(http.ErrAbortHandler)
}

// configFor allows and trusts the server.
func configFor(server *httptest.Server) Config {
	return Config{
		AllowedHosts:   []string{server.Listener.Addr().String()},
		CACert:         certificateOf(server),
		RequestTimeout: 5 * time.Second,
	}
}

func certificateOf(server *httptest.Server) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}))
}

// quick makes the waits before retries negligible.
var quick = Options{UserAgent: "test/1", backoff: backoff{min: time.Millisecond, max: 2 * time.Millisecond}}

func newClient(tb testing.TB, cfg Config, opts Options) *Client {
	tb.Helper()
	client, err := New(cfg, opts)
	require.NoError(tb, err)
	tb.Cleanup(client.Close)
	return client
}

// clientFor returns a client that reaches the server, with its configuration changed.
func clientFor(tb testing.TB, server *httptest.Server, changes ...func(*Config)) *Client {
	tb.Helper()
	cfg := configFor(server)
	for _, change := range changes {
		change(&cfg)
	}
	return newClient(tb, cfg, quick)
}

func retries(n int) func(*Config) { return func(c *Config) { c.MaxRetries = n } }

func timeout(d time.Duration) func(*Config) { return func(c *Config) { c.RequestTimeout = d } }

// emptyForm is for tests that do not check what is sent.
func emptyForm() (url.Values, error) {
	return url.Values{"grant_type": {"client_credentials"}}, nil
}

// requireError asserts that err is an *Error of the kind, complete and on one line.
func requireError(tb testing.TB, err error, kind Kind) *Error {
	tb.Helper()
	var e *Error
	require.ErrorAs(tb, err, &e)
	require.Equal(tb, kind, e.Reason.Kind(), "%s", err)
	require.NotContains(tb, e.Error(), "\n")
	require.NotContains(tb, e.Error(), "%!")
	return e
}

// resolverFor resolves only these names, each to its addresses.
func resolverFor(names map[string][]string) *net.Resolver {
	return resolving(func(name string) ([]string, bool) {
		addresses, known := names[name]
		return addresses, known
	})
}

// resolving asks lookup for a name's addresses, and whether it exists.
func resolving(lookup func(name string) ([]string, bool)) *net.Resolver {
	return &net.Resolver{PreferGo: true, Dial: func(context.Context, string, string) (net.Conn, error) {
		ours, theirs := net.Pipe()
		go serveDNS(theirs, lookup)
		return ours, nil
	}}
}

// serveDNS speaks DNS over a stream (RFC 1035 §4.2.2).
func serveDNS(conn net.Conn, lookup func(name string) ([]string, bool)) {
	defer conn.Close()
	for {
		var length [2]byte
		if _, err := io.ReadFull(conn, length[:]); err != nil {
			return
		}
		packet := make([]byte, int(length[0])<<8|int(length[1]))
		if _, err := io.ReadFull(conn, packet); err != nil {
			return
		}
		var query dnsmessage.Message
		if query.Unpack(packet) != nil {
			return
		}
		question := query.Questions[0]
		reply := dnsmessage.Message{
			Header:    dnsmessage.Header{ID: query.ID, Response: true, Authoritative: true, RecursionAvailable: true},
			Questions: query.Questions,
		}
		addresses, known := lookup(strings.TrimSuffix(question.Name.String(), "."))
		if !known {
			reply.RCode = dnsmessage.RCodeNameError
		}
		for _, text := range addresses {
			addr := netip.MustParseAddr(text)
			header := dnsmessage.ResourceHeader{Name: question.Name, Class: dnsmessage.ClassINET, TTL: 1}
			switch {
			case addr.Is4() && question.Type == dnsmessage.TypeA:
				reply.Answers = append(reply.Answers, dnsmessage.Resource{Header: header, Body: &dnsmessage.AResource{A: addr.As4()}})
			case addr.Is6() && question.Type == dnsmessage.TypeAAAA:
				reply.Answers = append(reply.Answers, dnsmessage.Resource{Header: header, Body: &dnsmessage.AAAAResource{AAAA: addr.As16()}})
			}
		}
		out, err := reply.Pack()
		if err != nil {
			return
		}
		if _, err := conn.Write(append([]byte{byte(len(out) >> 8), byte(len(out))}, out...)); err != nil {
			return
		}
	}
}
