package soak

import (
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	"github.com/stretchr/testify/require"

	"github.com/bcgov/vault-plugin-bcgov-jwt/integrationtest/harness"
	"github.com/bcgov/vault-plugin-bcgov-jwt/integrationtest/idp"
)

// provider is an embedded provider whose network fails when told to. It remembers each token that
// it issued. The leak detector does not observe it: the tokens are too many.
type provider struct {
	*harness.Provider
	server  *idp.Server
	host    *http.Server
	address string
	delay   atomic.Int64 // of each response

	mu     sync.Mutex
	issued map[string]*token
}

// token is what the provider knows of an access token.
type token struct {
	ClientID string           `json:"client_id"`
	Expiry   *jwt.NumericDate `json:"exp"`
	revoked  time.Time
}

func newProvider(t *testing.T) *provider {
	t.Helper()
	p := &provider{
		server: harness.NewEmbeddedServer(t), address: "127.0.0.1:0", issued: map[string]*token{},
	}
	p.listen(t)
	t.Cleanup(p.cut)
	p.Provider = harness.ProviderAt("http://"+p.address, p.server)
	return p
}

// cut breaks each connection, and refuses new ones until listen.
func (p *provider) cut() { _ = p.host.Close() }

func (p *provider) listen(t *testing.T) {
	t.Helper()
	var listener net.Listener
	require.Eventually(t, func() (free bool) { // an outgoing connection may have taken the port
		var err error
		listener, err = net.Listen("tcp", p.address)
		return err == nil
	}, time.Minute, 10*time.Millisecond)
	p.address = listener.Addr().String()
	p.host = &http.Server{Handler: p, ReadHeaderTimeout: time.Minute}
	go p.host.Serve(listener) //nolint:errcheck // it ends when it is cut
}

// ServeHTTP implements http.Handler.
func (p *provider) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	select {
	case <-time.After(time.Duration(p.delay.Load())):
	case <-r.Context().Done():
		return
	}
	answer, _ := p.answer(r)
	maps.Copy(w.Header(), answer.Header())
	w.WriteHeader(answer.Code)
	_, _ = w.Write(answer.Body.Bytes())
}

// answer answers past the network, and remembers the token that it issues or revokes.
func (p *provider) answer(r *http.Request) (answer *httptest.ResponseRecorder, issued string) {
	answer = httptest.NewRecorder()
	p.server.ServeHTTP(answer, r)
	var body struct {
		AccessToken string `json:"access_token"`
	}
	_ = json.Unmarshal(answer.Body.Bytes(), &body) // of other responses it finds none
	p.mu.Lock()
	defer p.mu.Unlock()
	if known := p.issued[r.PostForm.Get("token")]; known != nil && answer.Code == http.StatusOK {
		known.revoked = time.Now()
	}
	parsed, err := jwt.ParseSigned(body.AccessToken, []jose.SignatureAlgorithm{jose.RS256})
	if claims := (&token{}); err == nil && parsed.UnsafeClaimsWithoutVerification(claims) == nil {
		p.issued[body.AccessToken] = claims
	}
	return answer, body.AccessToken
}

// wrong says what is wrong with an answer that is not an error.
type wrong string

func (w wrong) Error() string { return string(w) }

// check returns what is wrong with a token that a read returned, some time after it began.
func (p *provider) check(accessToken, clientID string, begun time.Time) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch known := p.issued[accessToken]; {
	case known == nil:
		return wrong("not a token that the provider issued")
	case known.ClientID != clientID:
		return wrong("a token of " + known.ClientID + " for " + clientID)
	case !known.Expiry.Time().After(begun):
		return wrong("a token that had expired at " + known.Expiry.Time().String())
	case !known.revoked.IsZero() && known.revoked.Before(begun):
		return wrong("a token that was revoked at " + known.revoked.String())
	default:
		return nil
	}
}

// exchange requests a token with an assertion as its reader does, but past the network.
func (p *provider) exchange(assertion map[string]any) (accessToken string, err error) {
	form := url.Values{"grant_type": {"client_credentials"}}
	for _, field := range []string{"client_id", "client_assertion_type", "client_assertion"} {
		form.Set(field, fmt.Sprint(assertion[field]))
	}
	r := httptest.NewRequest(http.MethodPost, p.TokenEndpoint(), strings.NewReader(form.Encode()))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	answer, accessToken := p.answer(r)
	if accessToken == "" {
		err = fmt.Errorf("the provider answers %d", answer.Code)
	}
	return accessToken, err
}
