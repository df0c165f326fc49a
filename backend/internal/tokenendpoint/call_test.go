package tokenendpoint

import (
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// failing returns the statuses in turn and then a token.
func failing(header http.Header, statuses ...int) (http.HandlerFunc, *atomic.Int64) {
	var requests atomic.Int64
	return func(w http.ResponseWriter, r *http.Request) {
		n := int(requests.Add(1))
		if n > len(statuses) {
			jsonHandler(http.StatusOK, validToken)(w, r)
			return
		}
		maps.Copy(w.Header(), header)
		w.WriteHeader(statuses[n-1])
		fmt.Fprint(w, "<html>busy</html>")
	}, &requests
}

func TestCall_RetriesTransientStatuses(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		statuses []int
		retries  int
		requests int
		kind     Kind // empty: a token
		status   int
	}{
		"none needed":              {nil, 2, 1, "", 0},
		"429":                      {[]int{429}, 2, 2, "", 0},
		"502, 503":                 {[]int{502, 503}, 2, 3, "", 0},
		"504":                      {[]int{504}, 1, 2, "", 0},
		"503 for too long":         {[]int{503, 503, 503, 503}, 2, 3, KindUnavailable, 503},
		"the last response counts": {[]int{503, 502, 429}, 2, 3, KindUnavailable, 429},
		"no retries":               {[]int{503}, 0, 1, KindUnavailable, 503},
		"500":                      {[]int{500}, 2, 1, KindUnavailable, 500},
		"501":                      {[]int{501}, 2, 1, KindUnavailable, 501},
		"505":                      {[]int{505}, 2, 1, KindUnavailable, 505},
		"408":                      {[]int{408}, 2, 1, KindUnavailable, 408},
		"400":                      {[]int{400}, 2, 1, KindRejected, 400},
		"401":                      {[]int{401}, 2, 1, KindRejected, 401},
		"503, then 400":            {[]int{503, 400}, 2, 2, KindRejected, 400},
		"204":                      {[]int{204}, 2, 1, KindMalformed, 204},
		"201":                      {[]int{201}, 2, 1, KindMalformed, 201},
		"304":                      {[]int{304}, 2, 1, KindMalformed, 304},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			handler, requests := failing(nil, c.statuses...)
			server := serve(t, handler)
			forms := 0
			_, err := clientFor(t, server, retries(c.retries)).RequestToken(t.Context(), server.URL, func() (url.Values, error) {
				forms++
				return emptyForm()
			})
			require.EqualValues(t, c.requests, requests.Load())
			require.Equal(t, c.requests, forms, "one form per attempt")
			if c.kind == "" {
				require.NoError(t, err)
				return
			}
			e := requireError(t, err, c.kind)
			require.Equal(t, c.status, e.Status)
			require.Equal(t, c.requests, e.Attempts)
			require.NotContains(t, err.Error(), "busy")
			require.Contains(t, err.Error(), "HTTP "+strconv.Itoa(c.status))
		})
	}
}

// Each attempt must carry its own form, of its own length.
func TestCall_EachAttemptSendsFreshForm(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	var seen []string
	server := serve(t, func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		mu.Lock()
		defer mu.Unlock()
		seen = append(seen, string(body))
		if err != nil || len(seen) < 4 {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		jsonHandler(http.StatusOK, validToken)(w, r)
	})
	n := 0
	started := time.Now()
	token, err := clientFor(t, server, retries(5)).RequestToken(t.Context(), server.URL, func() (url.Values, error) {
		n++
		return url.Values{"jti": {strings.Repeat(strconv.Itoa(n), n)}}, nil
	})
	require.NoError(t, err)
	require.Equal(t, []string{"jti=1", "jti=22", "jti=333", "jti=4444"}, seen)
	require.Greater(t, token.RequestedAt.Sub(started), time.Millisecond, "the start of the attempt that succeeded, after the waits")
}

