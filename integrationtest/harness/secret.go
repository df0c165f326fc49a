package harness

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"
	"github.com/stretchr/testify/require"
)

// ReadSecret is Read for a test that needs the lease too.
func (m *Mount) ReadSecret(t *testing.T, path string) *api.Secret {
	t.Helper()
	return ReadSecret(t, m.Client, m.Path+"/"+path)
}

// ReadSecret reads a path of the server with Vault's own client.
func ReadSecret(t *testing.T, client *api.Client, path string) *api.Secret {
	t.Helper()
	secret, err := client.Logical().ReadWithContext(t.Context(), path)
	require.NoError(t, err)
	require.NotNil(t, secret)
	return secret
}

// Leases returns the ids of the leases of a role.
func (m *Mount) Leases(t *testing.T, role string) []any {
	t.Helper()
	path := "sys/leases/lookup/" + m.Path + "/creds/" + role
	list, err := m.Client.Logical().ListWithContext(t.Context(), path)
	require.NoError(t, err)
	if list == nil {
		return nil
	}
	leases, ok := list.Data["keys"].([]any)
	require.True(t, ok)
	return leases
}

// TimeField returns a field of a secret that must be a time.
func TimeField(t *testing.T, secret *api.Secret, field string) time.Time {
	t.Helper()
	text, ok := secret.Data[field].(string)
	require.True(t, ok, "%s is not a string", field)
	value, err := time.Parse(time.RFC3339, text)
	require.NoError(t, err)
	return value
}

// SecondsField returns a field of a secret that must be a whole number of seconds.
func SecondsField(t *testing.T, secret *api.Secret, field string) time.Duration {
	t.Helper()
	number, ok := secret.Data[field].(json.Number)
	require.True(t, ok, "%s is not a number", field)
	seconds, err := number.Int64()
	require.NoError(t, err)
	return time.Duration(seconds) * time.Second
}
