package tokenendpoint

import (
	"context"
	"encoding/base64"
	"errors"
	"math"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4/json"
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

// jsonObject holds a JSON object's members by their exact names.
type jsonObject map[string]json.RawMessage

// responseError is a 200 response that violates the standards. detail quotes nothing of it.
type responseError struct {
	reason Reason
	detail string
}

func (e *responseError) Error() string { return e.detail }

func malformed(detail string) error { return &responseError{InvalidResponse, detail} }

// object returns the body, which must be a JSON object by its media type too. Its error is a
// *responseError, or the network's if the body did not arrive whole.
func (r *response) object() (jsonObject, error) {
	switch {
	case r.bodyErr != nil:
		return nil, r.bodyErr
	case r.mediaType == "":
		return nil, &responseError{NotJSON, "the response is not JSON: it has no Content-Type"}
	case !isJSON(r.mediaType):
		detail := "the response is not JSON but " + sanitizeCode(r.mediaType)
		return nil, &responseError{NotJSON, detail}
	}
	return parseObject(r.body)
}

// isJSON accepts application/json and types such as application/problem+json.
func isJSON(mediaType string) bool {
	return mediaType == "application/json" ||
		strings.HasPrefix(mediaType, "application/") && strings.HasSuffix(mediaType, "+json")
}

// parseObject parses exactly one JSON object. Unlike encoding/json, go-jose's fork rejects
// duplicate names. The error is a *responseError.
func parseObject(text []byte) (jsonObject, error) {
	var members jsonObject
	err := json.Unmarshal(text, &members)
	_, syntax := errors.AsType[*json.SyntaxError](err)
	switch {
	case syntax:
		return nil, malformed("the response is not valid JSON")
	case members == nil: // another type, or null
		return nil, malformed("the response is not a JSON object")
	case err != nil:
		return nil, malformed("the response has a duplicate member")
	}
	return members, nil
}

// has reports whether the member exists and is not null.
func (o jsonObject) has(name string) bool {
	value, ok := o[name]
	return ok && string(value) != "null"
}

// text returns a string member, or "" if it is absent or not a string.
func (o jsonObject) text(name string) string {
	text, _ := o.string(name)
	return text
}

// string returns a string member, and reports whether it is a string or absent (or null).
func (o jsonObject) string(name string) (string, bool) {
	var text string
	valid := !o.has(name) || json.Unmarshal(o[name], &text) == nil
	return text, valid
}

// strings returns a list member of at most 64 strings, or nil. Strings longer than a code are
// dropped: the names in IANA's registries are short.
func (o jsonObject) strings(name string) []string {
	var list []string
	if json.Unmarshal(o[name], &list) != nil || len(list) > 64 {
		return nil
	}
	return slices.DeleteFunc(list, func(text string) bool { return len(text) > maxCode })
}

// number returns a member, and reports whether it is a finite number.
func (o jsonObject) number(name string) (float64, bool) {
	var number float64
	valid := o.has(name) && json.Unmarshal(o[name], &number) == nil
	return number, valid
}

// printable reports whether text consists of visible ASCII characters and those in also.
func printable(text, also string) bool {
	return !strings.ContainsFunc(text, func(r rune) bool {
		return (r <= ' ' || r >= 0x7f) && !strings.ContainsRune(also, r)
	})
}