func TestCall_NoRetryKeepsLastOutcome(t *testing.T) {
	t.Parallel()
	closed := serve(t, nil)
	closed.Close()
	handler, requests := failing(nil, 503, 503)
	busy := serve(t, handler)
	for server, reason := range map[*httptest.Server]Reason{closed: ConnectionRefused, busy: Reason("service_unavailable")} {
		forms := 0
		_, err := clientFor(t, server, retries(5)).RequestToken(t.Context(), server.URL, func() (url.Values, error) {
			if forms++; forms > 1 {
				return nil, fmt.Errorf("enough: %w", ErrNoRetry)
			}
			return emptyForm()
		})
		e := requireError(t, err, KindUnavailable)
		require.Equal(t, reason, e.Reason)
		require.Equal(t, 1, e.Attempts)
		require.Equal(t, 2, forms)
	}
	require.EqualValues(t, 1, requests.Load())
	_, err := clientFor(t, busy).RequestToken(t.Context(), busy.URL, func() (url.Values, error) { return nil, ErrNoRetry })
	require.ErrorIs(t, err, ErrNoRetry)
}

func TestCall_RetriesConnectErrors(t *testing.T) {
	t.Parallel()
	t.Run("refused", func(t *testing.T) {
		t.Parallel()
		server := serve(t, nil)
		client := clientFor(t, server, retries(2))
		server.Close()
		_, err := client.RequestToken(t.Context(), server.URL, emptyForm)
		e := requireError(t, err, KindUnavailable)
		require.Equal(t, 3, e.Attempts)
		require.Contains(t, e.Error(), "connection refused (3 attempts)")
	})
	t.Run("closed without a response", func(t *testing.T) {
		t.Parallel()
		var requests atomic.Int64
		server := serve(t, func(w http.ResponseWriter, r *http.Request) {
			if requests.Add(1) < 3 {
				panic(http.ErrAbortHandler)
			}
			jsonHandler(http.StatusOK, validToken)(w, r)
		})
		forms := 0
		_, err := clientFor(t, server, retries(2)).RequestToken(t.Context(), server.URL, func() (url.Values, error) { forms++; return emptyForm() })
		require.NoError(t, err)
		require.Equal(t, 3, forms)
	})
	t.Run("closed over HTTP/2", func(t *testing.T) {
		t.Parallel()
		var requests atomic.Int64
		server := serveHTTP2(t, func(w http.ResponseWriter, r *http.Request) {
			if requests.Add(1) < 3 {
				panic(http.ErrAbortHandler)
			}
			jsonHandler(http.StatusOK, validToken)(w, r)
		})
		_, err := clientFor(t, server, retries(2)).RequestToken(t.Context(), server.URL, emptyForm)
		require.NoError(t, err)
	})
}

func TestCall_HonorsRetryAfterUpToFiveSeconds(t *testing.T) {
	t.Parallel()
	for header, c := range map[string]struct {
		requests int
		atLeast  time.Duration
	}{
		"0":                             {6, 0},
		"1":                             {6, 5 * time.Second},
		"5":                             {6, 25 * time.Second},
		"6":                             {1, 0},
		"3600":                          {1, 0},
		"Fri, 02 Jan 2122 15:04:05 GMT": {1, 0},
	} {
		t.Run(header, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				handler, requests := failing(http.Header{"Retry-After": {header}}, 429, 429, 429, 429, 429, 429)
				client := servePiped(t, handler) // with 5 retries
				started := time.Now()
				_, err := client.RequestToken(t.Context(), "https://example.com", emptyForm)
				e := requireError(t, err, KindUnavailable)
				require.EqualValues(t, c.requests, requests.Load())
				require.GreaterOrEqual(t, time.Since(started), c.atLeast)
				require.Less(t, time.Since(started), c.atLeast+10*time.Second, "and at most five times 2 s")
				require.Equal(t, c.requests == 1, e.RetryAfter > retryAfterLimit)
				require.Equal(t, c.requests == 1, strings.Contains(e.Error(), "; retry after "))
			})
		})
	}
}

