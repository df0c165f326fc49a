package tokenendpoint

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"net/url"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// pipeListener accepts in-memory connections, with which virtual time can pass.
type pipeListener struct {
	conns  chan net.Conn
	closed chan struct{}
	close  func()
}

func newPipeListener() *pipeListener {
	l := &pipeListener{conns: make(chan net.Conn), closed: make(chan struct{})}
	l.close = sync.OnceFunc(func() { close(l.closed) })
	return l
}

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case conn := <-l.conns:
		return conn, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *pipeListener) Close() error { l.close(); return nil }

func (l *pipeListener) Addr() net.Addr { return pipeAddr{} }

func (l *pipeListener) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	ours, theirs := net.Pipe()
	select {
	case l.conns <- theirs:
		return ours, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

type pipeAddr struct{}

func (pipeAddr) Network() string { return "pipe" }
func (pipeAddr) String() string  { return "example.com:443" } // as in httptest's certificate

// servePiped is serve for a bubble of synctest, with a client that has a request_timeout of 10 s.
func servePiped(t *testing.T, handler http.HandlerFunc) *Client {
	t.Helper()
	listener := newPipeListener()
	server := &httptest.Server{Listener: listener, Config: &http.Server{Handler: handler}}
	server.StartTLS()
	t.Cleanup(server.Close)
	cfg := configFor(server)
	cfg.AllowedHosts, cfg.RequestTimeout, cfg.MaxRetries = []string{"example.com"}, 10*time.Second, 5
	client := newClient(t, cfg, Options{})
	client.transport.DialContext = listener.dial
	return client
}

// Progress does not extend the deadline.
func TestCall_TricklingBodyEndsAtDeadline(t *testing.T) {
	t.Parallel()
	for _, op := range []Operation{OpToken, OpDiscovery} {
		t.Run(string(op), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				client := servePiped(t, func(w http.ResponseWriter, r *http.Request) {
					w.Header().Set("Content-Type", "application/json")
					for i := 0; r.Context().Err() == nil; i++ { // one byte per second
						_, _ = w.Write([]byte{validToken[i%len(validToken)]})
						_ = http.NewResponseController(w).Flush()
						time.Sleep(time.Second)
					}
				})
				ctx, cancel := client.WithTimeout(t.Context())
				defer cancel()
				started := time.Now()
				err := perform(ctx, client, op, "https://example.com")
				require.Equal(t, 10*time.Second, time.Since(started))
				e := requireError(t, err, KindTimedOut)
				require.Contains(t, e.Error(), "no complete response within request_timeout (10s)")
			})
		})
	}
}

// A document that trickles does not stop the tokens of an issuer that is known.
func TestDiscover_ServesStaleDocumentIfRefreshTrickles(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var trickles atomic.Bool
		client := servePiped(t, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			for _, b := range []byte(`{"issuer":"https://example.com","token_endpoint":"https://example.com/token"}`) {
				_, _ = w.Write([]byte{b})
				if trickles.Load() && r.Context().Err() == nil {
					_ = http.NewResponseController(w).Flush()
					time.Sleep(time.Second)
				}
			}
		})
		first, err := client.Discover(t.Context(), "https://example.com")
		require.NoError(t, err)
		time.Sleep(documentTTL)
		trickles.Store(true)
		started := time.Now()
		again, err := client.Discover(t.Context(), "https://example.com")
		require.NoError(t, err)
		require.Equal(t, first, again)
		require.Equal(t, 2500*time.Millisecond, time.Since(started), "a quarter of request_timeout")
	})
}

// resetting is a TLS server whose handler can reset its connection, so that the client's reads fail
// at once and not only end.
type resetting struct {
	*httptest.Server
	conns sync.Map // net.Conn by the address of the other end
}

func serveResetting(t *testing.T, http2 bool, handler func(reset func(), w http.ResponseWriter, r *http.Request)) *resetting {
	t.Helper()
	s := &resetting{}
	s.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		handler(func() { s.reset(r.RemoteAddr) }, w, r)
	}))
	s.EnableHTTP2 = http2
	s.Listener = &recordingListener{s.Listener, &s.conns}
	s.StartTLS()
	t.Cleanup(s.Close)
	return s
}

func (s *resetting) reset(remote string) {
	conn, _ := s.conns.Load(remote)
	_ = conn.(*net.TCPConn).SetLinger(0)
	_ = conn.(*net.TCPConn).Close()
}

type recordingListener struct {
	net.Listener
	conns *sync.Map
}

func (l *recordingListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err == nil {
		l.conns.Store(conn.RemoteAddr().String(), conn)
	}
	return conn, err
}

