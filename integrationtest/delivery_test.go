package integrationtest

import (
	"context"
	"encoding/json"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"
	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"github.com/bcgov/vault-plugin-bcgov-jwt/integrationtest/idp"
)

// TestDeliveriesOfKeycloaksTokens holds each delivery to its lease, its fields and its numbers, for a token of 300 s.
func TestDeliveriesOfKeycloaksTokens(t *testing.T) {
	t.Parallel()
	always := []string{"access_token", "token_type", "scope", "issued_at", "expires_at", "key_id", "token_jti"}
	rotation := []string{"ttl", "rotation_period", "last_vault_rotation"}
	rows := []struct {
		delivery string
		lease    int // seconds
		fields   []string
		fresh    bool // each read gets a token of its own
	}{
		{"leased", 240, []string{"expires_in"}, true},
		{"unleased", 0, append(rotation, "expires_in"), true},
		{"shared", 0, rotation, false},
	}
	for _, row := range rows {
		t.Run(row.delivery, func(t *testing.T) {
			t.Parallel()
			kc := realKeycloak(t)
			m := newMount(t, kc.config)
			m.newRole(t, kc, "myapi", 300*time.Second, map[string]any{"delivery": row.delivery})
			got := m.readSecret(t, "creds/myapi")
			require.ElementsMatch(t, append(always, row.fields...), slices.Collect(maps.Keys(got.Data)))
			requireSeconds(t, row.lease, got.LeaseDuration)
			require.Equal(t, row.lease != 0, got.LeaseID != "")
			require.False(t, got.Renewable)
			requireNumbers(t, got)

			again := m.readSecret(t, "creds/myapi")
			require.Equal(t, row.fresh, got.Data["token_jti"] != again.Data["token_jti"])
			require.True(t, kc.isActive(t, again))
		})
	}
}

// requireNumbers holds the numbers of an answer to the life of its token: 300 s, of which the margin is 60 s.
func requireNumbers(t *testing.T, got *api.Secret) {
	t.Helper()
	issuedAt, err := time.Parse(time.RFC3339, got.Data["issued_at"].(string))
	require.NoError(t, err)
	require.Equal(t, issuedAt.Add(300*time.Second), expiryOf(t, got))
	for field, wanted := range map[string]string{"expires_in": "300", "rotation_period": "240"} {
		if number, given := got.Data[field]; given {
			require.Equal(t, json.Number(wanted), number)
		}
	}
	if ttl, given := got.Data["ttl"].(json.Number); given {
		seconds, err := ttl.Int64()
		require.NoError(t, err)
		requireSeconds(t, 240, int(seconds))
		require.Equal(t, got.Data["issued_at"], got.Data["last_vault_rotation"])
	}
}

// readSecret is read for who wants the lease too.
func (m *mount) readSecret(t *testing.T, path string) *api.Secret {
	t.Helper()
	secret, err := m.client.Logical().ReadWithContext(t.Context(), m.path+"/"+path)
	require.NoError(t, err)
	require.NotNil(t, secret)
	return secret
}

func expiryOf(t *testing.T, creds *api.Secret) time.Time {
	t.Helper()
	expiresAt, err := time.Parse(time.RFC3339, creds.Data["expires_at"].(string))
	require.NoError(t, err)
	return expiresAt
}

// isActive asks the provider about the token (RFC 7662), as an API would.
func (p *provider) isActive(t *testing.T, creds *api.Secret) bool {
	t.Helper()
	claims, err := p.admin.Introspect(t.Context(), testRealm, apiClientID, apiSecret, creds.Data["access_token"].(string))
	require.NoError(t, err)
	active, ok := claims["active"].(bool)
	require.True(t, ok)
	return active
}

