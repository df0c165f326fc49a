package tokenendpoint

import (
	"strings"
	"unicode"
)

const (
	maxDescription = 256
	maxCode        = 64
	redacted       = "[redacted]"
	jwtStart       = "eyJ" // `{"` in base64url
	// longestWord exceeds any word of a message, but no key, signature or token.
	longestWord = 60
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
	text = redactLongWords(text)
	if runes := []rune(text); len(runes) > maxDescription {
		text = string(runes[:maxDescription-1]) + "…"
	}
	return strings.TrimSpace(text)
}

// redactLongWords replaces runs of base64 characters longer than longestWord.
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
	return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' ||
		strings.ContainsRune("+-_=", r)
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
