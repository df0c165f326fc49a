package idp

import (
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/asn1"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/bcgov/vault-plugin-bcgov-jwt/integrationtest/keycloak"
)

const (
	jwksTimeout      = 5 * time.Second
	minReloadSeconds = 10 // in which the keys of one client are not loaded again
)

func assertionAlgorithms() []jose.SignatureAlgorithm {
	return []jose.SignatureAlgorithm{
		jose.RS256, jose.RS384, jose.RS512, jose.PS256, jose.PS384, jose.PS512,
		jose.ES256, jose.ES384, jose.ES512, jose.EdDSA,
	}
}

// clientKey is one public key of a client.
type clientKey struct {
	jose.JSONWebKey
	fromJWKS      bool
	isCertificate bool
}

// assumedAlgorithm returns the algorithm of an assertion without a key id for which this key is
// tried. Keycloak knows the curve of a pasted EC key only by its bytes, and treats it as an RSA key
// here.
func (k clientKey) assumedAlgorithm() string {
	if k.Algorithm != "" {
		return k.Algorithm
	}
	switch key := k.Key.(type) {
	case ed25519.PublicKey:
		return string(jose.EdDSA)
	case *ecdsa.PublicKey:
		if k.fromJWKS {
			bySize := map[int]string{256: "ES256", 384: "ES384", 521: "ES512"}
			return bySize[key.Curve.Params().BitSize]
		}
	}
	return string(jose.RS256)
}

// keyCache holds the keys that were loaded for a client, pasted ones too, with the second in which
// they were loaded.
type keyCache struct {
	mu       sync.Mutex
	loaded   bool
	keys     []clientKey
	loadedAt int64
}

// get returns the keys that were loaded last, and whether that was too recently to load them again.
func (c *keyCache) get(now int64) (keys []clientKey, recent bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.keys, c.loaded && now <= c.loadedAt+minReloadSeconds
}

func (c *keyCache) set(keys []clientKey, at int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.keys, c.loaded, c.loadedAt = keys, true, at
}

// checkSignature finds the key that the assertion names and verifies the signature with it.
func (s *Server) checkSignature(ctx context.Context, c *client, a *assertion) problem {
	key, err := s.clientKey(ctx, c, a.header.KeyID, a.header.Algorithm)
	if err != nil {
		return badRequest("invalid_client",
			signedJWTFailed+"Error when loading public keys: "+err.Error())
	}
	if key == nil {
		return badRequest("invalid_client", "Unable to load public key")
	}
	if !key.verifies(a) {
		return badRequest("invalid_client",
			signedJWTFailed+"Signature on JWT token failed validation")
	}
	return problem{}
}

func (k *clientKey) verifies(a *assertion) bool {
	if k.Algorithm != "" && k.Algorithm != a.header.Algorithm {
		return false
	}
	jws, err := jose.ParseSignedCompact(a.compact, assertionAlgorithms())
	if err != nil {
		return false
	}
	_, err = jws.Verify(k.Key)
	return err == nil
}

// clientKey returns a key, or nil. It first searches the keys that are loaded; if that fails it
// loads them again, unless they were loaded recently. Without a key id only recently loaded keys
// are trusted.
func (s *Server) clientKey(ctx context.Context, c *client, kid, alg string) (*clientKey, error) {
	now := s.options.Now().Unix()
	keys, recent := c.keys.get(now)
	if kid != "" || recent {
		if key := findKey(keys, kid, alg); key != nil {
			return key, nil
		}
	}
	if recent {
		return nil, nil
	}
	_, err, _ := s.keyLoads.Do(c.ID, func() (any, error) {
		if _, recent := c.keys.get(now); recent {
			return nil, nil // another request has loaded them
		}
		keys, err := s.loadKeys(ctx, c)
		if err == nil {
			c.keys.set(keys, now)
		}
		return nil, err
	})
	if err != nil {
		return nil, err
	}
	keys, _ = c.keys.get(now)
	return findKey(keys, kid, alg), nil
}

// findKey prefers a key with the id and the algorithm, then one with the id. For an assertion
// without a key id it returns the first key that fits its algorithm, or a certificate's in any
// case.
func findKey(keys []clientKey, kid, alg string) *clientKey {
	matches := []func(clientKey) bool{
		func(k clientKey) bool { return k.KeyID == kid && k.Algorithm == alg },
		func(k clientKey) bool { return k.KeyID == kid },
	}
	if kid == "" {
		matches = append(matches,
			func(k clientKey) bool { return k.assumedAlgorithm() == alg },
			func(k clientKey) bool { return k.isCertificate })
	}
	for _, match := range matches {
		for i := range keys {
			if match(keys[i]) {
				return &keys[i]
			}
		}
	}
	return nil
}

