package tokenendpoint

import (
	"errors"
	"strings"

	"github.com/go-jose/go-jose/v4/json"
)

var errTooLarge = errors.New("the answer is larger than 1 MiB")

// jsonObject holds a JSON object's members by their exact names.
type jsonObject map[string]json.RawMessage

// answerError is a success that breaks the rules, in words that contain nothing of the answer.
type answerError struct {
	reason Reason
	detail string
}

func (e *answerError) Error() string { return e.detail }

func invalidAnswer(detail string) error { return &answerError{InvalidAnswer, detail} }

// object returns the answer's body, which must be a JSON object by its media type too. Its error is
// an *answerError, or the network's if the body did not arrive whole.
func (r *response) object() (jsonObject, error) {
	switch {
	case errors.Is(r.bodyErr, errTooLarge):
		return nil, &answerError{AnswerTooLarge, errTooLarge.Error()}
	case r.bodyErr != nil:
		return nil, r.bodyErr
	case r.mediaType == "":
		return nil, &answerError{NotJSON, "the answer is not JSON: it has no Content-Type"}
	case !isJSON(r.mediaType):
		return nil, &answerError{NotJSON, "the answer is not JSON but " + sanitizeCode(r.mediaType)}
	}
	return parseObject(r.body)
}

// isJSON accepts application/json and the likes of application/problem+json.
func isJSON(mediaType string) bool {
	return mediaType == "application/json" ||
		strings.HasPrefix(mediaType, "application/") && strings.HasSuffix(mediaType, "+json")
}

// parseObject parses exactly one JSON object. go-jose's fork of encoding/json matches names exactly
// and rejects duplicates. The error is an *answerError.
func parseObject(text []byte) (jsonObject, error) {
	var members jsonObject
	err := json.Unmarshal(text, &members)
	_, syntax := errors.AsType[*json.SyntaxError](err)
	switch {
	case syntax:
		return nil, invalidAnswer("the answer is not valid JSON")
	case members == nil: // another type, or null
		return nil, invalidAnswer("the answer is not a JSON object")
	case err != nil:
		return nil, invalidAnswer("the answer names one member twice")
	}
	return members, nil
}

// has reports whether a member of that name exists other than null.
func (o jsonObject) has(name string) bool {
	value, ok := o[name]
	return ok && string(value) != "null"
}

// text returns a string member, empty if it is absent or not a string.
func (o jsonObject) text(name string) string {
	text, _ := o.string(name)
	return text
}

// string returns a string member, and whether it is absent (or null) or truly a string.
func (o jsonObject) string(name string) (string, bool) {
	if !o.has(name) {
		return "", true
	}
	raw := o[name]
	if raw[0] != '"' {
		return "", false
	}
	if inner := raw[1 : len(raw)-1]; plainASCII(inner) { // saves another scan of the access token
		return string(inner), true
	}
	var text string
	err := json.Unmarshal(raw, &text)
	return text, err == nil
}

func plainASCII(text []byte) bool {
	for _, b := range text {
		if b < ' ' || b > '~' || b == '\\' {
			return false
		}
	}
	return true
}

// printable reports whether text consists of visible ASCII characters and those in also.
func printable(text, also string) bool {
	return !strings.ContainsFunc(text, func(r rune) bool {
		return (r <= ' ' || r >= 0x7f) && !strings.ContainsRune(also, r)
	})
}
