package keyring

import (
	"encoding/json"
	"fmt"
	"testing"

	"github.com/go-jose/go-jose/v4"
	"github.com/stretchr/testify/require"
)

func header(t *testing.T, compact string) jose.Header {
	t.Helper()
	signed, err := jose.ParseSignedCompact(compact, allAlgorithms())
	require.NoError(t, err)
	return signed.Signatures[0].Protected
}

func allAlgorithms() []jose.SignatureAlgorithm {
	var all []jose.SignatureAlgorithm
	for _, keyType := range Types() {
		all = append(all, keyType.Algorithms()...)
	}
	return all
}

func TestSigner_EveryAlgorithmVerifies(t *testing.T) {
	t.Parallel()
	for _, keyType := range Types() {
		t.Run(string(keyType), func(t *testing.T) {
			t.Parallel()
			key := testKey(t, keyType)
			for _, algorithm := range keyType.Algorithms() {
				key, err := key.WithSettings(Settings{Algorithm: algorithm, SendKeyID: true})
				require.NoError(t, err)
				signer := key.Active(start()).Signer()
				compact, err := signer.Sign([]byte(`{"a":1}`))
				require.NoError(t, err)

				accepted := []jose.SignatureAlgorithm{algorithm}
				signed, err := jose.ParseSignedCompact(compact, accepted)
				require.NoError(t, err)
				payload, err := signed.Verify(key.Active(start()).private.Public())
				require.NoError(t, err)
				require.JSONEq(t, `{"a":1}`, string(payload))
				require.Equal(t, signer.KeyID(), header(t, compact).KeyID)
				require.Equal(t, "JWT", header(t, compact).ExtraHeaders[jose.HeaderType])
			}
		})
	}
}

func TestRedacted_PrintsAndMarshalsNothingOfAKey(t *testing.T) {
	t.Parallel()
	for _, keyType := range Types() {
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
