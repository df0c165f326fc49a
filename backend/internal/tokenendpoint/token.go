package tokenendpoint

import (
	"context"
	"encoding/base64"
	"math"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4/json"
)

// maxLifetime is what a longer life counts as.
const maxLifetime = 24 * time.Hour

// Token is the answer to a token request (RFC 6749 §5.1).
type Token struct {
	AccessToken string `json:"-"`
	Type        string // always Bearer
	Scope       string // the scope granted
	HasScope    bool   // whether the provider said a scope at all: absent means "as asked" (RFC 6749 §5.1)

	RequestedAt time.Time     // start of the attempt that succeeded
	Lifetime    time.Duration // counts from RequestedAt; whole seconds, from 1 s to 24 h
	IsJWT       bool          // whether the token is a JWT (RFC 7519), by its form alone
	Expiry      time.Time     // a JWT's own `exp`, zero without one
	JTI         string        // a JWT's own `jti`, otherwise empty
	ServerTime  time.Time     // the answer's Date header, zero without one
}

// String hides the token, under every verb of fmt.
func (t Token) String() string { return "[token]" }

// GoString hides the token from %#v.
func (t Token) GoString() string { return "[token]" }

// RequestToken posts a form to the token endpoint. form is called once for each attempt, because an assertion may be used
// only once; its error ends the request and is returned as it is. Any other error is an *Error.
func (c *Client) RequestToken(ctx context.Context, endpoint string, form func() (url.Values, error)) (*Token, error) {
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

// success returns the members of a 200 answer that reports no error. Its own error is an *Error.
func (c *call) success(ctx context.Context, r *response) (jsonObject, error) {
	if r.status != http.StatusOK {
		return nil, c.rejected(r)
	}
	members, err := r.object()
	if err != nil {
		return nil, c.unusable(ctx, r, err)
	}
	if members.has("error") {
		return nil, c.rejected(r)
	}
	return members, nil
}

// parseToken applies the rules for a token answer. Its error is an *answerError.
func parseToken(members jsonObject, r *response) (*Token, error) {
	t := &Token{Type: "Bearer", RequestedAt: r.startedAt, ServerTime: r.serverTime}
	var valid bool

	t.AccessToken, valid = members.string("access_token")
	switch {
	case !members.has("access_token"):
		return nil, invalidAnswer("`access_token` is missing")
	// RFC 6749 appendix A.12 allows a space, but a Bearer header could not carry one (RFC 6750 §2.1).
	case !valid, t.AccessToken == "", !printable(t.AccessToken, ""):
		return nil, invalidAnswer("`access_token` is not a string of visible ASCII characters")
	}
	if err := checkTokenType(members); err != nil {
		return nil, err
	}
	t.HasScope = members.has("scope")
	t.Scope, valid = members.string("scope")
	if !valid || !printable(t.Scope, " ") {
		return nil, invalidAnswer("`scope` is not a string of visible ASCII characters and spaces")
	}
	if strings.Contains(t.Scope, jwtStart) { // scopes are shown in the clear
		return nil, invalidAnswer("`scope` holds what looks like a JWT")
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

// checkTokenType takes Bearer in any letter case (RFC 6749 §5.1). Any other kind needs more than the token to be used.
func checkTokenType(members jsonObject) error {
	kind, valid := members.string("token_type")
	switch {
	case !valid:
		return invalidAnswer("`token_type` is not a string")
	case strings.EqualFold(kind, "Bearer"):
		return nil
	case kind == "":
		return invalidAnswer("`token_type` is missing")
	case strings.EqualFold(kind, "DPoP"):
		return invalidAnswer("`token_type` is DPoP, and only Bearer is supported")
	default:
		return invalidAnswer("`token_type` is not Bearer")
	}
}

// lifetime is `expires_in` and, where that is missing, what a JWT says itself.
func lifetime(members, claims jsonObject, r *response) (time.Duration, error) {
	if !members.has("expires_in") {
		return lifetimeOfClaims(claims, r)
	}
	// Digits only: no sign, fraction or exponent. A string of digits is what some providers send.
	text := string(members["expires_in"])
	if unquoted, isString := members.string("expires_in"); isString {
		text = unquoted
	}
	seconds, err := strconv.ParseUint(text, 10, 63)
	if err != nil || seconds == 0 {
		return 0, invalidAnswer("`expires_in` is not a whole positive number of seconds")
	}
	return capLifetime(float64(seconds)), nil
}

// lifetimeOfClaims takes the shorter of what is left of `exp` by our clock and the span from `iat`: the first is wrong
// when the clocks differ, the second when the provider gave out an older token again.
func lifetimeOfClaims(claims jsonObject, r *response) (time.Duration, error) {
	expiry, ok := claims.number("exp")
	if !ok {
		return 0, invalidAnswer("`expires_in` is missing, and the token does not say itself when it expires")
	}
	seconds := expiry - float64(r.startedAt.UnixMilli())/1000
	if issued, ok := claims.number("iat"); ok {
		seconds = min(seconds, expiry-issued)
	}
	if seconds < 1 {
		return 0, &answerError{TokenExpired, "the token has already expired"}
	}
	return capLifetime(seconds), nil
}

func capLifetime(seconds float64) time.Duration {
	return time.Duration(math.Min(math.Floor(seconds), maxLifetime.Seconds())) * time.Second
}

// number returns a member that is a finite number.
func (o jsonObject) number(name string) (float64, bool) {
	var number float64
	if !o.has(name) || json.Unmarshal(o[name], &number) != nil {
		return 0, false
	}
	return number, true
}

// unverifiedClaims reads a JWT's payload (RFC 7519 §3) and returns nil for any other token. The signature is for the
// resource server to check: these claims only help to find the token and to know its end.
func unverifiedClaims(token string) jsonObject {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return nil
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return nil
	}
	claims, err := parseObject(payload)
	if err != nil {
		return nil
	}
	return claims
}
