package idp

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// keyReloadInterval is how soon the gateway fetches the issuer's keys again if none fits (Kong's
// iss_key_grace_period).
const keyReloadInterval = 10 * time.Second

// Gateway is an http.Handler: an API behind an API gateway that checks the bearer token as Kong's
// jwt-keycloak plugin does: offline, with the issuer's published keys; issuer, signature and
// expiry, no audience; so a revoked token passes until it expires. Without a valid token the
// response is 401 with a JSON message; with one it is 200 with the request's headers, except
// Authorization, whatever the path. It is safe for concurrent use.
type Gateway struct {
	issuer string
	client *http.Client
	now    func() time.Time

	mu       sync.Mutex
	keys     []jose.JSONWebKey
	loadedAt time.Time
}

// NewGateway returns a gateway that accepts the tokens of an issuer. It fetches the discovery
// document and the keys with client.
func NewGateway(issuer string, client *http.Client, now func() time.Time) *Gateway {
	return &Gateway{issuer: issuer, client: client, now: now}
}

// ServeHTTP implements http.Handler.
func (g *Gateway) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if status, message := g.check(r); message != "" {
		writeJSON(w, status, map[string]string{"message": message})
		return
	}
	headers := map[string]string{"Host": r.Host}
	for name, values := range r.Header {
		if name != "Authorization" {
			headers[name] = strings.Join(values, ",")
		}
	}
	writeJSON(w, http.StatusOK, map[string]any{"headers": headers})
}

// check returns why the request is rejected, or no message.
func (g *Gateway) check(r *http.Request) (status int, message string) {
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if token = strings.TrimSpace(token); !strings.EqualFold(scheme, "Bearer") || token == "" {
		return http.StatusUnauthorized, "Unauthorized"
	}
	// All signature algorithms are parsed here, to distinguish a wrong one from what is not a
	// token.
	algorithms := append(assertionAlgorithms(), jose.HS256, jose.HS384, jose.HS512)
	jws, err := jose.ParseSignedCompact(token, algorithms)
	if err != nil {
		return http.StatusUnauthorized, "Bad token; invalid JSON"
	}
	var claims struct {
		Issuer string  `json:"iss"`
		Expiry float64 `json:"exp"`
	}
	if json.Unmarshal(jws.UnsafePayloadWithoutVerification(), &claims) != nil {
		return http.StatusUnauthorized, "Bad token; invalid JSON"
	}
	if claims.Issuer != g.issuer {
		return http.StatusUnauthorized, "Token issuer not allowed"
	}
	if jws.Signatures[0].Header.Algorithm != string(jose.RS256) {
		return http.StatusForbidden, "Invalid algorithm"
	}
	if !g.verify(r.Context(), jws) {
		return http.StatusUnauthorized, "Invalid token signature"
	}
	if claims.Expiry <= float64(g.now().Unix()) {
		return http.StatusUnauthorized, `Token claims invalid: ["exp"]="token expired"`
	}
	return http.StatusOK, ""
}

// verify tries the issuer's keys, and fetches them again if none fits and they are not fresh.
func (g *Gateway) verify(ctx context.Context, jws *jose.JSONWebSignature) bool {
	g.mu.Lock()
	keys, fresh := g.keys, g.keys != nil && g.now().Before(g.loadedAt.Add(keyReloadInterval))
	g.mu.Unlock()
	if verifiesWithAny(jws, keys) {
		return true
	}
	if fresh {
		return false
	}
	keys, err := g.fetchKeys(ctx)
	if err != nil {
		return false
	}
	g.mu.Lock()
	g.keys, g.loadedAt = keys, g.now()
	g.mu.Unlock()
	return verifiesWithAny(jws, keys)
}

func verifiesWithAny(jws *jose.JSONWebSignature, keys []jose.JSONWebKey) bool {
	return slices.ContainsFunc(keys, func(key jose.JSONWebKey) bool {
		_, err := jws.Verify(key)
		return key.Use == "sig" && err == nil
	})
}

func (g *Gateway) fetchKeys(ctx context.Context) ([]jose.JSONWebKey, error) {
	var configuration struct {
		JWKSURI string `json:"jwks_uri"`
	}
	discovery := g.issuer + "/.well-known/openid-configuration"
	if err := g.getJSON(ctx, discovery, &configuration); err != nil {
		return nil, err
	}
	var set jose.JSONWebKeySet
	err := g.getJSON(ctx, configuration.JWKSURI, &set)
	return set.Keys, err
}

func (g *Gateway) getJSON(ctx context.Context, target string, into any) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, target, nil)
	if err != nil {
		return err
	}
	resp, err := g.client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", target, resp.Status)
	}
	return json.NewDecoder(resp.Body).Decode(into)
}
