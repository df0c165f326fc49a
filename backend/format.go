package backend

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/bcgov/vault-plugin-bcgov-jwt/backend/internal/keyring"
)

// timestamp writes an instant as RFC 3339 in UTC, and none as an empty string.
func timestamp(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339)
}

// compact writes a duration without its zero units: 1h, not 1h0m0s.
func compact(d time.Duration) string {
	text := d.String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}

func sentence(text string) string {
	if strings.HasSuffix(text, ".") || strings.HasSuffix(text, "?") {
		return text
	}
	return text + "."
}

// shorten keeps a name in an error short.
func shorten(name string) string {
	const most = 32
	if runes := []rune(name); len(runes) > most {
		return string(runes[:most]) + "…"
	}
	return name
}

// quoted shows a bad value in an error, unless it is so long that it may be a secret in the wrong field.
func quoted(value string) string {
	const most = 20
	if runes := []rune(value); len(runes) > most {
		return fmt.Sprintf("a text of %d characters", len(runes))
	}
	return strconv.Quote(value)
}

func texts[S ~string](items []S) []string {
	texts := make([]string, len(items))
	for i, item := range items {
		texts[i] = string(item)
	}
	return texts
}

func join[S ~string](items []S) string { return strings.Join(texts(items), ", ") }

func plural(count int, noun string) string {
	if count == 1 {
		return "the " + noun
	}
	return "the " + noun + "s"
}

func abbreviate(names []string, most int) string {
	if len(names) <= most {
		return strings.Join(names, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(names[:most], ", "), len(names)-most)
}

func versionNumber(v *keyring.Version) int {
	if v == nil {
		return 0
	}
	return v.Number()
}
