package engine

import (
	"context"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/bcgov/vault-plugin-bcgov-jwt/integrationtest/harness"
)

// detailedList returns the table that `vault list -detailed` prints: its columns, and for each name
// the cells behind it.
func detailedList(
	t *testing.T, m *harness.Mount, path string,
) (columns []string, rows map[string][]string) {
	t.Helper()
	printed := m.MustRun(t, "list", "-detailed", "{mount}/"+path)
	lines := strings.Split(strings.TrimRight(printed, "\n"), "\n")
	require.Greater(t, len(lines), 2, printed)
	var begins []int // of the columns, below which the cells are
	for _, column := range regexp.MustCompile(`\S+`).FindAllStringIndex(lines[0], -1) {
		begins = append(begins, column[0])
	}
	cells := func(line string) []string {
		var cells []string
		for _, begin := range slices.Backward(begins) {
			begin = min(begin, len(line))
			cells = append([]string{strings.TrimSpace(line[begin:])}, cells...)
			line = line[:begin]
		}
		return cells
	}
	rows = map[string][]string{}
	for _, line := range lines[2:] { // a line of dashes comes before
		row := cells(line)
		rows[row[0]] = row[1:]
	}
	return cells(lines[0]), rows
}

// damageKey stores half of a key's entry under another name, and deletes it when the test ends: the
// private keys of a damaged entry cannot be recorded.
func damageKey(t *testing.T, m *harness.Mount, key, damaged string) {
	t.Helper()
	m.RecordPrivateKeys(t)
	stored := m.Stored(t, "key/"+key)
	half := map[string]any{"value": stored[:len(stored)/2]}
	path := m.RawPath("key/" + damaged)
	_, err := m.Client.Logical().WriteWithContext(t.Context(), path, half)
	require.NoError(t, err)
	t.Cleanup(func() {
		ctx := context.WithoutCancel(t.Context())
		deleted, err := m.Request(ctx, http.MethodDelete, "keys/"+damaged, nil)
		assert.NoError(t, err)
		assert.Equal(t, http.StatusNoContent, deleted.Status, deleted.ErrorText())
	})
}

// withoutPEM removes all lines of PEM blocks but those that name the field.
func withoutPEM(printed string) string {
	block := regexp.MustCompile(`-----BEGIN [^-]+-----[^-]+-----END [^-]+-----\n+`)
	return block.ReplaceAllString(printed, "…\n")
}
