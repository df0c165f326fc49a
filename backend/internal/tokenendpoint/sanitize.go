package tokenendpoint

import (
	"regexp"
	"strings"
	"unicode"
)

const (
	maxDescription = 256
	maxCode        = 64
	redacted       = "[redacted]"
	jwtStart       = "eyJ" // `{"` in base64url
)

// sanitize makes a provider's text safe to log: one line, at most 256 characters, and nothing that
// could be a token, an assertion or a key. It drops everything from the start of a JWT on.
func sanitize(text string) string {
	text = strings.Map(func(r rune) rune {
		switch {
		case unicode.IsSpace(r):
			return ' '
		case !unicode.IsPrint(r): // control and bidirectional formatting characters
			return -1
		}
		return r
	}, text)
	if at := strings.Index(text, jwtStart); at >= 0 {
		text = text[:at] + redacted
	}
	longWord := regexp.MustCompile(`[A-Za-z0-9+_=-]{61,}`) // longer than any word of a message
	text = longWord.ReplaceAllLiteralString(text, redacted)
	if runes := []rune(text); len(runes) > maxDescription {
		text = string(runes[:maxDescription-1]) + "…"
	}
	return strings.TrimSpace(text)
}

// sanitizeCode is sanitize for an error code: characters of RFC 6749 §5.2, at most 64.
func sanitizeCode(code string) string {
	code = sanitize(strings.Map(func(r rune) rune { // before: it may join parts of a token
		if r < ' ' || r > '~' || r == '"' || r == '\\' {
			return -1
		}
		return r
	}, code))
	return code[:min(len(code), maxCode)]
}
