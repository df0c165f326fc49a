package idp

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"github.com/bcgov/vault-plugin-bcgov-jwt/integrationtest/keycloak"
)

// tokenLifespan is the default lifetime of an access token in seconds.
const tokenLifespan = 300

// tokenClaims holds the claims of an access token or, with Audience and TokenHash, of an ID token.
// An access token has no aud: Keycloak sets it only for the roles of other clients.
type tokenClaims struct {
	Expiry        int64   `json:"exp"`
	IssuedAt      int64   `json:"iat"`
	ID            string  `json:"jti"`
	Issuer        string  `json:"iss"`
	Audience      string  `json:"aud,omitempty"`
	Subject       string  `json:"sub"`
	Type          string  `json:"typ"`
	Party         string  `json:"azp"`
	TokenHash     string  `json:"at_hash,omitempty"`
	Scope         *string `json:"scope,omitempty"`
	ClientHost    string  `json:"clientHost"`
	ClientAddress string  `json:"clientAddress"`
	ClientID      string  `json:"client_id"`
}

// serveToken serves the token endpoint (RFC 6749 §4.4), with Keycloak's order of checks: grant
// type, client, duplicated parameters, service account, scope.
func (s *Server) serveToken(w http.ResponseWriter, r *http.Request, rm *realm) {
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("Pragma", "no-cache")
	_ = r.ParseForm() // what cannot be parsed is absent, and is rejected as such
	if rejection := checkGrantType(r.PostForm); !rejection.none() {
		writeProblem(w, rejection)
		return
	}
	c, rejection := s.authenticateClient(r, rm)
	if !rejection.none() {
		writeProblem(w, rejection)
		return
	}
	if rejection := checkGrant(c, r.PostForm); !rejection.none() {
		writeProblem(w, rejection)
		return
	}
	scopes, rejection := grantedScopes(c, r.PostForm.Get("scope"))
	if !rejection.none() {
		writeProblem(w, rejection)
		return
	}
	response, err := s.issue(r, rm, c, scopes)
	if err != nil {
		writeProblem(w, problem{http.StatusInternalServerError, "unknown_error", ""})
		return
	}
	writeJSON(w, http.StatusOK, response)
}

func checkGrantType(form url.Values) problem {
	switch {
	case !form.Has("grant_type"):
		return badRequest("invalid_request", "Missing form parameter: grant_type")
	case form.Get("grant_type") != "client_credentials":
		return badRequest("unsupported_grant_type", "Unsupported grant_type")
	default:
		return problem{}
	}
}

func checkGrant(c *client, form url.Values) problem {
	switch {
	case c.BearerOnly:
		return badRequest("invalid_client", "Bearer-only not allowed")
	case duplicated(form):
		return badRequest("invalid_request", "duplicated parameter")
	case c.PublicClient:
		return unauthorized("unauthorized_client",
			"Public client not allowed to retrieve service account")
	case !c.ServiceAccountsEnabled:
		return unauthorized("unauthorized_client", "Client not enabled to retrieve service account")
	default:
		return problem{}
	}
}

func duplicated(form url.Values) bool {
	for _, values := range form {
		if len(values) > 1 {
			return true
		}
	}
	return false
}

// grantedScopes returns the client's default scopes, requested or not, and those of its optional
// ones that were requested. Every client may request openid.
func grantedScopes(c *client, requested string) ([]string, problem) {
	granted := slices.Clone(c.DefaultClientScopes)
	for scope := range strings.FieldsSeq(requested) {
		switch {
		case slices.Contains(granted, scope):
		case scope == "openid" || slices.Contains(c.OptionalClientScopes, scope):
			granted = append(granted, scope)
		default:
			return nil, badRequest("invalid_scope", "Invalid scopes: "+requested)
		}
	}
	return granted, problem{}
}

func (s *Server) issue(
	r *http.Request, rm *realm, c *client, scopes []string,
) (response map[string]any, err error) {
	lifespan := int64(tokenLifespan)
	own, err := strconv.ParseInt(c.Attributes[keycloak.AttributeTokenLifespan], 10, 64)
	if err == nil {
		lifespan = own
	}
	address, _, _ := net.SplitHostPort(r.RemoteAddr)
	scope := strings.Join(scopes, " ")
	now := s.options.Now().Unix()
	access := tokenClaims{
		Expiry: now + lifespan, IssuedAt: now, ID: "trrtcc:" + newUUID(), Issuer: rm.issuer(r),
		Subject: c.userID, Type: "Bearer", Party: c.ClientID, Scope: &scope,
		ClientHost: address, ClientAddress: address, ClientID: c.ClientID,
	}
	accessToken, err := rm.sign(access)
	if err != nil {
		return nil, err
	}
	response = map[string]any{
		"access_token": accessToken, "expires_in": lifespan, "refresh_expires_in": 0,
		"token_type": "Bearer", "not-before-policy": 0, "scope": scope,
	}
	if slices.Contains(scopes, "openid") {
		identity := access
		identity.ID, identity.Type = newUUID(), "ID"
		identity.Audience, identity.Scope = c.ClientID, nil
		hash := sha256.Sum256([]byte(accessToken))
		// OpenID Connect Core §3.1.3.6
		identity.TokenHash = base64.RawURLEncoding.EncodeToString(hash[:len(hash)/2])
		if response["id_token"], err = rm.sign(identity); err != nil {
			return nil, err
		}
	}
	return response, nil
}

