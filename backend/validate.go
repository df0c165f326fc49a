package backend

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/hashicorp/vault/sdk/framework"
)

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
		return "", fmt.Errorf("has %q at its end, which is not part of the issuer; write issuer=%s",
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
			return "", fmt.Errorf("must be one of %s, not %s", join(values), quoted(value))
		}
		return value, nil
	}
}

func autoRotatePeriod(value time.Duration) (time.Duration, error) {
	if value != 0 && value < time.Hour {
		return 0, fmt.Errorf("must be at least 1h, or 0 to disable it, not %s", compact(value))
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
			return nil, fmt.Errorf("item %d contains white space; separate scopes with commas", i+1)
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
			return nil, errors.New("scopes have their own field: scopes=<scope>,<scope>")
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
func reservedParameters() []string {
	return strings.Fields(`
		grant_type client_id client_secret client_assertion client_assertion_type scope scopes
		assertion code code_verifier redirect_uri refresh_token username password
		device_code auth_req_id
		subject_token subject_token_type actor_token actor_token_type requested_token_type
		requested_subject requested_issuer subject_issuer requested_token_use
		request request_uri claims nonce state response_type response_mode login_hint
		token token_type_hint dpop_jkt code_challenge code_challenge_method
		ticket rpt permission claim_token claim_token_format submit_request
		client_session_state client_session_host`)
}

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
		return fmt.Errorf("%q must be 1 to 128 letters, digits, '_', '-' or '.', start with a "+
			"letter, digit or '_', and not contain '..'", shorten(name))
	}
	return nil
}
