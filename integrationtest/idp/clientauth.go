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
	maxAge    = 60 // seconds that an assertion lives from its iat, unless the client has another limit
)

// unknownClient is the refusal that tells nothing about the client, not even whether there is one.
func unknownClient() problem { return unauthorized("invalid_client", invalidClientText) }

// authenticateClient finds out who calls, in the order of Keycloak's authentication flow: first the authenticator for secrets looks, which takes client_id at
// its word, then the one for signed JWTs; but only the authenticator that the client is registered for can refuse it with words of its own.
func (s *Server) authenticateClient(r *http.Request, rm *realm) (*client, problem) {
	clientID, secret := secretCredentials(r)
	named := rm.client(clientID)
	if named != nil && (named.PublicClient || named.ClientAuthenticatorType == keycloak.AuthenticatorSecret) {
		return named, named.checkSecret(secret)
	}
	subject, refusal := s.checkAssertion(r, rm)
	switch {
	case refusal.none():
		return subject, problem{}
	case named == nil && subject == nil:
		return nil, unknownClient()
	default:
		return nil, refusal
	}
}

// secretCredentials are those of HTTP Basic or, before them, of the form (RFC 6749 §2.3.1).
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

// assertion is a client assertion (RFC 7523 §3), taken apart.
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

// checkAssertion makes Keycloak's checks in Keycloak's order: parameters, client, algorithm, key and signature, audience, time, jti. The client is nil in a
// refusal that comes before the assertion has named one that is known.
func (s *Server) checkAssertion(r *http.Request, rm *realm) (*client, problem) {
	form := r.PostForm
	var a *assertion
	if form.Has("client_assertion") {
		var err error
		if a, err = parseAssertion(form.Get("client_assertion")); err != nil {
			return nil, badRequest("invalid_client", signedJWTFailed+err.Error())
		}
		if !equal(a.claims.Issuer, a.claims.Subject) {
			return nil, unknownClient() // left for authenticators of assertions that a third party issues
		}
	}
	if refusal := checkParameters(form); !refusal.none() {
		return nil, refusal
	}
	c, refusal := checkSubject(rm, form, a)
	if !refusal.none() {
		return c, refusal
	}
	if pinned := c.Attributes[keycloak.AttributeAlgorithm]; a.header.Algorithm == "" || pinned != "" && pinned != a.header.Algorithm {
		return c, badRequest("invalid_client", "Invalid signature algorithm")
	}
	if refusal := s.checkSignature(r.Context(), c, a); !refusal.none() {
		return c, refusal
	}
	if refusal := checkAudience(r, rm, a.claims.Audience); !refusal.none() {
		return c, refusal
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
		return badRequest("invalid_client", "Parameter client_assertion_type has value '"+kind+"' but expected is '"+assertionType+"'")
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
		rm.issuer(r), rm.endpoint(r, "token"), rm.endpoint(r, "token/introspect"), rm.endpoint(r, "ext/par/request"), rm.endpoint(r, "ext/ciba/auth"),
	}
	switch {
	case !slices.ContainsFunc(given, func(a string) bool { return slices.Contains(expected, a) }):
		return badRequest("invalid_client", "Invalid token audience")
	case len(given) > 1:
		return badRequest("invalid_client", "Multiple audiences not allowed")
	default:
		return problem{}
	}
}

// checkTime checks the assertion's age and, as the last thing of all, that its jti is new.
func (s *Server) checkTime(c *client, a *assertion) problem {
	refuse := func(description string) problem { return badRequest("invalid_client", description) }
	now := seconds(s.options.Now().Unix())
	limit := seconds(maxAge)
	if set, err := strconv.ParseInt(c.Attributes[keycloak.AttributeMaxAge], 10, 64); err == nil {
		limit = seconds(set)
	}
	claims := &a.claims
	if claims.Expiry == nil {
		return refuse("Token exp claim is required")
	}
	if now > *claims.Expiry || claims.NotBefore != nil && now+clockSkew < *claims.NotBefore {
		return refuse("Token is not active")
	}
	lifespan := *claims.Expiry - now
	switch issued := claims.IssuedAt; {
	case issued == nil && lifespan > limit:
		return refuse("Token expiration is too far in the future and iat claim not present in token")
	case issued == nil:
	case *issued-clockSkew > now:
		return refuse("Token was issued in the future")
	case lifespan <= 0:
		return refuse("Token is not active")
	case now > *issued+limit:
		return refuse("Token was issued too far in the past to be used now")
	}
	if claims.ID == nil {
		return refuse("Token jti claim is required")
	}
	// The jti is remembered from now on for at most the limit, although the assertion may live until iat + limit, and iat may lie ahead.
	if !s.rememberJTI(*claims.ID, time.Duration(min(lifespan, limit))*time.Second) {
		return refuse("Token reuse detected")
	}
	return problem{}
}
