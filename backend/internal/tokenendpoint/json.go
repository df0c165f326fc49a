package tokenendpoint

import (
	"errors"
	"slices"
	"strings"

	"github.com/go-jose/go-jose/v4/json"
)

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
