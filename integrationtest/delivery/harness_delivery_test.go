package delivery

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"
	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"github.com/bcgov/vault-plugin-bcgov-jwt/integrationtest/harness"
)

// newRole creates a role, with these settings, whose access tokens live this long.
func newRole(
	t *testing.T, m *harness.Mount, p *harness.Provider, name string, lifetime time.Duration,
	settings map[string]any,
) {
	t.Helper()
	key := map[string]any{"type": "ed25519"} // Keycloak 26.4 rejects a pasted EC key
	m.NewClientWithTokenLifetime(t, p, name, lifetime, key, settings)
}

// requireNumbers compares the numbers of creds with the lifetime of their token: 300 s, of which
// the margin is 60 s.
func requireNumbers(t *testing.T, creds *api.Secret) {
	t.Helper()
	requireLifetime(t, 300*time.Second, creds)
	if number, present := creds.Data["rotation_period"]; present {
		require.Equal(t, json.Number("240"), number) // of 299 s too
	}
	if _, present := creds.Data["ttl"]; present {
		requireSeconds(t, 240, int(harness.SecondsField(t, creds, "ttl").Seconds()))
		require.Equal(t, creds.Data["issued_at"], creds.Data["last_vault_rotation"])
	}
}

// requireLifetime requires that a token of the real Keycloak has this lifetime, or a second less:
// Keycloak reads its clock twice.
func requireLifetime(t *testing.T, want time.Duration, creds *api.Secret) time.Duration {
	t.Helper()
	got := harness.TimeField(t, creds, "expires_at").Sub(harness.TimeField(t, creds, "issued_at"))
	require.Contains(t, []time.Duration{want - time.Second, want}, got)
	if seconds, ok := creds.Data["expires_in"]; ok {
		require.Equal(t, json.Number(strconv.Itoa(int(got.Seconds()))), seconds)
	}
	return got
}

// requirePeriod requires that readers return after these seconds.
func requirePeriod(t *testing.T, seconds int, creds *api.Secret) {
	t.Helper()
	if creds.LeaseID != "" {
		requireSeconds(t, seconds, creds.LeaseDuration)
		return
	}
	require.Equal(t, json.Number(strconv.Itoa(seconds)), creds.Data["rotation_period"])
	requireSeconds(t, seconds, int(harness.SecondsField(t, creds, "ttl").Seconds()))
}

// requireSeconds allows for the time that it took to obtain the token, but not for 0: that is the
// mount's default for a lease, and no pause for a reader.
func requireSeconds(t *testing.T, want, got int) {
	t.Helper()
	require.LessOrEqual(t, got, want)
	require.GreaterOrEqual(t, got, min(want, max(want-10, 1)))
}

// disableWithManyLeases uses the vault command, which waits for a minute at most.
func disableWithManyLeases(
	t *testing.T, revokes bool, how string, closeProvider func(*gate, *httptest.Server),
) {
	t.Helper()
	const leases = 1000
	p, g, host := unobservedProvider(t)
	m := harness.NewMount(t, p.Config)
	newRole(t, m, p, "myapi", 300*time.Second, map[string]any{"revoke_tokens": revokes})
	m.Read(t, "creds/myapi") // whose token the leak detector knows
	readRepeatedly(t, m.WithConnections(t, 16), "creds/myapi", leases-1)
	require.Len(t, m.Leases(t, "myapi"), leases)
	m.RecordPrivateKeys(t)

	closeProvider(g, host)
	begun := time.Now()
	m.MustRun(t, "secrets", "disable", "{mount}")
	t.Logf("%s, revoke_tokens=%t: %d leases ended in %s",
		how, revokes, leases, time.Since(begun).Round(10*time.Millisecond))
	require.NotContains(t, m.MustRun(t, "secrets", "list"), m.Path)
	require.Empty(t, m.Leases(t, "myapi"))
}

// readRepeatedly reads a path from 16 readers at a time.
func readRepeatedly(t *testing.T, m *harness.Mount, path string, times int) {
	t.Helper()
	var reads errgroup.Group
	reads.SetLimit(16)
	for range times {
		reads.Go(func() error {
			_, err := m.Client.Logical().ReadWithContext(t.Context(), m.Path+"/"+path)
			return err
		})
	}
	require.NoError(t, reads.Wait())
}

// tokenResponse is the response of a token endpoint.
type tokenResponse struct {
	AccessToken string `json:"access_token"`
	Description string `json:"error_description"`
}

// postAssertion exchanges an assertion without Vault, and past the gate: Keycloak derives its
// address from the Host header.
func postAssertion(t *testing.T, assertion harness.Response) (status int, response tokenResponse) {
	t.Helper()
	form := url.Values{"grant_type": {"client_credentials"}}
	for _, field := range []string{"client_id", "client_assertion_type", "client_assertion"} {
		form.Set(field, assertion.Text(t, field))
	}
	endpoint, err := url.Parse(assertion.Text(t, "token_endpoint"))
	require.NoError(t, err)
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost,
		harness.KeycloakURL()+endpoint.Path, strings.NewReader(form.Encode()))
	require.NoError(t, err)
	req.Host = endpoint.Host
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	resp, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	defer resp.Body.Close()
	require.NoError(t, json.NewDecoder(resp.Body).Decode(&response))
	if response.AccessToken != "" {
		harness.Detector().AddAccessToken(response.AccessToken)
	}
	return resp.StatusCode, response
}

// mountAt mounts the plugin in a server until the test ends.
func mountAt(t *testing.T, vault *harness.RaftVault, path string) *harness.Mount {
	t.Helper()
	m := vault.NewMount(t, path)
	m.UnmountAfterTest(t)
	return m
}
