package backend

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/hashicorp/go-secure-stdlib/parseutil"
	"github.com/hashicorp/vault/sdk/framework"
)

// convert returns a request's value as kind, without the framework's lax conversions (5.7 to the
// integer 5, true to the string "1"). It returns nil for an empty value, which restores a default.
// Vault's CLI only sends strings, so numbers and booleans are accepted in that form too.
func convert(kind framework.FieldType, raw any) (any, error) {
	text, isText := raw.(string)
	if raw == nil || isText && strings.TrimSpace(text) == "" {
		return nil, nil
	}
	switch kind {
	case framework.TypeString:
		if isText {
			return text, nil
		}
		return nil, mismatch("must be a string", raw)
	case framework.TypeBool:
		return convertBool(raw)
	case framework.TypeInt:
		return convertInt(raw)
	case framework.TypeDurationSecond:
		return convertDuration(raw)
	case framework.TypeCommaStringSlice:
		if isText {
			raw = strings.Split(text, ",")
		}
		return convertList(raw)
	case framework.TypeStringSlice:
		if isText {
			raw = []string{text}
		}
		return convertList(raw)
	}
	return nil, fmt.Errorf("has unknown type %s", kind)
}

// mismatch returns the error for a value that is not what is wanted. It does not quote a string,
// which may be a misplaced secret.
func mismatch(want string, raw any) error {
	if _, isText := raw.(string); isText {
		return errors.New(want)
	}
	return fmt.Errorf("%s, not %s", want, jsonKind(raw))
}

func convertBool(raw any) (any, error) {
	if value, ok := raw.(bool); ok {
		return value, nil
	}
	text, _ := raw.(string)
	if value, err := strconv.ParseBool(strings.TrimSpace(text)); err == nil {
		return value, nil
	}
	return nil, mismatch("must be true or false", raw)
}

func convertInt(raw any) (any, error) {
	number, ok := wholeNumber(raw)
	switch {
	case !ok:
		return nil, mismatch("must be a whole number", raw)
	case number > math.MaxInt32 || number < math.MinInt32:
		return nil, errors.New("is out of range")
	}
	return int(number), nil
}

func convertDuration(raw any) (any, error) {
	const want = "must be whole seconds, or a duration such as 90s, 5m or 1d"
	seconds, ok := wholeNumber(raw)
	duration := time.Duration(max(-1, min(seconds, math.MaxInt32))) * time.Second
	if text, isText := raw.(string); isText {
		var err error
		duration, err = parseutil.ParseDurationSecond(strings.TrimSpace(text))
		ok = err == nil && duration%time.Second == 0
	}
	switch {
	case !ok:
		return nil, mismatch(want, raw)
	case duration < 0: // otherwise the framework rejects it in its own words
		return nil, errors.New("must not be negative")
	}
	return duration, nil
}

// wholeNumber converts a JSON number, or a string of one, without a fraction.
func wholeNumber(raw any) (int64, bool) {
	var text string
	switch v := raw.(type) {
	case float64:
		// Vault sends numbers to plugins as float64.
		return int64(v), v == math.Trunc(v) && math.Abs(v) < 1<<53
	case int:
		return int64(v), true
	case int64:
		return v, true
	case json.Number:
		text = v.String()
	case string:
		text = strings.TrimSpace(v)
	default:
		return 0, false
	}
	number, err := strconv.ParseInt(text, 10, 64)
	return number, err == nil && strconv.FormatInt(number, 10) == text
}

func convertList(raw any) (any, error) {
	var items []string
	switch v := raw.(type) {
	case []string:
		items = append(items, v...)
	case []any:
		for _, item := range v {
			text, ok := item.(string)
			if !ok {
				return nil, fmt.Errorf("must be a list of strings, but contains %s", jsonKind(item))
			}
			items = append(items, text)
		}
	default:
		return nil, fmt.Errorf("must be a list of strings, not %s", jsonKind(raw))
	}
	if len(items) == 0 {
		return nil, nil
	}
	for i, item := range items {
		if items[i] = strings.TrimSpace(item); items[i] == "" {
			return nil, fmt.Errorf("item %d of the list is blank", i+1)
		}
	}
	return items, nil
}