// TestEndOfALeaseRevokesItsToken at Keycloak, where the role says so.
func TestEndOfALeaseRevokesItsToken(t *testing.T) {
	t.Parallel()
	revoke := func(t *testing.T, m *mount, creds *api.Secret) {
		m.succeeds(t, "lease", "revoke", "-sync", creds.LeaseID)
	}
	rows := []struct {
		name    string
		revokes bool
		end     func(*testing.T, *mount, *api.Secret)
	}{
		{"by vault lease revoke", true, revoke},
		{"after the role was deleted", true, func(t *testing.T, m *mount, creds *api.Secret) {
			m.succeeds(t, "delete", "{mount}/roles/myapi")
			revoke(t, m, creds)
		}},
		{"by itself", true, func(*testing.T, *mount, *api.Secret) {}},
		{"with the mount", true, func(t *testing.T, m *mount, _ *api.Secret) {
			m.showKeysNow(t)
			m.succeeds(t, "secrets", "disable", "{mount}")
		}},
		{"without revoke_tokens", false, revoke},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			kc := realKeycloak(t)
			m := newMount(t, kc.config)
			m.newRole(t, kc, "myapi", 120*time.Second, map[string]any{"revoke_tokens": row.revokes, "refresh_margin": "110s"})
			creds := m.readSecret(t, "creds/myapi")
			requireSeconds(t, 10, creds.LeaseDuration)
			require.True(t, kc.isActive(t, creds))
			row.end(t, m, creds)
			if !row.revokes {
				require.True(t, kc.isActive(t, creds))
				return
			}
			require.Eventually(t, func() bool { return !kc.isActive(t, creds) }, time.Minute, 100*time.Millisecond)
			require.True(t, time.Now().Before(expiryOf(t, creds)), "it would have ended by itself")
		})
	}
}

// TestLeaseEndsThoughItsTokenIsNotRevoked: the provider is away, and Vault's log says what that means.
func TestLeaseEndsThoughItsTokenIsNotRevoked(t *testing.T) {
	t.Parallel()
	p, g := gatedKeycloak(t)
	m := newMount(t, p.config)
	m.newRole(t, p, "myapi", 300*time.Second, map[string]any{"revoke_tokens": true})
	creds := m.readSecret(t, "creds/myapi")
	g.cut()
	m.succeeds(t, "lease", "revoke", "-sync", creds.LeaseID)
	g.open()
	require.NotEmpty(t, g.requests("revoke"))
	require.True(t, p.isActive(t, creds))
	require.Empty(t, m.leases(t))

	log, err := os.ReadFile(shared.Vault.logFile())
	require.NoError(t, err)
	var told []string
	for line := range strings.Lines(string(log)) {
		if strings.Contains(line, creds.Data["token_jti"].(string)) {
			told = append(told, line)
		}
	}
	require.Len(t, told, 1)
	for _, text := range []string{"[WARN]", "a token was not revoked at the provider; it ends by itself", "role=myapi", "key=myapi", "expires_at=" + creds.Data["expires_at"].(string), "token revocation at "} {
		require.Contains(t, told[0], text)
	}
	require.NotContains(t, told[0], "eyJ", "the beginning of each JWT")
}

// leases are the ids of the leases of the mount's role myapi.
func (m *mount) leases(t *testing.T) []any {
	t.Helper()
	list, err := m.client.Logical().ListWithContext(t.Context(), "sys/leases/lookup/"+m.path+"/creds/myapi")
	require.NoError(t, err)
	if list == nil {
		return nil
	}
	leases, ok := list.Data["keys"].([]any)
	require.True(t, ok)
	return leases
}

// TestMountIsDisabledWithManyLeasesWhileTheProviderIsDown one after the other, as each is a load for the other tests.
func TestMountIsDisabledWithManyLeasesWhileTheProviderIsDown(t *testing.T) {
	t.Parallel()
	for _, revokes := range []bool{false, true} {
		disableWithManyLeases(t, revokes, "connections are refused", func(_ *gate, host *httptest.Server) { host.Close() })
		disableWithManyLeases(t, revokes, "nothing comes back", func(g *gate, _ *httptest.Server) { g.silence() })
	}
}

