package backend

import (
	"strings"
	"testing"

	"github.com/hashicorp/vault/sdk/logical"
	"github.com/stretchr/testify/require"
)

func TestName_IsValidated(t *testing.T) {
	t.Parallel()
	bad := []string{
		"..", "a..b", "...", "-a", ".a", ".", "-", strings.Repeat("n", 129), "é", "a b", "a\tb", "a\n", "a:b", "a*b", "a%2Fb", "a\\b", "a\x00", "ключ", "a;b", "a=b",
	}
	good := []string{"a", "_", "0", "A.b_c-9", "a.", "a-", strings.Repeat("n", 128)}
	for path, operations := range map[string][]logical.Operation{
		"keys/":  {logical.ReadOperation, logical.UpdateOperation, logical.PatchOperation, logical.DeleteOperation},
		"roles/": {logical.ReadOperation, logical.UpdateOperation, logical.PatchOperation, logical.DeleteOperation},
		"creds/": {logical.ReadOperation},
		"check/": {logical.ReadOperation},
	} {
		t.Run(path, func(t *testing.T) {
			t.Parallel()
			m := newMount(t)
			for _, name := range bad {
				for _, operation := range operations {
					text := m.refused(operation, path+name, nil)
					require.Contains(t, text, "must be 1 to 128 letters, digits", "%s %q", operation, name)
					require.Less(t, len(text), 400)
				}
			}
			m.write("keys/shared", map[string]any{"type": "ed25519"})
			for _, name := range good {
				switch path {
				case "keys/":
					m.write(path+name, map[string]any{"type": "ed25519"})
				case "roles/":
					m.write(path+name, map[string]any{"key": "shared"})
				default:
					require.Contains(t, m.refused(logical.ReadOperation, path+name, nil), "unknown role")
				}
			}
		})
	}
}
