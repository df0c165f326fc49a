package tokenendpoint

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestSanitize_RedactsAndTruncates(t *testing.T) {
	t.Parallel()
	jwt := unsignedJWT(`{"sub":"x"}`)
	for in, want := range map[string]string{
		"plain words":                     "plain words",
		"  two\r\nlines\t ":               "two  lines",
		"a\x00b\x1b[31m\u202ec\u200b":     "ab[31mc",
		"token " + jwt + " is bad":        "token [redacted]",
		"token e\x00yJhbGciOi.e30.x":      "token [redacted]",
		"key " + strings.Repeat("A", 61):  "key [redacted]",
		strings.Repeat("A", 61) + " key":  "[redacted] key",
		strings.Repeat("A", 60):           strings.Repeat("A", 60),
		strings.Repeat("é ", 200):         strings.Repeat("é ", 127) + "é…",
		"bad \xff bytes":                  "bad \ufffd bytes",
		"https://idp.example.com/auth/x?": "https://idp.example.com/auth/x?",
	} {
		got := sanitize(in)
		require.Equal(t, want, got)
		require.LessOrEqual(t, len([]rune(got)), maxDescription)
	}
	require.Equal(t, "invalid_client", sanitizeCode("invalid\"_\\client\n"))
	require.Len(t, sanitizeCode(strings.Repeat("ab ", 100)), maxCode)
	require.Equal(t, redacted, sanitizeCode(jwt))
	require.Equal(t, redacted, sanitizeCode("eyéJhbGciOi.e30.x"), "removing a character completes no JWT")
	require.Equal(t, redacted, sanitizeCode(strings.Repeat("A", 51)+"é"+strings.Repeat("A", 10)))
}