func TestRetryAfter_ParsesSecondsAndDates(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for header, want := range map[string]time.Duration{
		"":                              0,
		"0":                             0,
		"5":                             5 * time.Second,
		"-5":                            0,
		"1.5":                           0,
		"soon":                          0,
		"99999999999999999999":          0,
		"2147483647":                    2147483647 * time.Second,
		"Fri, 02 Jan 2026 03:04:07 GMT": 2 * time.Second,
		"Fri, 02 Jan 2026 03:04:03 GMT": 0,
	} {
		require.Equal(t, want, retryAfter(http.Header{"Retry-After": {header}}, now), header)
	}
}

func TestBackoff_GrowsWithJitter(t *testing.T) {
	t.Parallel()
	b := backoff{min: 100 * time.Millisecond, max: time.Second}
	for attempt, most := range map[int]time.Duration{1: 100, 2: 200, 3: 400, 4: 800, 5: 1000, 6: 1000, 100: 1000} {
		most *= time.Millisecond
		seen := map[time.Duration]bool{}
		for range 100 {
			wait := b.wait(attempt)
			require.LessOrEqual(t, wait, most)
			require.GreaterOrEqual(t, wait, most/2)
			seen[wait] = true
		}
		require.Greater(t, len(seen), 50, "jitter")
	}
	require.EqualValues(t, 1, backoff{min: 1, max: 1}.wait(1), "too short for jitter")
}

func TestCall_TimeoutIsFinal(t *testing.T) {
	t.Parallel()
	t.Run("no response", func(t *testing.T) {
		t.Parallel()
		var requests atomic.Int64
		server := serve(t, func(_ http.ResponseWriter, r *http.Request) {
			requests.Add(1)
			silence(r)
		})
		client := clientFor(t, server, retries(5), timeout(time.Second))
		ctx, cancel := client.WithTimeout(t.Context())
		defer cancel()
		_, err := client.RequestToken(ctx, server.URL, emptyForm)
		e := requireError(t, err, KindTimedOut)
		require.Contains(t, e.Error(), "no complete response within request_timeout (1s)")
		require.NotContains(t, e.Error(), "no connection")
		require.Equal(t, Timeout, e.Reason)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.EqualValues(t, 1, requests.Load())
	})
	t.Run("a caller's own deadline", func(t *testing.T) {
		t.Parallel()
		server := serve(t, nil)
		client := clientFor(t, server)
		ctx, cancel := context.WithTimeout(t.Context(), 0)
		defer cancel()
		_, err := client.RequestToken(ctx, server.URL, func() (url.Values, error) {
			t.Error("no form may be signed after the deadline")
			return emptyForm()
		})
		e := requireError(t, err, KindTimedOut)
		require.Equal(t, "no complete response before the request's own deadline", e.Detail)
		require.Equal(t, Timeout, e.Reason)
	})
	t.Run("a slow body", func(t *testing.T) {
		t.Parallel()
		server := serve(t, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			for r.Context().Err() == nil {
				fmt.Fprint(w, " ")
				_ = http.NewResponseController(w).Flush()
				time.Sleep(10 * time.Millisecond)
			}
		})
		client := clientFor(t, server, timeout(time.Second))
		ctx, cancel := client.WithTimeout(t.Context())
		defer cancel()
		_, err := client.RequestToken(ctx, server.URL, emptyForm)
		require.Equal(t, http.StatusOK, requireError(t, err, KindTimedOut).Status)
	})
	t.Run("TCP, but no TLS", func(t *testing.T) {
		t.Parallel()
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(t, err)
		defer listener.Close()
		client := newClient(t, Config{AllowedHosts: []string{listener.Addr().String()}, RequestTimeout: 150 * time.Millisecond, MaxRetries: 5}, quick)
		ctx, cancel := client.WithTimeout(t.Context())
		defer cancel()
		_, err = client.RequestToken(ctx, "https://"+listener.Addr().String(), emptyForm)
		e := requireError(t, err, KindTimedOut)
		require.Equal(t, 1, e.Attempts)
		require.Contains(t, e.Error(), "within request_timeout (150ms): no connection was made")
		require.Equal(t, NoConnection, e.Reason)

		again, cancelAgain := client.WithTimeout(t.Context())
		defer cancelAgain()
		_, err = client.Connect(again, "https://"+listener.Addr().String())
		require.Contains(t, requireError(t, err, KindTimedOut).Error(), "no connection was made")
	})
}

