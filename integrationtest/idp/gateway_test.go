package idp_test

import (
	"crypto/rand"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/stretchr/testify/require"

	"github.com/bcgov/vault-plugin-bcgov-jwt/integrationtest/idp"
)

// issuer publishes keys as an OpenID provider does.
type issuer struct {
	*httptest.Server
	keys    atomic.Pointer[jose.JSONWebKeySet]
	fetches atomic.Int64
}

func newIssuer(t *testing.T, keys ...jose.JSONWebKey) *issuer {
	t.Helper()
	i := &issuer{}
	i.keys.Store(&jose.JSONWebKeySet{Keys: keys})
	mux := http.NewServeMux()
	mux.HandleFunc("/.well-known/openid-configuration", func(w http.ResponseWriter,
		_ *http.Request,
	) {
		_ = writeTestJSON(w, map[string]string{"jwks_uri": i.URL + "/certs"})
	})
	mux.HandleFunc("/certs", func(w http.ResponseWriter, _ *http.Request) {
		i.fetches.Add(1)
		_ = writeTestJSON(w, i.keys.Load())
	})
	i.Server = httptest.NewServer(mux)
	t.Cleanup(i.Close)
	return i
}

// token returns an access token like Keycloak's, with these changes.
func (i *issuer) token(
	t *testing.T, key keyPair, now time.Time, changes ...func(header, claims map[string]any),
) string {
	t.Helper()
	header := map[string]any{"alg": string(key.alg), "typ": "JWT", "kid": key.id()}
	claims := map[string]any{"iss": i.URL, "exp": now.Unix() + 300, "jti": rand.Text()}
	for _, change := range changes {
		change(header, claims)
	}
	return key.sign(t, header, claims)
}

func call(gateway http.Handler, authorization string) response {
	req := httptest.NewRequest(http.MethodGet, "http://api.example.com/headers", nil)
	req.Header.Set("X-Test", "yes")
	if authorization != "" {
		req.Header.Set("Authorization", authorization)
	}
	recorder := httptest.NewRecorder()
	gateway.ServeHTTP(recorder, req)
	return response{status: recorder.Code, header: recorder.Header(), body: recorder.Body.String()}
}

func TestGateway_ChecksTokensOffline(t *testing.T) {
	t.Parallel()
	key, other, now := testKeys()["rsa"], testKeys()["other"], time.Now()
	i := newIssuer(t, key.jwk())
	gateway := idp.NewGateway(i.URL, i.Client(), func() time.Time { return now })
	change := func(member string, value any) func(_, claims map[string]any) {
		return func(_, claims map[string]any) { claims[member] = value }
	}
	for _, c := range []struct {
		name, authorization string
		status              int
		body                string
	}{
		{"good", "Bearer " + i.token(t, key, now), 200, `{"headers":{"Host":"api.example.com","X-Test":"yes"}}`},
		{"scheme in another case", "bearer " + i.token(t, key, now), 200, `{"headers":{"Host":"api.example.com","X-Test":"yes"}}`},
		{"any audience", "Bearer " + i.token(t, key, now, change("aud", "x")), 200, `{"headers":{"Host":"api.example.com","X-Test":"yes"}}`},
		{"no token", "", 401, `{"message":"Unauthorized"}`},
		{"empty token", "Bearer ", 401, `{"message":"Unauthorized"}`},
		{"another scheme", "Basic " + i.token(t, key, now), 401, `{"message":"Unauthorized"}`},
		{"no JWT", "Bearer x", 401, `{"message":"Bad token; invalid JSON"}`},
		{"another issuer", "Bearer " + i.token(t, key, now, change("iss", i.URL+"/")), 401, `{"message":"Token issuer not allowed"}`},
		{"another key", "Bearer " + i.token(t, other, now), 401, `{"message":"Invalid token signature"}`},
		{"another algorithm", "Bearer " + i.token(t, testKeys()["p256"], now), 403, `{"message":"Invalid algorithm"}`},
		{"expired", "Bearer " + i.token(t, key, now, change("exp", now.Unix())), 401, `{"message":"Token claims invalid: [\"exp\"]=\"token expired\""}`},
		{"without exp", "Bearer " + i.token(t, key, now, func(_, claims map[string]any) { delete(claims, "exp") }), 401, `{"message":"Token claims invalid: [\"exp\"]=\"token expired\""}`},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			got := call(gateway, c.authorization)
			require.Equal(t, c.status, got.status)
			require.JSONEq(t, c.body, got.body)
			require.Equal(t, "application/json", got.header.Get("Content-Type"))
		})
	}
}

func TestGateway_FollowsIssuersKeys(t *testing.T) {
	t.Parallel()
	oldKey, newKey := testKeys()["rsa"], testKeys()["other"]
	forEncryption := newKey.jwk()
	forEncryption.Use = "enc"
	i := newIssuer(t, oldKey.jwk(), forEncryption)
	now := time.Now()
	gateway := idp.NewGateway(i.URL, i.Client(), func() time.Time { return now })
	withOld, withNew := "Bearer "+i.token(t, oldKey, now), "Bearer "+i.token(t, newKey, now)

	require.Equal(t, http.StatusOK, call(gateway, withOld).status)
	require.Equal(t, http.StatusOK, call(gateway, withOld).status)
	require.Equal(t, http.StatusUnauthorized, call(gateway, withNew).status,
		"an encryption key signs nothing")
	require.EqualValues(t, 1, i.fetches.Load())

	i.keys.Store(&jose.JSONWebKeySet{Keys: []jose.JSONWebKey{newKey.jwk()}})
	require.Equal(t, http.StatusUnauthorized, call(gateway, withNew).status)
	now = now.Add(10 * time.Second)
	require.Equal(t, http.StatusOK, call(gateway, withNew).status)
	require.Equal(t, http.StatusUnauthorized, call(gateway, withOld).status)
	require.EqualValues(t, 2, i.fetches.Load())
}

func TestGateway_RejectsWhileIssuerIsDown(t *testing.T) {
	t.Parallel()
	i := newIssuer(t, testKeys()["rsa"].jwk())
	token := i.token(t, testKeys()["rsa"], time.Now())
	i.Close()
	gateway := idp.NewGateway(i.URL, http.DefaultClient, time.Now)
	require.Equal(t, http.StatusUnauthorized, call(gateway, "Bearer "+token).status)
}