// Where the connection ends decides what is known: before a response the request is sent again,
// with a form of its own; within one it is not.
func TestCall_ResetConnections(t *testing.T) {
	t.Parallel()
	write := func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Content-Length", "1000")
		_, _ = io.WriteString(w, validToken)
		_ = http.NewResponseController(w).Flush()
	}
	halfHeaders := func(w http.ResponseWriter, _ *http.Request) {
		conn, _, err := http.NewResponseController(w).Hijack()
		if err == nil {
			_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Type: application/js")
		}
	}
	for name, c := range map[string]struct {
		respond  http.HandlerFunc // nil: nothing
		http2    bool
		reason   Reason
		attempts int
		says     string
	}{
		"before the headers":         {nil, false, ConnectionClosed, 3, "the connection was closed before a response (3 attempts)"},
		"before the headers, HTTP/2": {nil, true, ConnectionClosed, 3, "the connection was closed before a response (3 attempts)"},
		"in the headers":             {halfHeaders, false, ConnectionClosed, 3, "the connection was closed before a response (3 attempts)"},
		"after the headers":          {write, false, ResponseTruncated, 1, "HTTP 200: the response was cut off"},
		"after the headers, HTTP/2":  {write, true, ResponseTruncated, 1, "HTTP 200: the response was cut off"},
	} {
		for _, op := range []Operation{OpToken, OpDiscovery, OpRevocation} {
			t.Run(fmt.Sprintf("%s, %s", name, op), func(t *testing.T) {
				t.Parallel()
				var requests atomic.Int64
				arrived := make(chan struct{}, 10) // the first byte of a response
				server := serveResetting(t, c.http2, func(reset func(), w http.ResponseWriter, r *http.Request) {
					requests.Add(1)
					_, _ = io.Copy(io.Discard, r.Body)
					if c.respond != nil {
						c.respond(w, r)
						<-arrived
					}
					reset()
				})
				trace := &httptrace.ClientTrace{GotFirstResponseByte: func() { arrived <- struct{}{} }}
				client := clientFor(t, server.Server, retries(2))
				client.ctx = httptrace.WithClientTrace(client.ctx, trace) // discovery is in the background
				err := perform(httptrace.WithClientTrace(t.Context(), trace), client, op, server.URL)
				require.EqualValues(t, c.attempts, requests.Load())
				if op == OpRevocation && c.reason == ResponseTruncated {
					require.NoError(t, err, "the status says enough")
					return
				}
				e := requireError(t, err, KindUnavailable)
				require.Equal(t, c.reason, e.Reason)
				require.Contains(t, e.Error(), c.says)
			})
		}
	}
}

func TestCall_ResetBeforeTLSIsRetried(t *testing.T) {
	t.Parallel()
	server := serve(t, jsonHandler(http.StatusOK, validToken))
	var accepted atomic.Int64
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { _ = listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			if accepted.Add(1) < 3 {
				_ = conn.(*net.TCPConn).SetLinger(0)
				_ = conn.Close()
				continue
			}
			relay(conn, server.Listener.Addr().String())
		}
	}()
	cfg := configFor(server)
	cfg.AllowedHosts, cfg.MaxRetries = []string{listener.Addr().String()}, 2
	forms := 0
	_, err = newClient(t, cfg, quick).RequestToken(t.Context(), "https://"+listener.Addr().String(), func() (url.Values, error) {
		forms++
		return emptyForm()
	})
	require.NoError(t, err)
	require.Equal(t, 3, forms)
}

// relay copies between a connection and a new one to an address, until either ends.
func relay(here net.Conn, to string) {
	there, err := net.Dial("tcp", to)
	if err != nil {
		_ = here.Close()
		return
	}
	go func() { defer there.Close(); _, _ = io.Copy(there, here) }()
	go func() { defer here.Close(); _, _ = io.Copy(here, there) }()
}

// DNS rebinding: the name was at an allowed address, and then is not. Each new connection is
// checked, and the error does not resolve the name for whoever reads it.
func TestDial_RebindingIsBlocked(t *testing.T) {
	t.Parallel()
	server := serve(t, jsonHandler(http.StatusOK, validToken))
	var mu sync.Mutex
	addresses := []string{"127.0.0.1"} // allowed without a list, as a public address would be
	bind := func(to ...string) { mu.Lock(); defer mu.Unlock(); addresses = to }
	opts := quick
	opts.resolver = resolving(func(string) ([]string, bool) {
		mu.Lock()
		defer mu.Unlock()
		return slices.Clone(addresses), true
	})
	cfg := configFor(server)
	cfg.AllowedHosts, cfg.AllowInsecure, cfg.MaxRetries = nil, true, 2
	client := newClient(t, cfg, opts)
	endpoint := "https://example.com" + portOf(server) + "/token"
	_, err := client.RequestToken(t.Context(), endpoint, emptyForm)
	require.NoError(t, err)

	for address, kind := range map[string]string{
		"10.77.1.2": "a private address", "169.254.169.254": "a cloud metadata address", "fd12:3456::77": "a private (unique local) address",
	} {
		bind(address)
		client.transport.CloseIdleConnections()
		_, tokenErr := client.RequestToken(t.Context(), endpoint, emptyForm)
		_, connectErr := client.Connect(t.Context(), endpoint)
		for _, err := range []error{tokenErr, connectErr} {
			e := requireError(t, err, KindBlocked)
			require.Equal(t, 1, e.Attempts)
			require.Contains(t, e.Detail, "example.com is not allowed: it resolves to "+kind)
			require.NotContains(t, e.Error(), address)
		}
	}
	bind("10.77.1.2", "127.0.0.1")
	_, err = client.RequestToken(t.Context(), endpoint, emptyForm)
	require.NoError(t, err, "the address that is allowed is used, and no other")
}

func TestCall_SilentDNSMeansNoConnection(t *testing.T) {
	t.Parallel()
	over := t.Context().Done()
	opts := quick
	opts.resolver = &net.Resolver{PreferGo: true, Dial: func(context.Context, string, string) (net.Conn, error) {
		ours, theirs := net.Pipe()
		go func() { defer ours.Close(); <-over }()
		go func() { defer theirs.Close(); _, _ = io.Copy(io.Discard, theirs) }()
		return ours, nil
	}}
	client := newClient(t, Config{RequestTimeout: 200 * time.Millisecond, MaxRetries: 5}, opts)
	ctx, cancel := client.WithTimeout(t.Context())
	defer cancel()
	_, err := client.RequestToken(ctx, "https://idp.example.com", emptyForm)
	e := requireError(t, err, KindTimedOut)
	require.Equal(t, NoConnection, e.Reason)
	require.Contains(t, e.Error(), "no complete response within request_timeout (200ms): no connection was made")
}