// The provider's response is more useful than an error about the deadline.
func TestCall_NeverWaitsBeyondDeadline(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		handler, requests := failing(http.Header{"Retry-After": {"5"}}, 503, 503)
		client := servePiped(t, handler)
		ctx, cancel := client.WithTimeout(t.Context()) // 10 s
		defer cancel()
		started := time.Now()
		_, err := client.RequestToken(ctx, "https://example.com", emptyForm)
		require.Equal(t, 503, requireError(t, err, KindUnavailable).Status)
		require.Less(t, time.Since(started), 6*time.Second)
		require.EqualValues(t, 2, requests.Load())
	})
}

func TestCall_CancelEndsRequest(t *testing.T) {
	t.Parallel()
	t.Run("in the request", func(t *testing.T) {
		t.Parallel()
		arrived := make(chan struct{})
		server := serve(t, func(_ http.ResponseWriter, r *http.Request) {
			close(arrived)
			silence(r)
		})
		ctx, cancel := context.WithCancel(t.Context())
		go func() { <-arrived; cancel() }()
		_, err := clientFor(t, server, retries(5)).RequestToken(ctx, server.URL, emptyForm)
		_ = requireError(t, err, KindCanceled)
		require.ErrorIs(t, err, context.Canceled)
	})
	t.Run("in the wait", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			handler, requests := failing(http.Header{"Retry-After": {"5"}}, 503)
			client := servePiped(t, handler)
			ctx, cancel := context.WithCancel(t.Context())
			time.AfterFunc(time.Second, cancel)
			started := time.Now()
			_, err := client.RequestToken(ctx, "https://example.com", emptyForm)
			_ = requireError(t, err, KindCanceled)
			require.Equal(t, time.Second, time.Since(started))
			require.EqualValues(t, 1, requests.Load())
		})
	})
}

// A caller that still holds a closed client leaves no connection behind.
func TestClose_LaterCallKeepsNoConnection(t *testing.T) {
	t.Parallel()
	for _, http2 := range []bool{false, true} {
		server := httptest.NewUnstartedServer(jsonHandler(http.StatusOK, validToken))
		server.EnableHTTP2 = http2
		closed := make(chan struct{})
		next := server.Config.ConnState
		server.Config.ConnState = func(conn net.Conn, state http.ConnState) {
			if state == http.StateClosed {
				close(closed)
			}
			if next != nil {
				next(conn, state)
			}
		}
		server.StartTLS()
		client := clientFor(t, server)
		client.Close()
		_, err := client.RequestToken(t.Context(), server.URL, emptyForm)
		require.NoError(t, err)
		select {
		case <-closed:
		case <-time.After(5 * time.Second):
			t.Errorf("the connection stays open (HTTP/2: %t)", http2)
		}
		server.Close()
	}
}

// The deadline is exact whatever the provider does: here in virtual time, without a network.
func TestCall_DeadlineIsExact(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		client, err := New(Config{RequestTimeout: 10 * time.Second, MaxRetries: 5}, Options{})
		require.NoError(t, err)
		defer client.Close()
		forms := 0
		client.http = &http.Client{Transport: roundTrip(func(r *http.Request) (*http.Response, error) {
			select {
			case <-time.After(4 * time.Second):
				return &http.Response{StatusCode: http.StatusServiceUnavailable, Header: http.Header{}, Body: http.NoBody, Request: r}, nil
			case <-r.Context().Done():
				return nil, r.Context().Err()
			}
		})}
		ctx, cancel := client.WithTimeout(t.Context())
		defer cancel()
		started := time.Now()
		_, err = client.RequestToken(ctx, "https://idp.example.com/token", func() (url.Values, error) { forms++; return emptyForm() })
		_ = requireError(t, err, KindTimedOut)
		require.Equal(t, 10*time.Second, time.Since(started))
		require.Equal(t, 3, forms)
	})
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func TestCall_RedirectsAreNotFollowed(t *testing.T) {
	t.Parallel()
	var followed atomic.Int64
	elsewhere := serve(t, func(http.ResponseWriter, *http.Request) { followed.Add(1) })
	for _, status := range []int{300, 301, 302, 303, 307, 308} {
		server := serve(t, func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, elsewhere.URL+"/secret?token=eyJ", status)
		})
		client := clientFor(t, server, func(c *Config) {
			c.AllowedHosts = append(c.AllowedHosts, elsewhere.Listener.Addr().String())
		})
		_, tokenErr := client.RequestToken(t.Context(), server.URL, emptyForm)
		_, discoveryErr := client.Discover(t.Context(), server.URL)
		for _, err := range []error{tokenErr, discoveryErr, client.Revoke(t.Context(), server.URL, emptyForm)} {
			e := requireError(t, err, KindMalformed)
			require.Equal(t, status, e.Status)
			require.Contains(t, e.Error(), "redirects are not followed (this one leads to 127.0.0.1)")
			require.NotContains(t, e.Error(), "secret")
			require.Equal(t, Redirected, e.Reason)
		}
		connection, err := client.Connect(t.Context(), server.URL)
		require.NoError(t, err)
		require.NotEmpty(t, connection.Address)
	}
	require.Zero(t, followed.Load())
}

