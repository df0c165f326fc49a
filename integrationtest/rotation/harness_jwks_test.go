package rotation

import (
	"crypto"
	"crypto/rand"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"path"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/stretchr/testify/require"

	"github.com/bcgov/vault-plugin-bcgov-jwt/integrationtest/harness"
)

const (
	// reloadPause is how long Keycloak waits at most before it may load a client's keys again: ten
	// seconds by a clock of whole seconds.
	reloadPause = 11 * time.Second
	// acceptTimeout is how long a new version may take from a load until it is accepted: it is
	// tried again every ten seconds, and one try may be too early.
	acceptTimeout = 2*reloadPause + 3*time.Second
)

// privateKey returns the stored private key of the version with a key id.
func privateKey(t *testing.T, m *harness.Mount, name, keyID string) crypto.Signer {
	t.Helper()
	for _, key := range m.PrivateKeys(t, name) {
		id, err := keyIDOf(harness.PublicPEM(t, key))
		require.NoError(t, err)
		if id == keyID {
			return key
		}
	}
	require.Fail(t, "no version has the key id", keyID)
	return nil
}

// requestToken requests a token as a holder of the private key of a client can, and returns the
// status of the response.
func requestToken(
	t *testing.T, p *harness.Provider, registered harness.Response, key crypto.Signer, keyID string,
) (status int) {
	t.Helper()
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.RS256, Key: key},
		(&jose.SignerOptions{}).WithHeader("kid", keyID))
	require.NoError(t, err)
	clientID, now := registered.Text(t, "client_id"), time.Now()
	claims, err := json.Marshal(map[string]any{
		"iss": clientID, "sub": clientID, "aud": p.Issuer, "jti": rand.Text(),
		"iat": now.Unix(), "exp": now.Add(30 * time.Second).Unix(),
	})
	require.NoError(t, err)
	signed, err := signer.Sign(claims)
	require.NoError(t, err)
	assertion, err := signed.CompactSerialize()
	require.NoError(t, err)
	resp := p.PostAssertion(t, clientID, assertion)
	defer resp.Body.Close()
	return resp.StatusCode
}

// jwksSource passes a provider's requests for a JWKS to Vault, counts them, and can fail.
type jwksSource struct {
	URL     string
	fetches atomic.Int64
	outage  atomic.Pointer[http.HandlerFunc] // responds in place of Vault if set
}

func newJWKSSource(t *testing.T) *jwksSource {
	t.Helper()
	target, err := url.Parse(harness.Vault().URL())
	require.NoError(t, err)
	source := &jwksSource{}
	vault := &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(target) }}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		source.fetches.Add(1)
		if outage := source.outage.Load(); outage != nil {
			(*outage)(w, r)
			return
		}
		vault.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	source.URL = server.URL
	return source
}

func (s *jwksSource) fail(outage http.HandlerFunc) { s.outage.Store(&outage) }

func (s *jwksSource) recover() { s.outage.Store(nil) }

// keySetResponse is the response of a JWKS URL.
type keySetResponse struct {
	status int
	header http.Header
	body   string
}

// fetchKeySet requests a key set as a provider does: without a Vault token.
func fetchKeySet(t *testing.T, method, path string) keySetResponse {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, harness.Vault().URL()+path,
		http.NoBody)
	require.NoError(t, err)
	resp, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	harness.Detector().Record("the key set "+path, string(body))
	return keySetResponse{resp.StatusCode, resp.Header, string(body)}
}

// publishedKeyIDs fetches the key set of a key, checks its form, and returns its key ids.
func publishedKeyIDs(t *testing.T, m *harness.Mount, name string) []string {
	t.Helper()
	path := m.Read(t, "keys/"+name).Text(t, "jwks_path")
	got := fetchKeySet(t, http.MethodGet, path)
	require.Equal(t, http.StatusOK, got.status)
	require.Equal(t, "application/jwk-set+json", got.header.Get("Content-Type"))
	require.Equal(t, "max-age=60", got.header.Get("Cache-Control"))
	require.JSONEq(t, m.Read(t, "keys/"+name+"/jwks").Text(t, "jwks"), got.body)
	head := fetchKeySet(t, http.MethodHead, path)
	require.Equal(t, http.StatusOK, head.status)
	require.Equal(t, got.header.Get("Content-Type"), head.header.Get("Content-Type"))
	require.Empty(t, head.body)
	var set struct {
		Keys []map[string]any `json:"keys"`
	}
	require.NoError(t, json.Unmarshal([]byte(got.body), &set))
	var ids []string
	for _, jwk := range set.Keys {
		require.Equal(t, "sig", jwk["use"])
		require.NotContains(t, jwk, "d")
		id, _ := jwk["kid"].(string)
		ids = append(ids, id)
	}
	return ids
}

// requireNoKeySet requires the response for an id that no key ever had.
func requireNoKeySet(t *testing.T, address string) {
	t.Helper()
	folder, _ := path.Split(address)
	unknown := folder + rand.Text()
	for _, method := range []string{http.MethodGet, http.MethodHead} {
		want, got := fetchKeySet(t, method, unknown), fetchKeySet(t, method, address)
		want.header.Del("Date")
		got.header.Del("Date")
		require.Equal(t, http.StatusNotFound, got.status, "%s %s: %s", method, address, got.body)
		require.Equal(t, want, got, "%s %s", method, address)
	}
}
