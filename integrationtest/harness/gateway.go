package harness

import (
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bcgov/vault-plugin-bcgov-jwt/integrationtest/idp"
)

// API is an API behind a gateway that accepts a provider's tokens. It keeps what it was called
// with.
type API struct {
	URL string

	mu         sync.Mutex
	calls      int
	headers    map[string]bool // Authorization
	rejections []string
}

// NewAPI starts an API that accepts the provider's tokens.
func (p *Provider) NewAPI(t *testing.T) *API {
	t.Helper()
	a := &API{headers: map[string]bool{}}
	gateway := idp.NewGateway(p.Issuer, p.HTTPClient(t), time.Now)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		recorder := httptest.NewRecorder()
		gateway.ServeHTTP(recorder, r)
		a.record(r.Header.Get("Authorization"), recorder)
		maps.Copy(w.Header(), recorder.Header())
		w.WriteHeader(recorder.Code)
		_, _ = w.Write(recorder.Body.Bytes())
	}))
	t.Cleanup(server.Close)
	a.URL = server.URL
	return a
}

func (a *API) record(authorization string, response *httptest.ResponseRecorder) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.calls++
	a.headers[authorization] = true
	if response.Code != http.StatusOK {
		a.rejections = append(a.rejections, fmt.Sprint(response.Code, " ", response.Body))
	}
}

// Calls returns the number of calls.
func (a *API) Calls() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.calls
}

// Tokens returns the number of different tokens that it was called with.
func (a *API) Tokens() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.headers)
}

// Rejections returns the responses to calls that were rejected.
func (a *API) Rejections() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.rejections)
}

// Call calls the API with a token, or without one if it is empty.
func (a *API) Call(t *testing.T, token string) (status int) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, a.URL+"/headers",
		http.NoBody)
	require.NoError(t, err)
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	defer resp.Body.Close()
	_, err = io.Copy(io.Discard, resp.Body)
	require.NoError(t, err)
	return resp.StatusCode
}