func jsonKind(value any) string {
	switch v := value.(type) {
	case nil:
		return "null"
	case bool:
		return "a boolean"
	case string:
		return "a string"
	case float64, json.Number, int, int64:
		return fmt.Sprintf("the number %v", v)
	case []any, []string:
		return "a list"
	default:
		return "an object"
	}
}

func anyValue[V any](value V) (V, error) { return value, nil }

func trimmed(value string) (string, error) { return strings.TrimSpace(value), nil }

// printable accepts printable ASCII, as RFC 6749 (appendix A) defines such values.
func printable(limit int) func(string) (string, error) {
	return func(value string) (string, error) {
		value = strings.TrimSpace(value)
		if len(value) > limit {
			return "", fmt.Errorf("must be at most %d characters, not %d", limit, len(value))
		}
		if strings.ContainsFunc(value, func(c rune) bool { return c < ' ' || c > '~' }) {
			return "", errors.New("must be printable ASCII")
		}
		return value, nil
	}
}

// clientID accepts a client ID as it is, not as someone quoted it.
func clientID(value string) (string, error) {
	value, err := printable(256)(value)
	if err == nil && strings.Trim(value, `"'<>`) != value {
		err = errors.New("has quotes or angle brackets around it; write it without them")
	}
	return value, err
}

// notIssuer matches an issuer that is another URL of its provider, up to what follows the issuer.
// Only Keycloak's issuers certainly have no final slash: those of Auth0 do.
var notIssuer = regexp.MustCompile(
	`^(.+?)(/\.well-known/openid-configuration|/protocol/openid-connect(/.*)?)/?$` +
		`|^(.+/realms/[^/]+)/+$`)

// issuer rejects the URL of a discovery document or an endpoint, which comes before any mistake in
// it is noticed at the provider.
func issuer(value string) (string, error) {
	value = strings.TrimSpace(value)
	if parts := notIssuer.FindStringSubmatch(value); parts != nil {
		itself := parts[1] + parts[4]
		return "", fmt.Errorf("must not end with %q; set issuer=%s",
			strings.TrimPrefix(value, itself), itself)
	}
	return value, nil
}

func between(lowest, highest time.Duration) func(time.Duration) (time.Duration, error) {
	return func(value time.Duration) (time.Duration, error) {
		if value < lowest || value > highest {
			return 0, fmt.Errorf("must be from %s to %s, not %s",
				compact(lowest), compact(highest), compact(value))
		}
		return value, nil
	}
}

// audience accepts a single value: Keycloak rejects several.
func audience(value string) (string, error) {
	value, err := printable(512)(value)
	if err == nil && strings.ContainsFunc(value, unicode.IsSpace) {
		err = errors.New("must be a single value without spaces")
	}
	return value, err
}

func maxRetries(value int) (int, error) {
	if value < 0 || value > 5 {
		return 0, fmt.Errorf("must be from 0 to 5, not %d", value)
	}
	return value, nil
}

func oneOf[S ~string](values []S) func(string) (string, error) {
	return func(value string) (string, error) {
		value = strings.TrimSpace(value)
		if !slices.Contains(values, S(value)) {
			return "", fmt.Errorf("%s is not one of %s", quoted(value), join(values))
		}
		return value, nil
	}
}

func autoRotatePeriod(value time.Duration) (time.Duration, error) {
	if value != 0 && value < time.Hour {
		return 0, fmt.Errorf("%s is too short; set at least 1h, or 0 to disable it", compact(value))
	}
	return value, nil
}

func overlapPeriod(value time.Duration) (time.Duration, error) {
	if value > 90*24*time.Hour {
		return 0, errors.New("must be at most 90d")
	}
	return value, nil
}

