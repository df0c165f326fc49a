package providers

import (
	"crypto/rand"
	"maps"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/bcgov/vault-plugin-bcgov-jwt/integrationtest/harness"
	"github.com/bcgov/vault-plugin-bcgov-jwt/integrationtest/provider"
)

// site is a provider that the tests use, and its name.
type site struct {
	*provider.Running

	name string
}

// newSite starts a provider for a test and its subtests. The leak detector observes it.
func newSite(t *testing.T, name string) *site {
	t.Helper()
	return &site{provider.ForTest(t, name, harness.Detector().Observe), name}
}

// subject is a key, and a role of its name, in a mount.
type subject struct {
	*harness.Mount

	at   *site
	name string
}

// newSubject creates a key with these settings besides those that the provider needs.
func (s *site) newSubject(t *testing.T, settings, role map[string]any) *subject {
	t.Helper()
	m := harness.NewMount(t, map[string]any{
		"allow_insecure_endpoints": true, "request_timeout": "45s", // on a busy machine
	})
	all := provider.KeySettings(s)
	all["client_id"] = harness.NewClientID()
	maps.Copy(all, settings)
	k := &subject{Mount: m, at: s, name: "key-" + rand.Text()}
	m.Write(t, "keys/"+k.name, all)
	m.Write(t, "roles/"+k.name, role)
	return k
}

// client returns the client that the newest version of the key belongs to.
func (k *subject) client(t *testing.T) provider.Client {
	t.Helper()
	key := k.Read(t, "keys/"+k.name)
	client := provider.Client{
		ID: key.Text(t, "client_id"), Algorithm: key.Text(t, "algorithm"),
		PublicKey: key.Text(t, "public_key"),
	}
	if path := key.Text(t, "jwks_path"); path != "" {
		client.PublicKey, client.JWKSURL = "", harness.Vault().URL()+path
	}
	return client
}

// register registers the newest version.
func (k *subject) register(t *testing.T) {
	t.Helper()
	require.NoError(t, k.at.PutClient(t.Context(), k.client(t)))
}

// isActive reports what the provider's introspection says about a token.
func (s *site) isActive(t *testing.T, token string) bool {
	t.Helper()
	active, err := s.IsActive(t.Context(), token)
	require.NoError(t, err)
	return active
}
