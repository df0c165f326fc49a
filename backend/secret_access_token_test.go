package backend

import (
	"testing"
	"time"

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

func TestRefreshMargin(t *testing.T) {
	t.Parallel()
	for life, margin := range map[time.Duration]time.Duration{
		1: 1, 2: 1, 3: 1, 4: 2, 5: 2, 10: 5, 20: 10, 30: 10, 50: 10, 51: 10, 55: 11, 60: 12, 299: 59, 300: 60, 301: 60, 3600: 60, 86400: 60,
	} {
		require.Equal(t, margin*time.Second, refreshMargin(life*time.Second), "of %d s", life)
		require.Equal(t, max(life-margin, 1)*time.Second, leaseTTL(life*time.Second), "of %d s", life)
	}
}
