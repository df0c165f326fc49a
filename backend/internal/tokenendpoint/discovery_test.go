package tokenendpoint

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// provider serves a discovery document that a test may change, and counts the requests for it.
type provider struct {
	*httptest.Server
	requests atomic.Int64
	mu       sync.Mutex
	document http.HandlerFunc
}

func serveProvider(t *testing.T) *provider {
	t.Helper()
	p := &provider{}
	p.Server = serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/realms/x/.well-known/openid-configuration" || r.Method != http.MethodGet ||
			r.Header.Get("Accept") != "application/json" || r.Header.Get("User-Agent") != "test/1" {
			w.WriteHeader(http.StatusTeapot)
			return
		}
		p.requests.Add(1)
		p.mu.Lock()
		document := p.document
		p.mu.Unlock()
		document(w, r)
	})
	p.respond(jsonHandler(http.StatusOK, p.valid()))
	return p
}

func (p *provider) respond(document http.HandlerFunc) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.document = document
}

func (p *provider) issuer() string { return p.URL + "/realms/x" }

func (p *provider) valid() string {
	return fmt.Sprintf(`{"issuer":%q,"token_endpoint":%q,"revocation_endpoint":%q,"jwks_uri":"x"}`,
		p.issuer(), p.URL+"/token", p.URL+"/revoke")
}

// clock is a clock that a test moves.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

func clientWithClock(t *testing.T, p *provider, changes ...func(*Config)) (*Client, *clock) {
	t.Helper()
	cfg := configFor(p.Server)
	for _, change := range changes {
		change(&cfg)
	}
	at := &clock{now: time.Now()}
	opts := quick
	opts.Now = at.Now
	return newClient(t, cfg, opts), at
}

func TestDiscover_CachesForAnHour(t *testing.T) {
	t.Parallel()
	p := serveProvider(t)
	client, at := clientWithClock(t, p)
	discover := func() Metadata {
		metadata, err := client.Discover(t.Context(), p.issuer())
		require.NoError(t, err)
		require.Equal(t, p.URL+"/token", metadata.TokenEndpoint)
		require.Equal(t, p.URL+"/revoke", metadata.RevocationEndpoint)
		return metadata
	}
	require.Equal(t, at.Now(), discover().FetchedAt)
	at.advance(time.Hour - time.Second)
	discover()
	require.EqualValues(t, 1, p.requests.Load())
	at.advance(time.Second)
	require.Equal(t, at.Now(), discover().FetchedAt)
	require.EqualValues(t, 2, p.requests.Load())
}

// A caller that read the cache just before a flight stored its document starts another flight.
func TestDiscover_LateFlightReturnsCachedDocument(t *testing.T) {
	t.Parallel()
	p := serveProvider(t)
	client, at := clientWithClock(t, p)
	for range 2 {
		metadata, err := client.refresh(p.issuer())
		require.NoError(t, err)
		require.Equal(t, p.URL+"/token", metadata.(Metadata).TokenEndpoint)
	}
	require.EqualValues(t, 1, p.requests.Load())
	at.advance(time.Hour)
	_, err := client.refresh(p.issuer())
	require.NoError(t, err)
	require.EqualValues(t, 2, p.requests.Load())
}

func TestDiscover_ServesStaleDocumentIfRefreshFails(t *testing.T) {
	t.Parallel()
	p := serveProvider(t)
	client, at := clientWithClock(t, p)
	first, err := client.Discover(t.Context(), p.issuer())
	require.NoError(t, err)

	at.advance(2 * time.Hour)
	p.respond(jsonHandler(http.StatusInternalServerError, `{}`))
	for range 5 { // one attempt a minute
		got, err := client.Discover(t.Context(), p.issuer())
		require.NoError(t, err)
		require.Equal(t, first, got)
	}
	require.EqualValues(t, 2, p.requests.Load())

	at.advance(time.Minute)
	p.respond(jsonHandler(http.StatusOK, `{"issuer":"https://evil.example.com","token_endpoint":"https://evil.example.com/"}`))
	got, err := client.Discover(t.Context(), p.issuer())
	require.NoError(t, err)
	require.Equal(t, first, got)
	require.EqualValues(t, 3, p.requests.Load())

	at.advance(time.Minute)
	p.respond(jsonHandler(http.StatusOK, p.valid()))
	got, err = client.Discover(t.Context(), p.issuer())
	require.NoError(t, err)
	require.Equal(t, at.Now(), got.FetchedAt)
}