func (rm *realm) sign(claims any) (string, error) {
	key := jose.SigningKey{Algorithm: jose.RS256, Key: rm.key}
	signer, err := jose.NewSigner(key, (&jose.SignerOptions{}).WithType("JWT"))
	if err != nil {
		return "", err
	}
	return jwt.Signed(signer).Claims(claims).Serialize()
}

// read returns the claims of a token of this realm, or nil if it is not one. It does not check its
// expiry.
func (rm *realm) read(token string) *tokenClaims {
	jws, err := jose.ParseSignedCompact(token, []jose.SignatureAlgorithm{jose.RS256})
	if err != nil {
		return nil
	}
	payload, err := jws.Verify(rm.key.Public())
	if err != nil {
		return nil
	}
	var claims tokenClaims
	if json.Unmarshal(payload, &claims) != nil {
		return nil
	}
	return &claims
}

// serveRevocation serves the revocation endpoint (RFC 7009). The response to what is not a token is
// 200 with an error in the body; to a token that is revoked already, 200 without a body.
func (s *Server) serveRevocation(w http.ResponseWriter, r *http.Request, rm *realm) {
	_ = r.ParseForm()
	c, rejection := s.authenticateClient(r, rm)
	if !rejection.none() {
		writeProblem(w, rejection)
		return
	}
	claims, rejection := checkRevocation(rm, c, r.PostForm)
	if !rejection.none() {
		writeProblem(w, rejection)
		return
	}
	rm.revoke(claims.ID)
	setSecurityHeaders(w.Header())
	w.Header().Set("Content-Security-Policy",
		"frame-src 'self'; frame-ancestors 'self'; object-src 'none';")
	w.WriteHeader(http.StatusOK)
}

func checkRevocation(rm *realm, c *client, form url.Values) (*tokenClaims, problem) {
	if duplicated(form) {
		return nil, badRequest("invalid_request", "duplicated parameter")
	}
	if !form.Has("token") {
		return nil, badRequest("invalid_request", "Token not provided")
	}
	claims := rm.read(form.Get("token"))
	if claims == nil {
		return nil, problem{http.StatusOK, "invalid_token", "Invalid token"}
	}
	if claims.Party != c.ClientID {
		return nil, badRequest("invalid_request", "Unmatching clients")
	}
	return claims, problem{}
}

// serveIntrospection serves the introspection endpoint (RFC 7662), open to every confidential
// client.
func (s *Server) serveIntrospection(w http.ResponseWriter, r *http.Request, rm *realm) {
	w.Header().Set("Cache-Control", "no-cache")
	_ = r.ParseForm()
	switch _, rejection := s.authenticateClient(r, rm); {
	case !rejection.none():
		writeProblem(w, unauthorized("invalid_request", "Authentication failed."))
	case duplicated(r.PostForm):
		writeProblem(w, badRequest("invalid_request", "duplicated parameter"))
	case !r.PostForm.Has("token"):
		writeProblem(w, badRequest("invalid_request", "Token not provided."))
	default:
		writeJSON(w, http.StatusOK, s.introspect(rm, r.PostForm.Get("token")))
	}
}

func (s *Server) introspect(rm *realm, token string) map[string]any {
	claims := rm.read(token)
	if claims == nil || s.options.Now().Unix() > claims.Expiry || rm.revoked(claims.ID) {
		return map[string]any{"active": false}
	}
	c := rm.client(claims.Party)
	if c == nil || !c.Enabled {
		return map[string]any{"active": false}
	}
	response := map[string]any{
		"exp": claims.Expiry, "iat": claims.IssuedAt, "jti": claims.ID, "iss": claims.Issuer,
		"sub": claims.Subject, "typ": claims.Type, "azp": claims.Party, "client_id": claims.Party,
		"username": c.serviceAccount(), "token_type": claims.Type, "active": true,
	}
	if *claims.Scope != "" {
		response["scope"] = *claims.Scope
	}
	return response
}
