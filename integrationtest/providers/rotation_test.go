package providers

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bcgov/vault-plugin-bcgov-jwt/integrationtest/harness"
)

// acceptTimeout is how long a version may take until a provider on a busy machine has accepted it.
const acceptTimeout = time.Minute

// testManualRotation replaces the registered key while creds is read all the time.
func (s *site) testManualRotation(t *testing.T) {
	k := s.newSubject(t, nil, nil)
	k.register(t)
	reads := k.StartLoad(t, k.name)
	k.EventuallyAccepted(t, k.name, 1, acceptTimeout)
	k.Write(t, "keys/"+k.name+"/rotate", nil)
	harness.Sleep(t, time.Second)
	require.Equal(t, 1, k.Read(t, "keys/"+k.name).Number(t, "active_version"),
		"until the new key is registered")
	k.register(t)
	k.EventuallyActive(t, k.name, 2, acceptTimeout)
	harness.Sleep(t, 2*time.Second)
	reads.End(t)
}

// cacheTime is how long a provider may use a key set before it fetches it again: what the key set's
// response allows, which is also the least of oidc-provider.
const cacheTime = 60 * time.Second

// testJWKSRotation rotates while creds is read all the time, and the provider caches the key set.
func (s *site) testJWKSRotation(t *testing.T) {
	delays := map[string]time.Duration{"delay below the cache time": 2 * time.Second}
	if harness.Slow() {
		delays["delay above the cache time"] = cacheTime + 5*time.Second
	}
	for name, delay := range delays {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			k := s.newSubject(t, map[string]any{
				"type": "ecdsa-p256", "registration": "jwks", "prepublish_period": delay.String(),
			}, nil)
			k.register(t)
			reads := k.StartLoad(t, k.name)
			k.EventuallyAccepted(t, k.name, 1, acceptTimeout)
			k.Write(t, "keys/"+k.name+"/rotate", nil)
			k.EventuallyActive(t, k.name, 2, delay+acceptTimeout)
			if !harness.Slow() {
				harness.Sleep(t, 10*time.Second)
				s.forgetKeySet(t, k)
			}
			k.EventuallyAccepted(t, k.name, 2, cacheTime+acceptTimeout)
			harness.Sleep(t, 2*time.Second)
			reads.End(t)
		})
	}
}

// forgetKeySet saves the client with another token lifetime, whereupon the provider fetches its key
// set again.
func (s *site) forgetKeySet(t *testing.T, k *subject) {
	t.Helper()
	client := k.client(t)
	client.TokenLifetime = time.Minute
	require.NoError(t, s.PutClient(t.Context(), client))
}
