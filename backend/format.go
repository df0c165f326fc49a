package backend

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// timestamp returns an instant as RFC 3339 in UTC; empty for the zero time.
func timestamp(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339)
}

// compact returns a duration without trailing zero units: 1h, not 1h0m0s.
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

// capitalized returns an error's text as one that stands alone.
func capitalized(text string) string {
	return strings.ToUpper(text[:min(1, len(text))]) + text[min(1, len(text)):]
}

func sentence(text string) string {
	if strings.HasSuffix(text, ".") || strings.HasSuffix(text, "?") {
		return text
	}
	return text + "."
}

func shorten(name string) string {
	if runes := []rune(name); len(runes) > 32 {
		return string(runes[:32]) + "…"
	}
	return name
}

// quoted quotes an invalid value in an error, unless it is so long that it may be a secret.
func quoted(value string) string {
	if runes := []rune(value); len(runes) > 20 {
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

func abbreviate(names []string) string {
	if len(names) <= 10 {
		return strings.Join(names, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(names[:10], ", "), len(names)-10)
}