// disableWithManyLeases uses the vault command, which waits for a minute at most.
func disableWithManyLeases(t *testing.T, revokes bool, how string, shut func(*gate, *httptest.Server)) {
	t.Helper()
	const leases = 1000
	p, g, host := unobservedProvider(t)
	m := newMount(t, p.config)
	m.newRole(t, p, "myapi", 300*time.Second, map[string]any{"revoke_tokens": revokes})
	m.read(t, "creds/myapi") // whose token the witness knows
	m.crowded(t, 16).readOften(t, "creds/myapi", leases-1)
	require.Len(t, m.leases(t), leases)
	m.showKeysNow(t)

	shut(g, host)
	begun := time.Now()
	m.succeeds(t, "secrets", "disable", "{mount}")
	t.Logf("%s, revoke_tokens=%t: %d leases ended in %s", how, revokes, leases, time.Since(begun).Round(10*time.Millisecond))
	require.NotContains(t, m.succeeds(t, "secrets", "list"), m.path)
	require.Empty(t, m.leases(t))
}

// unobservedProvider is an embedded provider whose tokens are too many for the witness.
func unobservedProvider(t *testing.T) (*provider, *gate, *httptest.Server) {
	t.Helper()
	server := idp.New(idp.Options{})
	t.Cleanup(server.Close)
	require.NoError(t, server.AddRealm(testRealm))
	g := newGate(server)
	host := httptest.NewServer(g)
	t.Cleanup(host.Close)
	t.Cleanup(g.open) // it waits for what is under way
	return &provider{issuer: host.URL + "/realms/" + testRealm, put: registerAtAll(server), config: map[string]any{"allow_insecure_endpoints": true}}, g, host
}

// readOften reads a path from 16 readers at a time.
func (m *mount) readOften(t *testing.T, path string, times int) {
	t.Helper()
	var reads errgroup.Group
	reads.SetLimit(16)
	for range times {
		reads.Go(func() error {
			_, err := m.client.Logical().ReadWithContext(t.Context(), m.path+"/"+path)
			return err
		})
	}
	require.NoError(t, reads.Wait())
}

// TestVaultTokensWithLimits: who may use a Vault token once cannot hold a lease, and a batch token's leases end with it.
func TestVaultTokensWithLimits(t *testing.T) {
	t.Parallel()
	p, g := gatedKeycloak(t)
	m := newMount(t, p.config)
	for _, delivery := range []string{"leased", "unleased", "shared"} {
		m.newRole(t, p, delivery, 300*time.Second, map[string]any{"delivery": delivery, "revoke_tokens": delivery == "leased"})
	}
	policy := "reader-of-" + m.path
	require.NoError(t, m.client.Sys().PutPolicyWithContext(t.Context(), policy, `path "`+m.path+`/creds/*" { capabilities = ["read"] }`))
	t.Cleanup(func() {
		if err := m.client.Sys().DeletePolicyWithContext(context.WithoutCancel(t.Context()), policy); err != nil {
			t.Error(err)
		}
	})
	reader := func(limits api.TokenCreateRequest) *mount {
		limits.Policies = []string{policy}
		token, err := m.client.Auth().Token().CreateWithContext(t.Context(), &limits)
		require.NoError(t, err)
		return m.with(t, token.Auth.ClientToken)
	}

	for _, delivery := range []string{"unleased", "shared"} {
		once := reader(api.TokenCreateRequest{NumUses: 1})
		require.NotEmpty(t, once.read(t, "creds/"+delivery).text(t, "access_token"))
		require.Equal(t, http.StatusForbidden, once.do(t, http.MethodGet, "creds/"+delivery, nil, nil).status)
	}
	before := len(g.requests("revoke"))
	got := reader(api.TokenCreateRequest{NumUses: 1}).do(t, http.MethodGet, "creds/leased", nil, nil)
	require.Equal(t, http.StatusBadRequest, got.status)
	require.Contains(t, got.errorText(), "token had one use left")
	require.Eventually(t, func() bool { return len(g.requests("revoke")) > before }, 30*time.Second, 50*time.Millisecond, "the token that nobody got is revoked")

	batch := reader(api.TokenCreateRequest{Type: "batch", TTL: "60s"})
	require.InDelta(t, 50, batch.readSecret(t, "creds/leased").LeaseDuration, 10)
	require.Equal(t, 240, batch.read(t, "creds/unleased").number(t, "rotation_period"))
	require.Equal(t, 240, batch.read(t, "creds/shared").number(t, "rotation_period"))
}

