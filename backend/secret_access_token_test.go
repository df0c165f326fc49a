package backend

import (
	"testing"

	"github.com/hashicorp/vault/sdk/logical"
	"github.com/stretchr/testify/require"
)

func (m *mount) endLease(operation logical.Operation, lease *logical.Secret) (*logical.Response, error) {
	return m.HandleRequest(m.tb.Context(), &logical.Request{Operation: operation, Path: "creds/myapi", Storage: m.storage, Secret: lease})
}

func TestALeaseCannotBeRenewed(t *testing.T) {
	t.Parallel()
	m, _ := newReadyMount(t)
	_, err := m.endLease(logical.RenewOperation, m.read("creds/myapi").Secret)
	require.ErrorIs(t, err, logical.ErrUnsupportedOperation)
}

func TestALeaseCanAlwaysBeRevoked(t *testing.T) {
	t.Parallel()
	for name, harm := range map[string]func(*mount, *provider){
		"as it is":       func(*mount, *provider) {},
		"twice":          func(m *mount, _ *provider) { _, _ = m.endLease(logical.RevokeOperation, m.read("creds/myapi").Secret) },
		"role gone":      func(m *mount, _ *provider) { m.delete("roles/myapi") },
		"key disabled":   func(m *mount, _ *provider) { m.write("keys/myapi", map[string]any{"disabled": true}) },
		"provider gone":  func(_ *mount, p *provider) { p.Close() },
		"config broken":  func(m *mount, _ *provider) { m.write("config", map[string]any{"allowed_hosts": "idp.example"}) },
		"storage is out": func(m *mount, _ *provider) { m.storage.intercept(func(verb, string) error { return errStorage }) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m, p := newReadyMount(t)
			lease := m.read("creds/myapi").Secret
			lease.InternalData = overJSON(t, lease.InternalData)
			harm(m, p)
			m.InvalidateKey(t.Context(), "role/myapi")
			resp, err := m.endLease(logical.RevokeOperation, lease)
			require.NoError(t, err)
			require.False(t, resp.IsError())
		})
	}
}

func TestALeaseOfAnEarlierVersionCanBeRevoked(t *testing.T) {
	t.Parallel()
	m := newMount(t)
	_, err := m.endLease(logical.RevokeOperation, &logical.Secret{InternalData: map[string]any{"secret_type": "access_token"}})
	require.NoError(t, err)
}