// marginWithinLife rejects a margin that no token has: lifetimes are capped at 24h.
func marginWithinLife(margin time.Duration) (time.Duration, error) {
	if margin < 0 || margin >= 24*time.Hour {
		return 0, errors.New("must be at least 0 and less than 24h, the longest token lifetime")
	}
	return margin, nil
}

func keyName(name string) (string, error) {
	name = strings.TrimSpace(name)
	return name, checkName(name)
}

// scopeTokens checks that each scope is a scope-token (RFC 6749 §3.3). Its errors quote none: it
// may be a secret pasted into the wrong field.
func scopeTokens(scopes []string) ([]string, error) {
	for i, scope := range scopes {
		if strings.ContainsFunc(scope, unicode.IsSpace) {
			return nil, fmt.Errorf("item %d contains whitespace; separate scopes with commas", i+1)
		}
		for _, c := range scope {
			if c < 0x21 || c > 0x7e || c == '"' || c == '\\' {
				return nil, fmt.Errorf("item %d contains a character that scopes do not allow "+
					"(RFC 6749 section 3.3)", i+1)
			}
		}
	}
	return scopes, nil
}

// roleGlobs accepts role names with `*` for any text.
func roleGlobs(globs []string) ([]string, error) {
	for i, glob := range globs {
		if checkName(strings.ReplaceAll(glob, "*", "x")) != nil {
			return nil, fmt.Errorf("item %d must be the name of a role, in which * matches any "+
				"text", i+1)
		}
	}
	return globs, nil
}

// maxParameters limits a role's parameters, which are sent with every token request.
const maxParameters = 64 << 10

// parameterName matches names that the usual parsers of forms do not read as others.
var parameterName = regexp.MustCompile(`^[A-Za-z0-9_.:-]+$`)

func formParameters(parameters []string) ([]string, error) {
	reserved := reservedParameters()
	size := 0
	for _, parameter := range parameters {
		name, value, found := strings.Cut(parameter, "=")
		size += len(parameter)
		same := func(reserved string) bool { return folded(reserved) == folded(name) }
		switch {
		case name == "scope" || name == "scopes":
			return nil, errors.New("cannot set scope; use the field scopes=read,write")
		case !found:
			return nil, errors.New("each item must be name=value")
		case size > maxParameters:
			return nil, fmt.Errorf("must have at most %d KiB in all", maxParameters>>10)
		case !parameterName.MatchString(name):
			return nil, errors.New("the name before '=' must consist of letters, digits, '_', " +
				"'-', '.' and ':'")
		case strings.ContainsFunc(value, unicode.IsControl):
			return nil, fmt.Errorf("the value of %q contains a control character", shorten(name))
		case slices.ContainsFunc(reserved, same):
			return nil, fmt.Errorf("%q belongs to a grant or client authentication and "+
				"cannot be set by a role", shorten(name))
		}
	}
	return parameters, nil
}

// folded returns a name as the laxest parser compares it: by its letters and digits, in lower case.
func folded(name string) string {
	return strings.NewReplacer("_", "", ".", "", ":", "", "-", "").Replace(strings.ToLower(name))
}

// reservedParameters returns the form parameters of this grant and of client authentication (RFC
// 6749, 7521, 7523), of other grants and flows (RFC 6749, 7636, 8628, 8693, 9126, 9449, OpenID
// CIBA, UMA 2.0), and Keycloak's own.
func reservedParameters() []string { return strings.Fields(textOf("reserved_parameters")) }

// validName matches names of keys and roles. Path patterns accept more, for a clear error.
var validName = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$`)

// nameIn returns the name in a request's path.
func nameIn(data *framework.FieldData, field string) (string, error) {
	name, _ := data.Raw[field].(string)
	if err := checkName(name); err != nil {
		return "", userErrorf("%s: %w", field, err)
	}
	return name, nil
}

func checkName(name string) error {
	if !validName.MatchString(name) || strings.Contains(name, "..") {
		return fmt.Errorf("%q is invalid; use up to 128 letters, digits, '_', '-' and '.', not "+
			"starting with '-' or '.', and without '..'", shorten(name))
	}
	return nil
}
