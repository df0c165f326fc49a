package idp

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"math"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/bcgov/vault-plugin-bcgov-jwt/integrationtest/keycloak"
)

const (
	assertionType     = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
	invalidClientText = "Invalid client or Invalid client credentials"
	signedJWTFailed   = "Client authentication with signed JWT failed: "

	clockSkew = 15 // seconds that an assertion's iat and nbf may lie ahead
	maxAge    = 60 // seconds that an assertion is valid from iat; a client may have its own limit
)

// unknownClient returns the rejection that reveals nothing about the client, not even whether it
// exists.
func unknownClient() problem { return unauthorized("invalid_client", invalidClientText) }

// authenticateClient identifies the caller, in the order of Keycloak's authentication flow: first
// the authenticator for secrets, which trusts client_id, then the one for signed JWTs. Only the
// authenticator that the client is registered for rejects it with a description of its own.
func (s *Server) authenticateClient(r *http.Request, rm *realm) (*client, problem) {
	clientID, secret := secretCredentials(r)
	named := rm.client(clientID)
	bySecret := named != nil && named.ClientAuthenticatorType == keycloak.AuthenticatorSecret
	if bySecret || named != nil && named.PublicClient {
		return named, named.checkSecret(secret)
	}
	subject, rejection := s.checkAssertion(r, rm)
	switch {
	case rejection.none():
		return subject, problem{}
	case named == nil && subject == nil:
		return nil, unknownClient()
	default:
		return nil, rejection
	}
}

// secretCredentials returns those of the form or else of HTTP Basic (RFC 6749 §2.3.1).
func secretCredentials(r *http.Request) (clientID, secret string) {
	if user, password, ok := r.BasicAuth(); ok {
		clientID, _ = url.QueryUnescape(user)
		secret, _ = url.QueryUnescape(password)
	}
	if r.PostForm.Has("client_id") {
		clientID = r.PostForm.Get("client_id")
	}
	if r.PostForm.Has("client_secret") {
		secret = r.PostForm.Get("client_secret")
	}
	return clientID, secret
}

func (c *client) checkSecret(secret string) problem {
	switch {
	case !c.Enabled:
		return unknownClient()
	case c.PublicClient:
		return problem{}
	case secret == "" || secret != c.Secret:
		return unauthorized("unauthorized_client", invalidClientText)
	default:
		return problem{}
	}
}

// assertion is a parsed client assertion (RFC 7523 §3).
type assertion struct {
	compact string
	header  struct {
		Algorithm string `json:"alg"`
		KeyID     string `json:"kid"`
	}
	claims struct {
		Issuer    *string  `json:"iss"`
		Subject   *string  `json:"sub"`
		Audience  audience `json:"aud"`
		Expiry    *seconds `json:"exp"`
		NotBefore *seconds `json:"nbf"`
		IssuedAt  *seconds `json:"iat"`
		ID        *string  `json:"jti"`
	}
}

// audience is one string or a list of them (RFC 7519 §4.1.3).
type audience []string

func (a *audience) UnmarshalJSON(data []byte) error {
	if !bytes.HasPrefix(data, []byte("[")) {
		*a = make(audience, 1)
		return json.Unmarshal(data, &(*a)[0])
	}
	return json.Unmarshal(data, (*[]string)(a))
}

// seconds is a NumericDate (RFC 7519 §2); a fraction is dropped.
type seconds int64

func (s *seconds) UnmarshalJSON(data []byte) error {
	var number float64
	if err := json.Unmarshal(data, &number); err != nil {
		return err
	}
	*s = seconds(math.Trunc(number))
	return nil
}

func parseAssertion(compact string) (*assertion, error) {
	parts := strings.Split(compact, ".")
	if len(parts) < 2 || len(parts) > 3 {
		return nil, errors.New("java.lang.IllegalArgumentException: Parsing error")
	}
	a := &assertion{compact: compact}
	for part, into := range map[string]any{parts[0]: &a.header, parts[1]: &a.claims} {
		decoded, err := base64.RawURLEncoding.DecodeString(part)
		if err != nil {
			return nil, err
		}
		if err := json.Unmarshal(decoded, into); err != nil {
			return nil, err
		}
	}
	return a, nil
}