func TestCall_InvalidURLIsNotShown(t *testing.T) {
	t.Parallel()
	client := newClient(t, Config{RequestTimeout: time.Second}, quick)
	for _, endpoint := range []string{"", "/secret", "https://idp.example.com:secret/", "https://[secret", "secret"} {
		e := requireError(t, perform(t.Context(), client, OpToken, endpoint), KindBlocked)
		require.Equal(t, "(no valid URL)", e.URL)
		require.NotContains(t, e.Error(), "secret")
	}
}

// The rest of a Location may contain anything.
func TestCall_RedirectNamesPlainHostOnly(t *testing.T) {
	t.Parallel()
	longest := strings.Repeat("abc.", 15) + "abcd" // 64 characters
	for location, host := range map[string]string{
		"https://login.example.com/?token=secret":           "login.example.com",
		"https://u:secret@LOGIN.example.com./":              "login.example.com",
		"https://[::1]:8443/secret":                         "::1",
		"https://" + longest + "/":                          longest,
		"https://a" + longest + "/":                         "",
		"https://" + strings.Repeat("s", 61) + ".ca/secret": "",
		"/secret":                    "",
		"":                           "",
		"https://sécret.example.com": "",
	} {
		server := serve(t, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Location", location)
			w.WriteHeader(http.StatusFound)
		})
		e := requireError(t, perform(t.Context(), clientFor(t, server), OpToken, server.URL), KindMalformed)
		want := "redirects are not followed"
		if host != "" {
			want += " (this one leads to " + host + ")"
		}
		require.Equal(t, want, e.Detail, location)
	}
}

func TestCall_BodyIsLimitedAfterDecompression(t *testing.T) {
	t.Parallel()
	const endless = 0
	identity := func(text string) string { return text }
	for name, c := range map[string]struct {
		op   Operation
		size int
		says string // empty: accepted
	}{
		"a token in 128 KiB":        {OpToken, 128 << 10, ""},
		"a token, one byte more":    {OpToken, 128<<10 + 1, "larger than 128 KiB"},
		"a never-ending token":      {OpToken, endless, "larger than 128 KiB"},
		"a document in 1 MiB":       {OpDiscovery, 1 << 20, ""},
		"a document, one byte more": {OpDiscovery, 1<<20 + 1, "larger than 1024 KiB"},
		"a never-ending document":   {OpDiscovery, endless, "larger than 1024 KiB"},
		"a never-ending revocation": {OpRevocation, endless, ""}, // any 200 is a success
	} {
		for encoding, encode := range map[string]func(string) string{"": identity, "gzip": gzipped} {
			t.Run(name+" "+encoding, func(t *testing.T) {
				t.Parallel()
				server := serve(t, func(w http.ResponseWriter, r *http.Request) {
					body := validToken
					if r.Method == http.MethodGet {
						body = fmt.Sprintf(`{"issuer":"https://%s","token_endpoint":"https://%[1]s/token"}`, r.Host)
					}
					w.Header().Set("Content-Type", "application/json")
					w.Header()["Content-Encoding"] = []string{encoding}
					if c.size != endless {
						_, _ = io.WriteString(w, encode(body+strings.Repeat(" ", c.size-len(body))))
						return
					}
					// The members of a gzip file may repeat: a decompression bomb.
					_, err := io.WriteString(w, encode(body))
					for padding := encode(strings.Repeat(" ", 64<<10)); err == nil; {
						_, err = io.WriteString(w, padding)
					}
				})
				err := perform(t.Context(), clientFor(t, server), c.op, server.URL)
				if c.says == "" {
					require.NoError(t, err)
					return
				}
				e := requireError(t, err, KindMalformed)
				require.Equal(t, ResponseTooLarge, e.Reason)
				require.Contains(t, e.Error(), c.says)
			})
		}
	}
}

