package backend

import (
	"testing"
	"time"

	"github.com/bcgov/vault-plugin-bcgov-jwt/backend/internal/keyring"
	"github.com/hashicorp/vault/sdk/logical"
	"github.com/stretchr/testify/require"
)

// generation is an operation that generates a private key, and what another request does while it does.
type generation struct {
	begin     func(*mount)       // before it
	operation func(*mount) error // generates
	during    func(*mount)       // succeeds, although the generation has not ended
	fails     string             // the operation's error; empty if it succeeds
	after     func(*testing.T, *mount)
}

func generations() map[string]generation {
	jwks := map[string]any{"type": "ed25519", "registration": "jwks", "deletion_allowed": true}
	create := sent(logical.UpdateOperation, "keys/myapi", jwks)
	rotate := sent(logical.UpdateOperation, "keys/myapi/rotate", nil)
	created := func(m *mount) { m.write("keys/myapi", jwks) }
	write := func(path string, data map[string]any) func(*mount) { return func(m *mount) { m.write(path, data) } }
	versions := func(states map[string]string) func(*testing.T, *mount) {
		return func(t *testing.T, m *mount) { require.Equal(t, states, m.states()) }
	}
	return map[string]generation{
		"create; another key is written": {
			begin: write("keys/other", jwks), operation: create, during: write("keys/other", map[string]any{"client_id": "new"}),
			after: versions(map[string]string{"1": "active"}),
		},
		"create; created by another request": {
			operation: create, during: created,
			after: func(t *testing.T, m *mount) { require.Len(t, m.storage.entries(t), 3, "one key with its two indexes") },
		},
		"create; imported by another request": {
			operation: create, during: func(m *mount) {
				private, _ := newPEM(m.tb)
				m.write("keys/myapi/import", map[string]any{"private_key": private})
			},
			after: func(t *testing.T, m *mount) { require.Equal(t, "imported", m.version(1)["origin"]) },
		},
		"create; its host is no longer allowed": {
			operation: sent(logical.UpdateOperation, "keys/myapi", map[string]any{"type": "ed25519", "issuer": "https://idp.example"}),
			during:    write("config", map[string]any{"allowed_hosts": "other.example"}), fails: "issuer: ",
			after: func(t *testing.T, m *mount) { require.Nil(t, m.read("keys/myapi")) },
		},
		"rotate; the settings are written": {
			begin: created, operation: rotate, during: write("keys/myapi", map[string]any{"client_id": "new"}),
			after: func(t *testing.T, m *mount) {
				require.Equal(t, "new", m.read("keys/myapi").Data["client_id"])
				require.Equal(t, map[string]string{"1": "active", "2": "staged"}, m.states())
			},
		},
		"rotate; rotated by another request": {
			begin: created, operation: rotate, during: write("keys/myapi/rotate", nil),
			after: versions(map[string]string{"1": "active", "2": "staged"}),
		},
		"rotate; deleted": {
			begin: created, operation: rotate, during: func(m *mount) { m.delete("keys/myapi") }, fails: "does not exist",
			after: func(t *testing.T, m *mount) { require.Empty(t, m.storage.entries(t)) },
		},
		"rotate; replaced by a key of another type": {
			begin: created, operation: rotate, fails: "it is ecdsa-p256, but the private key ed25519; try again",
			during: func(m *mount) { m.delete("keys/myapi"); m.write("keys/myapi", map[string]any{"type": "ecdsa-p256"}) },
			after:  versions(map[string]string{"1": "active"}),
		},
		"automatic rotation; switched off": {
			begin: dueForRotation, operation: periodically, during: write("keys/myapi", map[string]any{"auto_rotate_period": 0}),
			after: versions(map[string]string{"1": "active"}),
		},
		"automatic rotation; rotated by hand": {
			begin: dueForRotation, operation: periodically, during: write("keys/myapi/rotate", nil),
			after: versions(map[string]string{"1": "active", "2": "staged"}),
		},
		"automatic rotation; deleted": {
			begin: dueForRotation, operation: periodically,
			during: func(m *mount) { m.delete("roles/myapi"); m.delete("keys/myapi") },
			after:  func(t *testing.T, m *mount) { require.Nil(t, m.read("keys/myapi")) },
		},
		"wrapping key; the configuration is written": {
			operation: sent(logical.ReadOperation, "wrapping_key", nil), during: write("config", map[string]any{"max_retries": 1}),
			after: func(t *testing.T, m *mount) { require.Contains(t, m.storage.entries(t), "wrapping-key") },
		},
		"wrapping key; created by another request": {
			operation: sent(logical.ReadOperation, "wrapping_key", nil), during: func(m *mount) { m.read("wrapping_key") },
			after: func(t *testing.T, m *mount) { require.Equal(t, 1, m.storage.writes()) },
		},
	}
}

// dueForRotation creates the key "myapi", which the next run of periodic rotates.
func dueForRotation(m *mount) {
	m.write("keys/myapi", map[string]any{"type": "ed25519", "registration": "jwks", "auto_rotate_period": 3600, "deletion_allowed": true})
	m.write("roles/myapi", nil)
	accept := func(key *keyring.Key) *keyring.Key { return key.Accept(1, m.now()) }
	require.NoError(m.tb, m.keyChanger(m.storage, "myapi")(m.tb.Context(), accept))
	m.clock.advance(2 * time.Hour)
}

// TestGeneration_HoldsNoLock: writes proceed while a private key is generated, and what they change counts.
func TestGeneration_HoldsNoLock(t *testing.T) {
	t.Parallel()
	for name, test := range generations() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := newMount(t)
			m.generateQuickly()
			if test.begin != nil {
				test.begin(m)
			}
			began, release := m.holdGeneration()
			done := make(chan error)
			go func() { done <- test.operation(m) }()
			<-began
			test.during(m)
			release()
			if err := <-done; test.fails == "" {
				require.NoError(t, err)
			} else {
				require.ErrorContains(t, err, test.fails)
			}
			test.after(t, m)
			entries := m.storage.entries(t)
			for _, name := range m.list("keys/") {
				require.Equal(t, mountOver(t, m.storage, m.clock).read("keys/"+name), m.read("keys/"+name), "memory matches storage")
			}
			require.Equal(t, entries, m.storage.entries(t))
		})
	}
}
