package backend

import (
	"strings"
	"testing"

	"github.com/hashicorp/vault/sdk/logical"
	"github.com/stretchr/testify/require"
)

func TestDestroy_VersionIsGone(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		prepare func(m *mount)
		version int
		left    map[string]string
	}{
		"staged":  {func(*mount) {}, 2, map[string]string{"1": "active"}},
		"retired": {func(m *mount) { m.write("keys/myapi/activate", map[string]any{"force": true}) }, 1, map[string]string{"2": "active"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m, _ := newReadyMount(t)
			m.write("keys/myapi/rotate", nil)
			test.prepare(m)
			private, keyID := m.privateKeys()[test.version], m.version(test.version)["key_id"].(string)
			require.Contains(t, m.storage.entries(t), "spki/"+keyID)

			answer := m.write("keys/myapi/destroy", map[string]any{"version": test.version})
			require.Equal(t, m.read("keys/myapi").Data, answer.Data)
			require.Contains(t, strings.Join(answer.Warnings, "\n"), "is permanently deleted. If its public key is registered, the provider accepts it until it is replaced there.")
			require.Equal(t, test.left, m.states())
			require.NotContains(t, m.read("keys/myapi/jwks").Data["jwks"], keyID)
			for path, value := range m.storage.entries(t) {
				require.NotContains(t, value, private, path)
				require.NotContains(t, path, keyID)
			}
			require.Contains(t, m.log.String(), "key version destroyed: key=myapi version=")
			require.Equal(t, test.left, mountOver(t, m.storage, m.clock).states())
		})
	}
}

func TestDestroy_IsRejected(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		data map[string]any
		says []string
	}{
		"the active one":       {map[string]any{"version": 1}, []string{"version: 1 is active; rotate and activate another first", "vault write bcgov-jwt/keys/myapi disabled=true"}},
		"an unknown one":       {map[string]any{"version": 7}, []string{`version: key "myapi" has no version 7; it has 1, 2`}},
		"zero":                 {map[string]any{"version": 0}, []string{"version: "}},
		"a negative one":       {map[string]any{"version": -1}, []string{"version: "}},
		"none":                 {nil, []string{"version: is required", "vault list -detailed bcgov-jwt/keys/myapi/versions"}},
		"an empty one":         {map[string]any{"version": ""}, []string{"version: is required"}},
		"no number":            {map[string]any{"version": "latest"}, []string{"version: must be a whole number"}},
		"a fraction":           {map[string]any{"version": 1.5}, []string{"version: must be a whole number"}},
		"another field's name": {map[string]any{"versions": "2"}, []string{`unknown field "versions"`}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m, _ := newReadyMount(t)
			m.write("keys/myapi/rotate", nil)
			text := m.refused(logical.UpdateOperation, "keys/myapi/destroy", test.data)
			for _, part := range test.says {
				require.Contains(t, text, part)
			}
		})
	}
}

func TestKey_DeletionAcceptsNoVersion(t *testing.T) {
	t.Parallel()
	m := newMount(t)
	m.write("keys/myapi", map[string]any{"type": "ed25519", "deletion_allowed": true})
	m.write("keys/myapi/rotate", nil)
	require.Contains(t, m.refused(logical.DeleteOperation, "keys/myapi", map[string]any{"version": 2}), `unknown field "version"`,
		"who means one version must not lose the key")
}