func (s *Server) loadKeys(ctx context.Context, c *client) ([]clientKey, error) {
	if c.Attributes[keycloak.AttributeUseJWKSURL] == "true" {
		return s.fetchKeys(ctx, c.Attributes[keycloak.AttributeJWKSURL])
	}
	pasted := c.Attributes[keycloak.AttributePublicKey]
	certificate := c.Attributes[keycloak.AttributeCertificate]
	var (
		key clientKey
		err error
	)
	switch {
	case (pasted == "") == (certificate == ""):
		return nil, nil // neither or both: Keycloak then acts as if there were none
	case pasted != "":
		key.Key, err = parsePublicKey(pasted)
	default:
		key.isCertificate = true
		key.Key, err = parseCertificate(certificate)
	}
	if err != nil {
		return nil, err
	}
	if key.KeyID = c.Attributes[keycloak.AttributeKeyID]; key.KeyID == "" {
		key.KeyID, err = keyID(key.Key)
	}
	return []clientKey{key}, err
}

// fetchKeys fetches a JWKS document. It skips keys that are not for signatures, and keys that it
// does not understand.
func (s *Server) fetchKeys(ctx context.Context, jwksURL string) ([]clientKey, error) {
	body, err := s.fetch(ctx, jwksURL)
	if err != nil {
		return nil, err
	}
	var document struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if err := json.Unmarshal(body, &document); err != nil {
		return nil, fmt.Errorf("com.fasterxml.jackson.core.JsonParseException: %w", err)
	}
	var keys []clientKey
	for _, raw := range document.Keys {
		key := clientKey{fromJWKS: true}
		if key.UnmarshalJSON(raw) == nil && (key.Use == "" || key.Use == "sig") {
			keys = append(keys, key)
		}
	}
	return keys, nil
}

// fetch returns the document at a URL; its errors are those of Keycloak's HTTP client.
func (s *Server) fetch(ctx context.Context, target string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, target, nil)
	if err != nil {
		return nil, err
	}
	resp, err := s.jwks.Do(req)
	if err != nil {
		return nil, javaError(err, req.URL)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("org.apache.http.client.HttpResponseException: "+
			"status code: %d, reason phrase: %s", resp.StatusCode, http.StatusText(resp.StatusCode))
	}
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, javaError(err, req.URL)
	}
	return body, nil
}

func javaError(err error, target *url.URL) error {
	var netErr net.Error
	if errors.As(err, &netErr) && netErr.Timeout() {
		return errors.New("java.net.SocketTimeoutException: Read timed out")
	}
	return fmt.Errorf("org.apache.http.conn.HttpHostConnectException: "+
		"Connect to %s [/%s] failed: Connection refused", target.Host, target.Hostname())
}

var (
	pemBoundary = regexp.MustCompile(`-----(BEGIN|END) .*-----`)
	notBase64   = regexp.MustCompile(`[^A-Za-z0-9+/=]`)
)

// parsePublicKey parses what was pasted as a public key: PEM, or its base64 body alone. Keycloak
// removes the dashed lines without reading them, and its lenient base64 decodes anything; so a
// certificate and a private key fail only because of their structure.
func parsePublicKey(pasted string) (any, error) {
	body := notBase64.ReplaceAllString(pemBoundary.ReplaceAllString(pasted, ""), "")
	der, _ := base64.RawStdEncoding.DecodeString(strings.TrimRight(body, "="))
	key, err := x509.ParsePKIXPublicKey(der)
	if err != nil {
		return nil, errors.New("java.lang.RuntimeException: " +
			"org.keycloak.common.util.PemException: " +
			"java.security.spec.InvalidKeySpecException: encoded key spec not recognized: " +
			notSPKI(der))
	}
	return key, nil
}

// notSPKI returns the error of Keycloak's ASN.1 parser for bytes that are not a
// SubjectPublicKeyInfo (RFC 5280 §4.1), a sequence of two members, the first of which is a
// sequence.
func notSPKI(der []byte) string {
	if len(der) == 0 {
		return `Cannot invoke "Object.getClass()" because "<parameter1>" is null`
	}
	var members []asn1.RawValue
	if _, err := asn1.Unmarshal(der, &members); err != nil {
		return "failed to construct sequence from byte[]: EOF found reading length"
	}
	if len(members) != 2 {
		return fmt.Sprintf("Bad sequence size: %d", len(members))
	}
	return "unknown object in getInstance: org.bouncycastle.asn1.ASN1Integer"
}

func parseCertificate(text string) (any, error) {
	block, _ := pem.Decode([]byte(text))
	if block == nil {
		return nil, errors.New("java.lang.RuntimeException: org.keycloak.common.util.PemException")
	}
	certificate, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, err
	}
	return certificate.PublicKey, nil
}