func TestDiscover_ServesStaleDocumentIfRefreshIsSlow(t *testing.T) {
	t.Parallel()
	p := serveProvider(t)
	client, at := clientWithClock(t, p, timeout(4*time.Second))
	first, err := client.Discover(t.Context(), p.issuer())
	require.NoError(t, err)
	at.advance(2 * time.Hour)
	p.respond(func(_ http.ResponseWriter, r *http.Request) { silence(r) })
	ctx, cancel := client.WithTimeout(t.Context())
	defer cancel()
	got, err := client.Discover(ctx, p.issuer())
	require.NoError(t, err)
	require.Equal(t, first, got)
	require.NoError(t, ctx.Err(), "time is left for the token request")
}

func TestDiscover_FirstFailureIsNotCached(t *testing.T) {
	t.Parallel()
	p := serveProvider(t)
	p.respond(jsonHandler(http.StatusInternalServerError, `{}`))
	client, _ := clientWithClock(t, p)
	_, err := client.Discover(t.Context(), p.issuer())
	e := requireError(t, err, KindUnavailable)
	require.Contains(t, e.Error(), "OpenID discovery at "+p.issuer()+"/.well-known/openid-configuration: HTTP 500")
	p.respond(jsonHandler(http.StatusOK, p.valid()))
	_, err = client.Discover(t.Context(), p.issuer())
	require.NoError(t, err)
}