// TestMountsLimitCutsTheLease: Vault says so itself.
func TestMountsLimitCutsTheLease(t *testing.T) {
	t.Parallel()
	kc := realKeycloak(t)
	m := newMount(t, kc.config)
	m.newRole(t, kc, "myapi", 300*time.Second, nil)
	m.succeeds(t, "secrets", "tune", "-max-lease-ttl=60s", "{mount}")
	got := m.readSecret(t, "creds/myapi")
	require.Equal(t, 60, got.LeaseDuration)
	require.Len(t, got.Warnings, 1)
	requireNames(t, got.Warnings[0], `TTL of "4m" exceeded the effective max_ttl of "1m"`)
	require.Equal(t, json.Number("300"), got.Data["expires_in"])
}

// TestMarginsThatATokenCannotKeep: one as long as the token's life, with a warning; and any margin of a token that lasts for a second. That one is the embedded
// provider's: Keycloak counts expires_in down while it answers, to 0 when it is slow.
func TestMarginsThatATokenCannotKeep(t *testing.T) {
	t.Parallel()
	for _, delivery := range []string{"leased", "unleased", "shared"} {
		t.Run("as long as the life, "+delivery, func(t *testing.T) {
			t.Parallel()
			kc := realKeycloak(t)
			m := newMount(t, kc.config)
			m.newRole(t, kc, "myapi", time.Minute, map[string]any{"delivery": delivery, "refresh_margin": 60})
			got := m.readSecret(t, "creds/myapi")
			require.Len(t, got.Warnings, 1)
			requireNames(t, got.Warnings[0], "refresh_margin is 1m", "12s is kept instead", "vault write "+m.path+"/roles/myapi refresh_margin=0")
			requirePeriod(t, 48, got)
		})
		t.Run("a life of a second, "+delivery, func(t *testing.T) {
			t.Parallel()
			p := embeddedProvider(t)
			m := newMount(t, p.config)
			m.newRole(t, p, "myapi", time.Second, map[string]any{"delivery": delivery})
			for range 3 {
				begun := time.Now()
				got := m.readSecret(t, "creds/myapi")
				require.Empty(t, got.Warnings)
				requirePeriod(t, 1, got)
				require.True(t, expiryOf(t, got).Add(time.Second).After(begun), "it was over when it was asked for")
			}
		})
	}
}

// requirePeriod wants readers to come back after these seconds.
func requirePeriod(t *testing.T, seconds int, got *api.Secret) {
	t.Helper()
	if got.LeaseID != "" {
		requireSeconds(t, seconds, got.LeaseDuration)
		return
	}
	require.Equal(t, json.Number(strconv.Itoa(seconds)), got.Data["rotation_period"])
	ttl, err := got.Data["ttl"].(json.Number).Int64()
	require.NoError(t, err)
	requireSeconds(t, seconds, int(ttl))
}

// requireSeconds allows for the time that it took to get the token, but for no 0, which is the mount's default for a lease, and no pause for a reader.
func requireSeconds(t *testing.T, wanted, got int) {
	t.Helper()
	require.LessOrEqual(t, got, wanted)
	require.GreaterOrEqual(t, got, min(wanted, max(wanted-10, 1)))
}

