package tokenendpoint

import (
	"encoding/json"
	"errors"
	"strings"
	"unicode"
)

var errTooLarge = errors.New(string(faultTooLarge))

// object is a JSON object's members by their exact names. encoding/json's own decoding into a struct would also take
// `Access_Token`, and the last of two equal names.
type object map[string]json.RawMessage

// answerError is a success that breaks the rules, in words that hold nothing of the answer.
type answerError struct {
	fault  fault
	detail string
}

func (e *answerError) Error() string { return e.detail }

func breaks(detail string) error { return &answerError{faultAnswer, detail} }

// object returns the answer's body, which must be a JSON object by its media type too. The error is an *answerError, or
// the network's if the body did not come whole.
func (a *answer) object() (object, error) {
	switch {
	case errors.Is(a.bodyErr, errTooLarge):
		return nil, &answerError{faultTooLarge, string(faultTooLarge)}
	case a.bodyErr != nil:
		return nil, a.bodyErr
	case !isJSON(a.mediaType):
		detail := string(faultNotJSON) + ": it has no Content-Type"
		if a.mediaType != "" {
			detail = string(faultNotJSON) + " but " + sanitiseCode(a.mediaType)
		}
		return nil, &answerError{faultNotJSON, detail}
	}
	return parseObject(a.body)
}

// isJSON takes application/json and the likes of application/problem+json.
func isJSON(mediaType string) bool {
	return mediaType == "application/json" ||
		strings.HasPrefix(mediaType, "application/") && strings.HasSuffix(mediaType, "+json")
}

// parseObject reads exactly one JSON object with no name twice. The error is an *answerError.
func parseObject(text []byte) (object, error) {
	var members object
	syntax := new(json.SyntaxError)
	switch err := json.Unmarshal(text, &members); {
	case errors.As(err, &syntax):
		return nil, breaks("the answer is not valid JSON")
	case err != nil || members == nil: // another type, or null
		return nil, breaks("the answer is not a JSON object")
	case len(members) != countMembers(text):
		return nil, breaks("the answer names one member twice")
	}
	return members, nil
}

// countMembers counts a valid JSON object's members, by the commas between them; a map has each name once only.
func countMembers(text []byte) int {
	commas, depth, empty := 0, 0, true
	for i := 0; i < len(text); i++ {
		switch text[i] {
		case '{', '[':
			depth++
		case '}', ']':
			depth--
		case '"':
			empty = false // a name, if nothing else
			for i++; text[i] != '"'; i++ {
				if text[i] == '\\' {
					i++
				}
			}
		case ',':
			if depth == 1 {
				commas++
			}
		}
	}
	if empty {
		return 0
	}
	return commas + 1
}

// has says whether there is a member of that name other than null.
func (o object) has(name string) bool {
	value, ok := o[name]
	return ok && string(value) != "null"
}

// text returns a string member, empty if there is none or it is no string.
func (o object) text(name string) string {
	text, _ := o.string(name)
	return text
}

// string returns a string member and whether it is absent (or null) or truly a string.
func (o object) string(name string) (string, bool) {
	if !o.has(name) {
		return "", true
	}
	raw := o[name]
	if raw[0] != '"' {
		return "", false
	}
	if inner := raw[1 : len(raw)-1]; plainASCII(inner) { // saves a second scan of the access token
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

// printable says whether text is made of visible ASCII characters and of those in also.
func printable(text, also string) bool {
	return !strings.ContainsFunc(text, func(r rune) bool {
		return (r <= ' ' || r >= 0x7f) && !strings.ContainsRune(also, r)
	})
}

const (
	maxDescription = 256
	maxCode        = 64
	redacted       = "[redacted]"
	jwtStart       = "eyJ" // `{"` in base64url
	// longestWord is longer than any word of a message and shorter than a key, a signature or a token.
	longestWord = 60
)

// sanitise makes a provider's words fit for a log: one line, at most 256 characters, and nothing in it that could be a
// token, an assertion or a key. From where a JWT begins nothing is kept.
func sanitise(text string) string {
	text = strings.Map(func(r rune) rune {
		switch {
		case unicode.IsSpace(r):
			return ' '
		case !unicode.IsPrint(r): // control characters, and those that turn the direction of writing
			return -1
		}
		return r
	}, text)
	if at := strings.Index(text, jwtStart); at >= 0 {
		text = text[:at] + redacted
	}
	text = redactLongWords(text)
	if runes := []rune(text); len(runes) > maxDescription {
		text = string(runes[:maxDescription-1]) + "…"
	}
	return strings.TrimSpace(text)
}

// redactLongWords replaces runs of base64 characters that no message has.
func redactLongWords(text string) string {
	var b strings.Builder
	for text != "" {
		end := strings.IndexFunc(text, func(r rune) bool { return !isBase64(r) })
		if end < 0 {
			end = len(text)
		}
		word := text[:end]
		if end > longestWord {
			word = redacted
		}
		b.WriteString(word)
		text = text[end:]
		next := strings.IndexFunc(text, isBase64)
		if next < 0 {
			next = len(text)
		}
		b.WriteString(text[:next])
		text = text[next:]
	}
	return b.String()
}

func isBase64(r rune) bool {
	return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("+-_=", r)
}

// sanitiseCode is sanitise for an error code: the characters of RFC 6749 §5.2, at most 64.
func sanitiseCode(code string) string {
	code = strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' || r == '"' || r == '\\' {
			return -1
		}
		return r
	}, sanitise(code))
	return code[:min(len(code), maxCode)]
}