func TestDiscover_Retries(t *testing.T) {
	t.Parallel()
	p := serveProvider(t)
	p.respond(func(w http.ResponseWriter, r *http.Request) {
		if p.requests.Load() < 3 {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		jsonHandler(http.StatusOK, p.valid())(w, r)
	})
	client, _ := clientWithClock(t, p, retries(2))
	_, err := client.Discover(t.Context(), p.issuer())
	require.NoError(t, err)
}

func TestDiscover_CallersShareRequestUnderOwnContexts(t *testing.T) {
	t.Parallel()
	p := serveProvider(t)
	arrived, release := make(chan struct{}), make(chan struct{})
	p.respond(func(w http.ResponseWriter, r *http.Request) {
		close(arrived)
		<-release
		jsonHandler(http.StatusOK, p.valid())(w, r)
	})
	client, _ := clientWithClock(t, p)

	first, leave := context.WithCancel(t.Context())
	left := make(chan error)
	go func() {
		_, err := client.Discover(first, p.issuer())
		left <- err
	}()
	<-arrived
	var others sync.WaitGroup
	for range 50 {
		others.Go(func() {
			if _, err := client.Discover(t.Context(), p.issuer()); err != nil {
				t.Error(err)
			}
		})
	}
	leave() // the caller that began the request is canceled; it continues for the others
	_ = requireError(t, <-left, KindCanceled)

	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	_, err := client.Discover(ctx, p.issuer())
	_ = requireError(t, err, KindTimedOut)

	close(release)
	others.Wait()
	require.EqualValues(t, 1, p.requests.Load())
}

// issuerOf returns a URL of this length in short words.
func issuerOf(length int) string {
	return ("https://evil.example.com" + strings.Repeat("/abcdefg", 40))[:length]
}

func TestDiscover_RejectsInvalidDocuments(t *testing.T) {
	t.Parallel()
	p := serveProvider(t)
	document := func(changes map[string]any) string {
		members := map[string]any{"issuer": p.issuer(), "token_endpoint": p.URL + "/token"}
		maps.Copy(members, changes)
		text, err := json.Marshal(members)
		require.NoError(t, err)
		return string(text)
	}
	for name, c := range map[string]struct {
		status int
		body   string
		kind   Kind
		says   string
	}{
		"another issuer":       {200, document(map[string]any{"issuer": "https://evil.example.com/realms/x"}), KindRejected, "a different issuer: https://evil.example.com/realms/x"},
		"a trailing slash":     {200, document(map[string]any{"issuer": p.issuer() + "/"}), KindRejected, p.issuer() + "/"},
		"another letter case":  {200, document(map[string]any{"issuer": strings.Replace(p.issuer(), "realms", "Realms", 1)}), KindRejected, "a different issuer"},
		"the longest issuer":   {200, document(map[string]any{"issuer": issuerOf(256)}), KindRejected, "a different issuer: " + issuerOf(256)},
		"a longer issuer":      {200, document(map[string]any{"issuer": issuerOf(257)}), KindRejected, "the discovery document is for a different issuer"},
		"a token for issuer":   {200, document(map[string]any{"issuer": "https://idp.example.com/eyJhbGciOi"}), KindRejected, "a different issuer"},
		"no issuer":            {200, document(map[string]any{"issuer": nil}), KindMalformed, "`issuer` is missing"},
		"issuer no string":     {200, document(map[string]any{"issuer": []string{p.issuer()}}), KindMalformed, "`issuer` is missing"},
		"a miscased issuer":    {200, document(map[string]any{"issuer": nil, "Issuer": p.issuer()}), KindMalformed, "`issuer` is missing"},
		"no token endpoint":    {200, document(map[string]any{"token_endpoint": nil}), KindMalformed, "`token_endpoint` is missing"},
		"endpoint no string":   {200, document(map[string]any{"token_endpoint": 5}), KindMalformed, "`token_endpoint` in the discovery document is not a string"},
		"revocation no string": {200, document(map[string]any{"revocation_endpoint": 5}), KindMalformed, "`revocation_endpoint` in the discovery document is not a string"},
		"a member twice":       {200, strings.Replace(document(nil), "{", `{"issuer":"https://evil.example.com",`, 1), KindMalformed, "duplicate member"},
		"http":                 {200, document(map[string]any{"token_endpoint": "http://idp.example.com/token"}), KindBlocked, "`token_endpoint` in the discovery document must use https"},
		"metadata address":     {200, document(map[string]any{"token_endpoint": "https://169.254.169.254/token"}), KindBlocked, "not listed"},
		"an unlisted host":     {200, document(map[string]any{"token_endpoint": "https://evil.example.com/token"}), KindBlocked, "evil.example.com, which is not listed"},
		"relative":             {200, document(map[string]any{"token_endpoint": "/token"}), KindBlocked, "must begin with https://"},
		"an array":             {200, `[]`, KindMalformed, "not a JSON object"},
		"404":                  {404, `{"error":"Realm does not exist"}`, KindRejected, "HTTP 404 Realm does not exist"},
	} {
		p.respond(jsonHandler(c.status, c.body))
		client, _ := clientWithClock(t, p)
		_, err := client.Discover(t.Context(), p.issuer())
		e := requireError(t, err, c.kind)
		require.Contains(t, e.Error(), c.says, name)
		require.NotContains(t, e.Error(), "eyJ")
		require.NotContains(t, e.Error(), issuerOf(257))
	}
	p.respond(jsonHandler(404, `{"error":"Realm does not exist"}`))
	client, _ := clientWithClock(t, p)
	_, err := client.Discover(t.Context(), p.issuer())
	require.Equal(t, NoSuchIssuer, requireError(t, err, KindRejected).Reason)
}

// Reports show endpoints, and logs may.
func TestDiscover_EndpointsArePrintable(t *testing.T) {
	t.Parallel()
	p := serveProvider(t)
	client := func() *Client { client, _ := clientWithClock(t, p); return client }
	for name, c := range map[string]struct {
		end      string
		accepted bool
	}{
		"2,048 characters":    {strings.Repeat("x", 2048-len(p.URL+"/")), true},
		"2,049 characters":    {strings.Repeat("x", 2049-len(p.URL+"/")), false},
		"a control character": {"a\u0001b", false},
		"a line break":        {"a\nb", false},
		"an escape sequence":  {"a\u001b[2Jb", false},
		"a delete":            {"a\u007fb", false},
		"a space":             {"a b", false},
		"bidi override":       {"a\u202eb", false},
		"bidi isolate":        {"a\u2066b", false},
		"a zero-width space":  {"a\u200bb", false},
		"another letter":      {"é", false},
		"not UTF-8":           {"a\xffb", false},
	} {
		for _, member := range []string{"token_endpoint", "revocation_endpoint"} {
			endpoints := map[string]string{"issuer": p.issuer(), "token_endpoint": p.URL + "/t"}
			endpoints[member] = p.URL + "/" + c.end
			document, err := json.Marshal(endpoints)
			require.NoError(t, err)
			p.respond(jsonHandler(http.StatusOK, string(document)))
			metadata, err := client().Discover(t.Context(), p.issuer())
			if c.accepted {
				require.NoError(t, err)
				require.Contains(t, []string{metadata.TokenEndpoint, metadata.RevocationEndpoint}, endpoints[member])
				continue
			}
			e := requireError(t, err, KindMalformed)
			require.Equal(t, InvalidResponse, e.Reason, name)
			require.Contains(t, e.Detail, "`"+member+"` in the discovery document is not a string of at most 2048 visible ASCII characters", name)
			require.True(t, printable(e.Error(), " "), name)
		}
	}
}

// Tokens do not need it, so it is ignored; whoever wants it learns why.
func TestDiscover_IgnoresDisallowedRevocationEndpoint(t *testing.T) {
	t.Parallel()
	p := serveProvider(t)
	for endpoint, says := range map[string]string{
		p.URL + "/revoke":                 "",
		"":                                "",
		"http://idp.example.com/revoke":   "must use https",
		"https://169.254.169.254/revoke":  "not listed",
		"https://evil.example.com/revoke": "is at evil.example.com, which is not listed",
		"https://u:secret@idp.example.com/revoke": "user name or password",
		"/revoke": "must begin with https://",
	} {
		p.respond(jsonHandler(http.StatusOK, fmt.Sprintf(`{"issuer":%q,"token_endpoint":%q,"revocation_endpoint":%q}`,
			p.issuer(), p.URL+"/token", endpoint)))
		client, _ := clientWithClock(t, p)
		metadata, err := client.Discover(t.Context(), p.issuer())
		require.NoError(t, err)
		require.Equal(t, p.URL+"/token", metadata.TokenEndpoint)
		if says == "" {
			require.NoError(t, metadata.RevocationError)
			require.Equal(t, endpoint, metadata.RevocationEndpoint)
			continue
		}
		require.Empty(t, metadata.RevocationEndpoint)
		require.ErrorContains(t, metadata.RevocationError, says)
		require.NotContains(t, metadata.RevocationError.Error(), "secret")
	}
}

// Whoever may write a key's issuer must not fill this node's memory.
func TestDiscover_CacheIsBounded(t *testing.T) {
	t.Parallel()
	client := newClient(t, Config{RequestTimeout: time.Second}, quick)
	requests := map[string]int{}
	client.http = &http.Client{Transport: roundTrip(func(r *http.Request) (*http.Response, error) {
		issuer := strings.TrimSuffix(r.URL.String(), "/.well-known/openid-configuration")
		requests[issuer]++
		body := fmt.Sprintf(`{"issuer":%q,"token_endpoint":%q}`, issuer, issuer+"/token")
		return &http.Response{
			StatusCode: http.StatusOK, Header: http.Header{"Content-Type": {"application/json"}},
			Body: io.NopCloser(strings.NewReader(body)), Request: r,
		}, nil
	})}
	issuer := func(i int) string { return fmt.Sprintf("https://idp.example.com/realms/%d", i) }
	discover := func(i int) int {
		metadata, err := client.Discover(t.Context(), issuer(i))
		require.NoError(t, err)
		require.Equal(t, issuer(i)+"/token", metadata.TokenEndpoint)
		return requests[issuer(i)]
	}
	for i := range 3 * maxDocuments {
		require.Equal(t, 1, discover(i))
		require.Equal(t, 1, discover(0), "one that is in use stays")
	}
	require.Equal(t, maxDocuments, client.documents.Len())
	require.Equal(t, 2, discover(1), "one that is not makes room")
}

func TestDiscover_IssuerMayEndInSlash(t *testing.T) {
	t.Parallel()
	p := serveProvider(t)
	p.respond(jsonHandler(http.StatusOK, fmt.Sprintf(`{"issuer":%q,"token_endpoint":%q}`, p.issuer()+"/", p.URL+"/token")))
	client, _ := clientWithClock(t, p)
	metadata, err := client.Discover(t.Context(), p.issuer()+"/")
	require.NoError(t, err)
	require.Empty(t, metadata.RevocationEndpoint)
}

func TestDiscover_BlockedIssuerSendsNothing(t *testing.T) {
	t.Parallel()
	client := newClient(t, Config{RequestTimeout: time.Second}, quick)
	for _, issuer := range []string{"", "http://idp.example.com", "https://127.0.0.1", "https://u:secret@idp.example.com", "https://idp.example.com?x=secret"} {
		_, err := client.Discover(t.Context(), issuer)
		_ = requireError(t, err, KindBlocked)
		require.NotContains(t, err.Error(), "secret")
	}
}

func TestClose_EndsDiscovery(t *testing.T) {
	t.Parallel()
	p := serveProvider(t)
	arrived := make(chan struct{}, 1)
	p.respond(func(_ http.ResponseWriter, r *http.Request) { arrived <- struct{}{}; silence(r) })
	client, _ := clientWithClock(t, p)
	ctx, leave := context.WithCancel(t.Context())
	left := make(chan struct{})
	go func() { defer close(left); _, _ = client.Discover(ctx, p.issuer()) }()
	<-arrived
	leave()
	<-left
	closed := make(chan struct{})
	go func() { client.Close(); close(closed) }()
	select {
	case <-closed:
	case <-time.After(2 * time.Second):
		t.Fatal("Close waits for the provider")
	}
}

func TestClose_WaitsForBackgroundWork(t *testing.T) {
	t.Parallel()
	client := newClient(t, Config{RequestTimeout: time.Second}, quick)
	arrived := make(chan struct{})
	var ended atomic.Bool
	client.http = &http.Client{Transport: roundTrip(func(r *http.Request) (*http.Response, error) {
		close(arrived)
		<-r.Context().Done()
		time.Sleep(20 * time.Millisecond)
		ended.Store(true)
		return nil, r.Context().Err()
	})}
	ctx, leave := context.WithCancel(t.Context())
	go func() { <-arrived; leave() }()
	_, err := client.Discover(ctx, "https://idp.example.com")
	_ = requireError(t, err, KindCanceled)
	client.Close()
	require.True(t, ended.Load())
}

// FuzzDiscoverDocument checks that a document is accepted only if it is the issuer's, and that its
// endpoints are returned verbatim.
func FuzzDiscoverDocument(f *testing.F) {
	const issuer = "https://idp.example.com/realms/x"
	f.Add(http.StatusOK, "application/json", `{"issuer":"`+issuer+`","token_endpoint":"https://idp.example.com/token","revocation_endpoint":"x"}`)
	f.Add(http.StatusOK, "application/json", `{"issuer":"https://eyJhbGciOi.example.com/","token_endpoint":"https://idp.example.com/token"}`)
	f.Add(http.StatusOK, "application/json", `{"issuer":"https://u:p@idp.example.com/?q#f"}`)
	f.Add(http.StatusNotFound, "application/json", `{"error":"Realm does not exist"}`)
	client, err := New(Config{RequestTimeout: time.Second}, quick)
	require.NoError(f, err)
	f.Cleanup(client.Close)
	f.Fuzz(func(t *testing.T, status int, mediaType, body string) {
		call, err := client.newCall(OpDiscovery, documentURL(issuer), nil)
		require.NoError(t, err)
		r := &response{
			status: status, mediaType: mediaType, body: []byte(body), header: http.Header{},
			startedAt: time.Now(), receivedAt: time.Now(),
		}
		members, err := call.success(t.Context(), r)
		if err == nil {
			var metadata Metadata
			if metadata, err = parseMetadata(members, issuer); err == nil {
				require.Equal(t, issuer, members.text("issuer"))
				require.NotEmpty(t, metadata.TokenEndpoint)
				for _, endpoint := range []string{metadata.TokenEndpoint, metadata.RevocationEndpoint} {
					require.LessOrEqual(t, len(endpoint), maxEndpoint)
					require.True(t, printable(endpoint, ""))
				}
				if err = client.CheckURL(metadata.TokenEndpoint); err == nil {
					u, parseErr := url.Parse(metadata.TokenEndpoint)
					require.NoError(t, parseErr)
					require.Equal(t, "https", u.Scheme)
					return
				}
				err = call.blockedEndpoint(r, err)
			} else {
				err = call.unusable(t.Context(), r, err)
			}
		}
		requireHarmless(t, err, members, body)
	})
}