// TestAssertionIsExchangedElsewhere, by a caller that reaches Keycloak when Vault does not.
func TestAssertionIsExchangedElsewhere(t *testing.T) {
	t.Parallel()
	p, g := gatedKeycloak(t)
	m := newMount(t, p.config)
	m.newRole(t, p, "myapi", 300*time.Second, nil)
	m.refuses(t, "vault write "+m.path+"/roles/myapi allow_assertion=true", "read", "{mount}/assertion/myapi")
	m.succeeds(t, "write", "{mount}/roles/myapi", "allow_assertion=true")
	m.write(t, "keys/myapi", map[string]any{"token_endpoint": p.tokenEndpoint()})

	g.cut()
	got := m.read(t, "assertion/myapi")
	require.Equal(t, http.StatusBadGateway, m.do(t, http.MethodGet, "creds/myapi", nil, nil).status, "Vault does not reach it")
	key := m.read(t, "keys/myapi")
	require.Equal(t, p.tokenEndpoint(), got.text(t, "token_endpoint"))
	require.Equal(t, p.issuer, got.text(t, "issuer"))
	require.Equal(t, key.text(t, "client_id"), got.text(t, "client_id"))
	require.Equal(t, key.text(t, "key_id"), got.text(t, "key_id"))
	expiresAt, err := time.Parse(time.RFC3339, got.text(t, "expires_at"))
	require.NoError(t, err)
	require.WithinDuration(t, time.Now().Add(45*time.Second), expiresAt, 10*time.Second)

	status, answered := postAssertion(t, got)
	require.Equal(t, http.StatusOK, status, answered.Description)
	require.NotEmpty(t, answered.AccessToken)
	status, answered = postAssertion(t, got)
	require.Equal(t, http.StatusBadRequest, status)
	require.Equal(t, "Token reuse detected", answered.Description)
	require.NotEqual(t, got.text(t, "jti"), m.read(t, "assertion/myapi").text(t, "jti"))
}

// tokenAnswer is what a token endpoint says.
type tokenAnswer struct {
	AccessToken string `json:"access_token"`
	Description string `json:"error_description"`
}

// postAssertion exchanges an assertion without Vault, and round the gate: Keycloak takes its address from the Host header.
func postAssertion(t *testing.T, got answer) (status int, answered tokenAnswer) {
	t.Helper()
	form := url.Values{"grant_type": {"client_credentials"}}
	for _, field := range []string{"client_id", "client_assertion_type", "client_assertion"} {
		form.Set(field, got.text(t, field))
	}
	endpoint, err := url.Parse(got.text(t, "token_endpoint"))
	require.NoError(t, err)
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, shared.Keycloak+endpoint.Path, strings.NewReader(form.Encode()))
	require.NoError(t, err)
	req.Host = endpoint.Host
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	resp, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	defer resp.Body.Close()
	require.NoError(t, json.NewDecoder(resp.Body).Decode(&answered))
	if answered.AccessToken != "" {
		shared.witness.addToken(tokenPart, answered.AccessToken)
	}
	return resp.StatusCode, answered
}

// TestSharedTokenRestsOnItsSettings: whatever a token was asked for with, its readers get another one once that has changed. info counts them.
func TestSharedTokenRestsOnItsSettings(t *testing.T) {
	t.Parallel()
	kc := realKeycloak(t)
	m := newMount(t, kc.config)
	held := func() int { return m.read(t, "info").number(t, "shared_tokens") }
	token := func(role string) string { return m.read(t, "creds/"+role).text(t, "token_jti") }
	for i, role := range []string{"myapi", "other"} {
		m.newRole(t, kc, role, 300*time.Second, map[string]any{"delivery": "shared"})
		require.Equal(t, i, held())
		first := token(role)
		require.Equal(t, first, token(role))
		require.Equal(t, i+1, held())
	}
	changes := []struct {
		path   string
		change map[string]any
		others bool // it concerns the other role too
	}{
		{"roles/myapi", map[string]any{"refresh_margin": 20}, false},
		{"keys/myapi", map[string]any{"assertion_ttl": 40}, false},
		{"config", map[string]any{"max_retries": 1}, true},
	}
	for _, row := range changes {
		mine, other := token("myapi"), token("other")
		m.write(t, row.path, row.change)
		require.NotEqual(t, mine, token("myapi"), row.path)
		require.Equal(t, row.others, other != token("other"), row.path)
		require.Equal(t, 2, held())
	}
	m.delete(t, "roles/myapi")
	require.Equal(t, 1, held())
}