// perform requests a token, revokes one, or discovers the issuer.
func perform(ctx context.Context, client *Client, op Operation, url string) error {
	var err error
	switch op {
	case OpDiscovery:
		_, err = client.Discover(ctx, url)
	case OpRevocation:
		err = client.Revoke(ctx, url, emptyForm)
	default:
		_, err = client.RequestToken(ctx, url, emptyForm)
	}
	return err
}

func gzipped(text string) string {
	var b strings.Builder
	zip := gzip.NewWriter(&b)
	_, _ = io.WriteString(zip, text)
	_ = zip.Close()
	return b.String()
}

func TestCall_TruncatedBodyIsUnavailable(t *testing.T) {
	t.Parallel()
	server := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Content-Length", "1000")
		_, _ = io.WriteString(w, validToken)
	})
	_, err := clientFor(t, server).RequestToken(t.Context(), server.URL, emptyForm)
	e := requireError(t, err, KindUnavailable)
	require.Contains(t, e.Error(), "HTTP 200: the response was cut off")
}

func serveHTTP2(tb testing.TB, handler http.HandlerFunc) *httptest.Server {
	tb.Helper()
	server := httptest.NewUnstartedServer(handler)
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.EnableHTTP2 = true
	server.StartTLS()
	tb.Cleanup(server.Close)
	return server
}

func countConnections(server *httptest.Server) *atomic.Int64 {
	var opened atomic.Int64
	next := server.Config.ConnState
	server.Config.ConnState = func(conn net.Conn, state http.ConnState) {
		if state == http.StateNew {
			opened.Add(1)
		}
		if next != nil {
			next(conn, state)
		}
	}
	return &opened
}

func TestCall_ReusesConnections(t *testing.T) {
	t.Parallel()
	for _, http2 := range []bool{false, true} {
		var proto atomic.Value
		handler := func(w http.ResponseWriter, r *http.Request) {
			proto.Store(r.Proto)
			status := http.StatusOK
			if r.FormValue("fail") != "" {
				status = http.StatusBadRequest
			}
			jsonHandler(status, validToken)(w, r)
		}
		server := httptest.NewUnstartedServer(http.HandlerFunc(handler))
		server.EnableHTTP2 = http2
		opened := countConnections(server)
		server.StartTLS()
		t.Cleanup(server.Close)
		client := clientFor(t, server)
		for i := range 100 {
			_, err := client.RequestToken(t.Context(), server.URL, func() (url.Values, error) {
				if i%2 == 0 {
					return url.Values{"fail": {"1"}}, nil
				}
				return emptyForm()
			})
			require.Equal(t, i%2 == 0, err != nil)
		}
		require.EqualValues(t, 1, opened.Load())
		require.Equal(t, map[bool]string{false: "HTTP/1.1", true: "HTTP/2.0"}[http2], proto.Load())
	}
}

