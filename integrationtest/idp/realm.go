package idp

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"net/http"
	"strings"
	"sync"

	"github.com/go-jose/go-jose/v4"

	"github.com/bcgov/vault-plugin-bcgov-jwt/integrationtest/keycloak"
)

// realm is an issuer with its own key and clients.
type realm struct {
	name       string
	key        jose.JSONWebKey // the private key that signs the tokens
	mu         sync.Mutex
	byID       map[string]*client // by the clients' own ids, which PUT names
	revokedIDs map[string]bool    // the jti of revoked tokens
	users      map[string]string  // a service account's id, by client id
}

// client is one registration, which is immutable; an update replaces it, together with the keys
// that were loaded for it.
type client struct {
	keycloak.Client
	userID string // the service account's
	keys   *keyCache
}

func newRealm(name string, key *rsa.PrivateKey) (*realm, error) {
	id, err := keyID(&key.PublicKey)
	if err != nil {
		return nil, err
	}
	return &realm{
		name:       name,
		key:        jose.JSONWebKey{Key: key, KeyID: id, Algorithm: string(jose.RS256), Use: "sig"},
		byID:       map[string]*client{},
		revokedIDs: map[string]bool{},
		users:      map[string]string{},
	}, nil
}

// keyID returns the id that Keycloak derives for a key without one.
func keyID(public any) (string, error) {
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(der)
	return base64.RawURLEncoding.EncodeToString(sum[:]), nil
}

// put stores a registration under its own id: that of the client with its client id, or else a new
// one.
func (rm *realm) put(representation keycloak.Client) *client {
	rm.mu.Lock()
	defer rm.mu.Unlock()
	if representation.ID == "" {
		representation.ID = newUUID()
		if known := rm.find(representation.ClientID); known != nil {
			representation.ID = known.ID
		}
	}
	userID, known := rm.users[representation.ClientID]
	if !known {
		userID = newUUID()
		rm.users[representation.ClientID] = userID
	}
	c := &client{Client: representation, userID: userID, keys: &keyCache{}}
	rm.byID[c.ID] = c
	return c
}

func (rm *realm) client(clientID string) *client {
	rm.mu.Lock()
	defer rm.mu.Unlock()
	return rm.find(clientID)
}

func (rm *realm) clientByID(id string) *client {
	rm.mu.Lock()
	defer rm.mu.Unlock()
	return rm.byID[id]
}

// find requires the lock to be held.
func (rm *realm) find(clientID string) *client {
	for _, c := range rm.byID {
		if c.ClientID == clientID {
			return c
		}
	}
	return nil
}

func (rm *realm) revoke(jti string) {
	rm.mu.Lock()
	defer rm.mu.Unlock()
	rm.revokedIDs[jti] = true
}

func (rm *realm) revoked(jti string) bool {
	rm.mu.Lock()
	defer rm.mu.Unlock()
	return rm.revokedIDs[jti]
}

// baseURL returns the server's own address as the caller wrote it.
func baseURL(r *http.Request) string {
	scheme := "http"
	if r.TLS != nil {
		scheme = "https"
	}
	return scheme + "://" + r.Host
}

func (rm *realm) issuer(r *http.Request) string { return baseURL(r) + "/realms/" + rm.name }

func (rm *realm) endpoint(r *http.Request, path string) string {
	return rm.issuer(r) + "/protocol/openid-connect/" + path
}

func (s *Server) serveDiscovery(w http.ResponseWriter, r *http.Request, rm *realm) {
	w.Header().Set("Cache-Control", "no-cache, must-revalidate, no-transform, no-store")
	writeJSON(w, http.StatusOK, map[string]any{
		"issuer":                 rm.issuer(r),
		"authorization_endpoint": rm.endpoint(r, "auth"),
		"token_endpoint":         rm.endpoint(r, "token"),
		"introspection_endpoint": rm.endpoint(r, "token/introspect"),
		"revocation_endpoint":    rm.endpoint(r, "revoke"),
		"jwks_uri":               rm.endpoint(r, "certs"),
		"grant_types_supported":  []string{"client_credentials"},
		"token_endpoint_auth_methods_supported": []string{
			"private_key_jwt", "client_secret_basic", "client_secret_post",
		},
		"token_endpoint_auth_signing_alg_values_supported": assertionAlgorithms(),
	})
}

func (s *Server) serveCerts(w http.ResponseWriter, _ *http.Request, rm *realm) {
	w.Header().Set("Cache-Control", "no-cache")
	writeJSON(w, http.StatusOK, jose.JSONWebKeySet{Keys: []jose.JSONWebKey{rm.key.Public()}})
}

// newUUID returns a random UUID (RFC 9562 §5.4).
func newUUID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails, by its documentation
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

// serviceAccount returns the name of the user that stands for a client.
func (c *client) serviceAccount() string {
	return "service-account-" + strings.ToLower(c.ClientID)
}
