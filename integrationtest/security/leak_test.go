package security

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/bcgov/vault-plugin-bcgov-jwt/integrationtest/harness"
)

// TestLeak_NoOperationRevealsSecret calls everything that the plugin serves according to its own
// OpenAPI document, with good and with bad input. TestMain searches again, for all tests together.
func TestLeak_NoOperationRevealsSecret(t *testing.T) {
	t.Parallel()
	p := harness.EmbeddedProvider(t)
	m := harness.NewMount(t, p.Config)
	for _, keyType := range []string{
		"rsa-2048", "rsa-3072", "ecdsa-p256", "ecdsa-p384", "ecdsa-p521", "ed25519",
	} {
		m.NewClient(t, p, keyType, map[string]any{"type": keyType})
		m.Read(t, "creds/"+keyType)
		requirePrivateKeyRecorded(t, m, keyType)
	}
	m.NewClient(t, p, "walked", nil)
	m.NewClient(t, p, "spare", nil)
	for _, delivery := range []string{"leased", "unleased", "shared"} {
		m.NewClient(t, p, delivery, nil)
		m.Write(t, "roles/"+delivery, map[string]any{
			"delivery": delivery, "revoke_tokens": delivery == "leased", "allow_assertion": true,
		})
	}
	m.Write(t, "keys/walked/rotate", nil)
	m.NewClient(t, p, "published", map[string]any{"registration": "jwks"})
	m.RecordPrivateKeys(t) // one is destroyed below

	operations := m.Operations(t)
	valid := validCalls(t, m, p)
	for _, o := range operations {
		calls, known := valid[o.String()]
		require.True(t, known, "%s has no valid call: add one to validCalls", o)
		for _, c := range calls {
			got := m.Do(t, o.Method, c.path, o.Query, c.body)
			require.Less(t, got.Status, 300, "%s %s: %s", o.Method, c.path, got.ErrorText())
		}
	}
	m.Write(t, "config", p.Config) // which a valid call deleted
	for _, o := range operations {
		callWithBadInput(t, m, o)
	}
	requireNoLeak(t, m)
}