func TestCall_FailureElsewhereKeepsConnections(t *testing.T) {
	t.Parallel()
	server := httptest.NewUnstartedServer(jsonHandler(http.StatusOK, validToken))
	opened := countConnections(server)
	server.StartTLS()
	t.Cleanup(server.Close)
	dead := serve(t, nil)
	dead.Close()
	client := clientFor(t, server, retries(1), func(c *Config) { c.AllowedHosts = append(c.AllowedHosts, dead.Listener.Addr().String()) })
	for range 3 {
		_, err := client.RequestToken(t.Context(), server.URL, emptyForm)
		require.NoError(t, err)
		_, err = client.RequestToken(t.Context(), dead.URL, emptyForm)
		_ = requireError(t, err, KindUnavailable)
	}
	require.EqualValues(t, 1, opened.Load())
}

func TestCall_BurstKeepsItsConnections(t *testing.T) {
	t.Parallel()
	const callers = 64
	var waiting sync.WaitGroup
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		waiting.Done()
		waiting.Wait() // until all callers are here
		jsonHandler(http.StatusOK, validToken)(w, r)
	}))
	opened := countConnections(server)
	server.StartTLS()
	t.Cleanup(server.Close)
	client := clientFor(t, server)
	for range 3 {
		waiting.Add(callers)
		var done sync.WaitGroup
		for range callers {
			done.Go(func() {
				if _, err := client.RequestToken(t.Context(), server.URL, emptyForm); err != nil {
					t.Error(err)
				}
			})
		}
		done.Wait()
	}
	require.EqualValues(t, callers, opened.Load())
}

// A slow provider must not be sent ever more requests at once; those that wait are not told that
// there is no connection.
func TestCall_ConnectionsAreLimited(t *testing.T) {
	t.Parallel()
	const limit, callers = 256, 300
	arrived, released := make(chan struct{}, callers), make(chan struct{})
	release := sync.OnceFunc(func() { close(released) })
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		arrived <- struct{}{}
		<-released
		jsonHandler(http.StatusOK, validToken)(w, r)
	}))
	opened := countConnections(server)
	server.Start() // without TLS, as handshakes are slow
	t.Cleanup(server.Close)
	t.Cleanup(release)
	client := newClient(t, Config{AllowInsecure: true, RequestTimeout: time.Minute}, quick)
	var done sync.WaitGroup
	for range callers {
		done.Go(func() {
			if _, err := client.RequestToken(t.Context(), server.URL, emptyForm); err != nil {
				t.Error(err)
			}
		})
	}
	for range limit {
		<-arrived
	}
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	_, err := client.RequestToken(ctx, server.URL, emptyForm)
	e := requireError(t, err, KindTimedOut)
	require.Equal(t, Timeout, e.Reason)
	require.Contains(t, e.Error(), "all 256 connections to the host were in use")
	release()
	done.Wait()
	require.EqualValues(t, limit, opened.Load())
}

// New settings close the client while callers use it: they finish, and nothing is left behind (see
// TestMain).
func TestClose_LetsCallsFinish(t *testing.T) {
	t.Parallel()
	for _, start := range []func(testing.TB, http.HandlerFunc) *httptest.Server{serve, serveHTTP2} {
		arrived, release := make(chan struct{}), make(chan struct{})
		var server *httptest.Server
		server = start(t, func(w http.ResponseWriter, r *http.Request) {
			arrived <- struct{}{}
			<-release
			if strings.HasSuffix(r.URL.Path, "/.well-known/openid-configuration") {
				jsonHandler(http.StatusOK, fmt.Sprintf(`{"issuer":%q,"token_endpoint":%q}`, server.URL, server.URL))(w, r)
				return
			}
			jsonHandler(http.StatusOK, validToken)(w, r)
		})
		client := clientFor(t, server)
		failures := make(chan error, 2)
		go func() {
			_, err := client.RequestToken(t.Context(), server.URL, emptyForm)
			failures <- err
		}()
		<-arrived
		go func() {
			_, err := client.Discover(t.Context(), server.URL)
			failures <- err
		}()
		<-arrived
		client.Close()
		client.Close()
		<-arrived // discovery, sent again under the caller's own context
		close(release)
		require.NoError(t, errors.Join(<-failures, <-failures))
		go func() { <-arrived }()
		_, err := client.RequestToken(t.Context(), server.URL, emptyForm)
		require.NoError(t, err, "a caller that still holds the closed client is served")
	}
}