// checkAssertion performs Keycloak's checks in Keycloak's order: parameters, client, algorithm, key
// and signature, audience, time, jti. The client is nil in a rejection before a known one is
// identified.
func (s *Server) checkAssertion(r *http.Request, rm *realm) (*client, problem) {
	form := r.PostForm
	var a *assertion
	if form.Has("client_assertion") {
		var err error
		if a, err = parseAssertion(form.Get("client_assertion")); err != nil {
			return nil, badRequest("invalid_client", signedJWTFailed+err.Error())
		}
		if !equal(a.claims.Issuer, a.claims.Subject) {
			return nil, unknownClient() // for authenticators of assertions of third parties
		}
	}
	if rejection := checkParameters(form); !rejection.none() {
		return nil, rejection
	}
	c, rejection := checkSubject(rm, form, a)
	if !rejection.none() {
		return c, rejection
	}
	algorithm, pinned := a.header.Algorithm, c.Attributes[keycloak.AttributeAlgorithm]
	if algorithm == "" || pinned != "" && pinned != algorithm {
		return c, badRequest("invalid_client", "Invalid signature algorithm")
	}
	if rejection := s.checkSignature(r.Context(), c, a); !rejection.none() {
		return c, rejection
	}
	if rejection := checkAudience(r, rm, a.claims.Audience); !rejection.none() {
		return c, rejection
	}
	return c, s.checkTime(c, a)
}

func equal(a, b *string) bool {
	return a == nil && b == nil || a != nil && b != nil && *a == *b
}

func checkParameters(form url.Values) problem {
	switch kind := form.Get("client_assertion_type"); {
	case !form.Has("client_assertion_type"):
		return badRequest("invalid_client", "Parameter client_assertion_type is missing")
	case kind != assertionType:
		return badRequest("invalid_client", "Parameter client_assertion_type has value '"+kind+
			"' but expected is '"+assertionType+"'")
	case !form.Has("client_assertion"):
		return badRequest("invalid_client", "client_assertion parameter missing")
	default:
		return problem{}
	}
}

func checkSubject(rm *realm, form url.Values, a *assertion) (*client, problem) {
	if a.claims.Subject == nil {
		return nil, badRequest("invalid_client", "Token sub claim is required")
	}
	if form.Has("client_id") && form.Get("client_id") != *a.claims.Subject {
		return nil, badRequest("invalid_client", "client_id parameter does not match sub claim")
	}
	c := rm.client(*a.claims.Subject)
	if c == nil || !c.Enabled || c.ClientAuthenticatorType != keycloak.AuthenticatorJWT {
		return c, unknownClient()
	}
	return c, problem{}
}

func checkAudience(r *http.Request, rm *realm, given audience) problem {
	expected := []string{
		rm.issuer(r), rm.endpoint(r, "token"), rm.endpoint(r, "token/introspect"),
		rm.endpoint(r, "ext/par/request"), rm.endpoint(r, "ext/ciba/auth"),
	}
	isExpected := func(a string) bool { return slices.Contains(expected, a) }
	switch {
	case !slices.ContainsFunc(given, isExpected):
		return badRequest("invalid_client", "Invalid token audience")
	case len(given) > 1:
		return badRequest("invalid_client", "Multiple audiences not allowed")
	default:
		return problem{}
	}
}

// checkTime checks the assertion's age and, last of all, that its jti is new.
func (s *Server) checkTime(c *client, a *assertion) problem {
	reject := func(description string) problem { return badRequest("invalid_client", description) }
	now := seconds(s.options.Now().Unix())
	limit := seconds(maxAge)
	if own, err := strconv.ParseInt(c.Attributes[keycloak.AttributeMaxAge], 10, 64); err == nil {
		limit = seconds(own)
	}
	claims := &a.claims
	if claims.Expiry == nil {
		return reject("Token exp claim is required")
	}
	if now > *claims.Expiry || claims.NotBefore != nil && now+clockSkew < *claims.NotBefore {
		return reject("Token is not active")
	}
	lifespan := *claims.Expiry - now
	switch issued := claims.IssuedAt; {
	case issued == nil && lifespan > limit:
		return reject("Token expiration is too far in the future " +
			"and iat claim not present in token")
	case issued == nil:
	case *issued-clockSkew > now:
		return reject("Token was issued in the future")
	case lifespan <= 0:
		return reject("Token is not active")
	case now > *issued+limit:
		return reject("Token was issued too far in the past to be used now")
	}
	if claims.ID == nil {
		return reject("Token jti claim is required")
	}
	// The jti is stored from now on for at most the limit, although the assertion may live until
	// iat + limit, and iat may lie ahead.
	if !s.useJTI(*claims.ID, time.Duration(min(lifespan, limit))*time.Second) {
		return reject("Token reuse detected")
	}
	return problem{}
}
