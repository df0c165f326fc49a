package keyring

import (
	"encoding/json"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestRedacted_PrintsAndMarshalsNothingOfAKey(t *testing.T) {
	t.Parallel()
	for _, keyType := range quickTypes() {
		key := testKey(t, keyType)
		version := key.Active(start())
		for _, value := range []any{
			key, *key, version, *version, version.Signer(), *version.Signer(),
			Material{},
			&Material{},
			WrappingKey{},
			&WrappingKey{},
		} {
			for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
				require.Equal(t, "[private]", fmt.Sprintf(verb, value), "%s of %T", verb, value)
			}
			holder := struct{ Held any }{value}
			require.Equal(t, "{[private]}", fmt.Sprintf("%v", holder))
			encoded, err := json.Marshal(value)
			require.NoError(t, err)
			require.Equal(t, `"[private]"`, string(encoded))
		}
	}
}
