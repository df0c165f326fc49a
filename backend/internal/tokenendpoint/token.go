package tokenendpoint

import (
	"context"
	"encoding/base64"
	"math"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// maxLifetime caps the lifetime of a token.
const maxLifetime = 24 * time.Hour

// Token is a successful token response (RFC 6749 §5.1).
type Token struct {
	AccessToken string `json:"-"`
	Type        string // always Bearer
	Scope       string // as granted
	HasScope    bool   // false: the scope granted is the one requested (RFC 6749 §5.1)

	RequestedAt time.Time     // start of the attempt that succeeded
	Lifetime    time.Duration // from RequestedAt on; whole seconds, from 1 s to 24 h
	IsJWT       bool          // whether the token has the form of a JWT (RFC 7519)
	Expiry      time.Time     // a JWT's `exp`, zero without one
	JTI         string        // a JWT's `jti`, empty without one
}

// String hides the token from fmt.
func (t Token) String() string { return "[token]" }

// GoString hides the token from %#v.
func (t Token) GoString() string { return "[token]" }

// RequestToken posts a form to the token endpoint. form is called for each attempt, because an
// assertion may be used only once; its error ends the request and is returned unchanged. Any other
// error is an *Error.
func (c *Client) RequestToken(
	ctx context.Context, endpoint string, form func() (url.Values, error),
) (*Token, error) {
	call, err := c.newCall(OpToken, endpoint, form)
	if err != nil {
		return nil, err
	}
	resp, err := call.run(ctx)
	if err != nil {
		return nil, err
	}
	members, err := call.success(ctx, resp)
	if err != nil {
		return nil, err
	}
	token, err := parseToken(members, resp)
	if err != nil {
		return nil, call.unusable(ctx, resp, err)
	}
	return token, nil
}

// parseToken validates a token response. Its error is a *responseError.
func parseToken(members jsonObject, r *response) (*Token, error) {
	t := &Token{Type: "Bearer", RequestedAt: r.startedAt}
	var valid bool

	t.AccessToken, valid = members.string("access_token")
	switch {
	case !members.has("access_token"):
		return nil, malformed("`access_token` is missing")
	// RFC 6749 appendix A.12 allows a space, but a Bearer header cannot carry one (RFC 6750 §2.1).
	case !valid, t.AccessToken == "", !printable(t.AccessToken, ""):
		return nil, malformed("`access_token` is not a string of visible ASCII characters")
	}
	if err := checkTokenType(members); err != nil {
		return nil, err
	}
	t.HasScope = members.has("scope")
	t.Scope, valid = members.string("scope")
	if !valid || !printable(t.Scope, " ") {
		return nil, malformed("`scope` is not a string of visible ASCII characters and spaces")
	}
	if strings.Contains(t.Scope, jwtStart) { // scopes are shown in plaintext
		return nil, malformed("`scope` contains what looks like a JWT")
	}
	claims := unverifiedClaims(t.AccessToken)
	t.IsJWT = claims != nil
	if expiry, ok := claims.number("exp"); ok && math.Abs(expiry) < 1<<40 {
		t.Expiry = time.Unix(int64(expiry), 0)
	}
	if jti := claims.text("jti"); len(jti) <= 256 && printable(jti, "") {
		t.JTI = jti
	}
	var err error
	t.Lifetime, err = lifetime(members, claims, r)
	return t, err
}

// checkTokenType accepts Bearer in any letter case (RFC 6749 §5.1). Others need more than a token.
func checkTokenType(members jsonObject) error {
	kind, valid := members.string("token_type")
	switch {
	case !valid:
		return malformed("`token_type` is not a string")
	case strings.EqualFold(kind, "Bearer"):
		return nil
	case kind == "":
		return malformed("`token_type` is missing")
	case strings.EqualFold(kind, "DPoP"):
		return malformed("`token_type` is DPoP; only Bearer is supported")
	default:
		return malformed("`token_type` is not Bearer")
	}
}

// lifetime returns `expires_in` or, without that, the lifetime of a JWT.
func lifetime(members, claims jsonObject, r *response) (time.Duration, error) {
	if !members.has("expires_in") {
		return lifetimeOfClaims(claims, r)
	}
	// Digits only: no sign, fraction or exponent. Some providers send them as a string.
	text := string(members["expires_in"])
	if unquoted, isString := members.string("expires_in"); isString {
		text = unquoted
	}
	seconds, err := strconv.ParseUint(text, 10, 63)
	if err != nil || seconds == 0 {
		return 0, malformed("`expires_in` is not a positive whole number of seconds")
	}
	return capLifetime(float64(seconds)), nil
}

// lifetimeOfClaims returns the time to `exp` by our clock or the span from `iat`, whichever is
// shorter: the first is wrong if the clocks differ, the second if the provider issues an older
// token again.
func lifetimeOfClaims(claims jsonObject, r *response) (time.Duration, error) {
	expiry, ok := claims.number("exp")
	if !ok {
		return 0, malformed("`expires_in` is missing, and the token has no valid `exp`")
	}
	seconds := expiry - float64(r.startedAt.UnixMilli())/1000
	if issued, ok := claims.number("iat"); ok {
		seconds = min(seconds, expiry-issued)
	}
	if seconds < 1 {
		return 0, &responseError{TokenExpired, "the token has already expired"}
	}
	return capLifetime(seconds), nil
}

func capLifetime(seconds float64) time.Duration {
	return time.Duration(math.Min(math.Floor(seconds), maxLifetime.Seconds())) * time.Second
}

// unverifiedClaims returns a JWT's claims (RFC 7519 §3), nil for any other token. The signature is
// the resource server's to verify: the claims only identify the token and show when it expires.
func unverifiedClaims(token string) jsonObject {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return nil
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return nil
	}
	claims, _ := parseObject(payload)
	return claims
}

// Revoke posts a form to the revocation endpoint (RFC 7009 §2.1), with form and errors as in
// RequestToken. Any 2xx is a success, whatever its body: Keycloak responds 200 with an `error` to
// an unknown token, which is as good as revoked (RFC 7009 §2.2).
func (c *Client) Revoke(
	ctx context.Context, endpoint string, form func() (url.Values, error),
) error {
	call, err := c.newCall(OpRevocation, endpoint, form)
	if err != nil {
		return err
	}
	resp, err := call.run(ctx)
	if err != nil {
		return err
	}
	if resp.status < 200 || resp.status > 299 {
		return call.rejected(resp)
	}
	return nil
}
