package cluster

import (
	"fmt"
	"maps"
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"
	"github.com/stretchr/testify/require"

	"github.com/bcgov/vault-plugin-bcgov-jwt/integrationtest/harness"
)

// TestNodes_ServeAlike runs on one cluster what holds while all of its nodes are well.
func TestNodes_ServeAlike(t *testing.T) { //nolint:tparallel // some kill the process
	t.Parallel()
	c := harness.StartCluster(t, 3, harness.ClusterSettings{})
	t.Run("in parallel", func(t *testing.T) {
		for name, test := range map[string]func(*testing.T, harness.Cluster){
			"each node serves every path and accepts every write": everyNodeServes,
			"a leased read is one token request":                  leasedReadIsOneRequest,
			"other deliveries are served where they come":         otherDeliveriesAreServedLocally,
			"a shared token is one request per life and node":     sharedTokenPerNode,
			"what a standby learned is stored":                    acceptanceIsStored,
		} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				test(t, c)
			})
		}
	})
	// These kill the process of all mounts.
	t.Run("two mounts share a process", func(t *testing.T) { //nolint:paralleltest // see above
		mountsShareProcess(t, c, newEngine(t, c, "one", nil), newEngine(t, c, "two", nil))
	})
	t.Run("two namespaces share a process", func(t *testing.T) { //nolint:paralleltest // see above
		harness.RequireNamespaces(t)
		var engines []engine
		for _, namespace := range []string{"namespace-one", "namespace-two"} {
			path := "sys/namespaces/" + namespace
			_, err := c.Active(t).NewClient(t).Logical().WriteWithContext(t.Context(), path, nil)
			require.NoError(t, err)
			engines = append(engines, newEngineIn(t, c, namespace, "bcgov-jwt", nil))
		}
		mountsShareProcess(t, c, engines[0], engines[1])
	})
}

func everyNodeServes(t *testing.T, c harness.Cluster) {
	p, _ := countedProvider(t)
	e := newEngine(t, c, "every-path", p.Config)
	for i, writer := range e.on {
		key := fmt.Sprintf("key-%d", i)
		jwks := c[(i+1)%len(c)].URL()
		writer.NewJWKSClient(t, p, key+"-jwks", jwks, map[string]any{"type": "ecdsa-p256"})
		newRoles(t, writer, p, key)
		for _, m := range e.on {
			e.awaitSame(t, seenWithin, "keys/"+key)
			e.awaitSame(t, seenWithin, "roles/"+key+"-shared")
			requireServes(t, m, key)
			requireJWKS(t, m, key+"-jwks")
		}
		requireRotates(t, e, p, writer, key)
		writer.Delete(t, "roles/"+key+"-shared")
		e.eventually(t, seenWithin, "creds/"+key+"-shared", func(got harness.Response) bool {
			return got.Status == http.StatusBadRequest
		})
	}
	e.recordPrivateKeys(t)
}

// newRoles creates a key, its client at the provider, and a role for each delivery.
func newRoles(t *testing.T, m *harness.Mount, p *harness.Provider, key string) {
	t.Helper()
	m.NewClient(t, p, key, map[string]any{"type": "ecdsa-p256"})
	for _, delivery := range deliveries() {
		m.Write(t, "roles/"+key+"-"+delivery, map[string]any{
			"key": key, "delivery": delivery, "allow_assertion": true,
		})
	}
}

func deliveries() []string { return []string{"leased", "unleased", "shared"} }

func rolesOf(key string) (names []string) {
	for _, delivery := range deliveries() {
		names = append(names, key+"-"+delivery)
	}
	return names
}

// requireServes requires that a node serves all that can be read.
func requireServes(t *testing.T, m *harness.Mount, key string) {
	t.Helper()
	for _, delivery := range deliveries() {
		role := key + "-" + delivery
		got := m.ReadSecret(t, "creds/"+role)
		require.NotEmpty(t, got.Data["access_token"])
		require.Equal(t, delivery == "leased", got.LeaseID != "")
		require.NotEmpty(t, m.Read(t, "assertion/"+role).Text(t, "client_assertion"))
		check := m.Read(t, "check/"+role)
		require.Equal(t, true, check.Data["ok"], check.Data["report"])
		require.Contains(t, m.Do(t, "LIST", "roles", nil, nil).Data["keys"], role)
	}
	require.Contains(t, m.Do(t, "LIST", "keys", nil, nil).Data["keys"], key)
	require.NotEmpty(t, m.Read(t, "wrapping_key").Text(t, "public_key"))
	require.Equal(t, "test", m.Read(t, "info").Text(t, "commit"))
}

// requireJWKS reads a key's document without a Vault token; the provider has read it through
// another node, and accepts the key.
func requireJWKS(t *testing.T, m *harness.Mount, key string) {
	t.Helper()
	document := m.Client.Address() + m.Read(t, "keys/"+key).Text(t, "jwks_path")
	for _, method := range []string{http.MethodGet, http.MethodHead} {
		req, err := http.NewRequestWithContext(t.Context(), method, document, http.NoBody)
		require.NoError(t, err)
		resp, err := http.DefaultClient.Do(req)
		require.NoError(t, err)
		require.NoError(t, resp.Body.Close())
		require.Equal(t, http.StatusOK, resp.StatusCode)
		require.Equal(t, "application/jwk-set+json", resp.Header.Get("Content-Type"))
	}
	require.NotEmpty(t, m.Read(t, "creds/"+key).Text(t, "access_token"))
}

// requireRotates rotates a key through one node, and requires that each follows.
func requireRotates(
	t *testing.T, e engine, p *harness.Provider, writer *harness.Mount, key string,
) {
	t.Helper()
	staged := writer.Write(t, "keys/"+key+"/rotate", nil)
	e.awaitSame(t, seenWithin, "keys/"+key)
	p.Register(t, staged.Text(t, "client_id"), staged.Text(t, "public_key"))
	for _, m := range e.on {
		m.Read(t, "creds/"+key+"-unleased")
	}
	e.eventually(t, seenWithin, "keys/"+key+"/versions/2", func(got harness.Response) bool {
		return got.Data["state"] == "active" && got.Data["accepted_time"] != ""
	})
	writer.Write(t, "keys/"+key+"/destroy", map[string]any{"version": 1})
	e.eventually(t, seenWithin, "keys/"+key+"/versions/1", func(got harness.Response) bool {
		return got.Status == http.StatusBadRequest
	})
}

// leasedReadIsOneRequest reads through each node, which must not request a token that it cannot
// deliver.
func leasedReadIsOneRequest(t *testing.T, c harness.Cluster) {
	p, requests := countedProvider(t)
	e := newEngine(t, c, "leased", p.Config)
	active := e.through(c.Active(t))
	active.NewClient(t, p, "myapi", map[string]any{"type": "ecdsa-p256"})
	active.Write(t, "keys/myapi", map[string]any{
		"revocation_endpoint": p.Issuer + "/protocol/openid-connect/revoke",
	})
	active.Write(t, "roles/myapi", map[string]any{"revoke_tokens": true})
	e.awaitSame(t, seenWithin, "keys/myapi")
	e.awaitSame(t, seenWithin, "roles/myapi")
	for i, m := range e.on {
		tokens, revocations := requests.count("token"), requests.count("revoke")
		exchanges := active.Read(t, "info").Number(t, "exchanges")
		creds := m.ReadSecret(t, "creds/myapi")
		require.NotEmpty(t, creds.LeaseID)
		require.Equal(t, tokens+1, requests.count("token"), "through %s", c[i].Name)
		require.Equal(t, exchanges+1, active.Read(t, "info").Number(t, "exchanges"))
		require.NoError(t, m.Client.Sys().RevokeWithOptionsWithContext(t.Context(),
			&api.RevokeOptions{LeaseID: creds.LeaseID, Sync: true}))
		require.Equal(t, revocations+1, requests.count("revoke"))
	}
	e.recordPrivateKeys(t)
}

// otherDeliveriesAreServedLocally counts what each node requested. Vault's standbys forward all
// requests.
func otherDeliveriesAreServedLocally(t *testing.T, c harness.Cluster) {
	const reads = 20
	p, _ := countedProvider(t)
	e := newEngine(t, c, "local", p.Config)
	active := e.through(c.Active(t))
	newRoles(t, active, p, "myapi")
	active.Read(t, "creds/myapi-unleased") // its acceptance is stored
	e.awaitSame(t, seenWithin, "keys/myapi")
	e.awaitSame(t, seenWithin, "roles/myapi-shared")
	before := e.exchanges(t)
	for _, m := range e.on {
		for range reads {
			m.Read(t, "creds/myapi-unleased")
			m.Read(t, "creds/myapi-shared")
		}
	}
	for i, exchanges := range e.exchanges(t) {
		want := reads + 1
		if !standbysServe() {
			want = len(e.on)*reads + 1
		}
		require.Equal(t, want, exchanges-before[i], "token requests of %s", c[i].Name)
	}
	e.recordPrivateKeys(t)
}

// exchanges returns the token requests that each node counted.
func (e engine) exchanges(t *testing.T) []int {
	t.Helper()
	var counts []int
	for _, m := range e.on {
		counts = append(counts, m.Read(t, "info").Number(t, "exchanges"))
	}
	return counts
}

// sharedTokenPerNode reads through each node for some lives of a token, each of which is one token
// request: of each node that serves reads.
func sharedTokenPerNode(t *testing.T, c harness.Cluster) {
	const lifetime, lives = 10 * time.Second, 4
	p, requests := countedProvider(t)
	e := newEngine(t, c, "shared", p.Config)
	active := e.through(c.Active(t))
	active.NewClientWithTokenLifetime(t, p, "myapi", lifetime,
		map[string]any{"type": "ecdsa-p256"}, nil)
	active.Read(t, "creds/myapi") // its acceptance is stored
	active.Write(t, "roles/myapi", map[string]any{"delivery": "shared"})
	e.awaitSame(t, seenWithin, "keys/myapi")
	e.awaitSame(t, seenWithin, "roles/myapi")

	before := requests.count("token")
	tokens := make([]map[string]bool, len(e.on))
	for i := range tokens {
		tokens[i] = map[string]bool{}
	}
	read := func() bool {
		all := map[string]bool{}
		for i, m := range e.on {
			tokens[i][m.Read(t, "creds/myapi").Text(t, "token_jti")] = true
			maps.Copy(all, tokens[i])
		}
		return requests.count("token")-before == len(all)
	}
	require.Eventually(t, func() bool {
		read()
		return !slices.ContainsFunc(tokens, func(seen map[string]bool) bool { return len(seen) < lives })
	}, lives*lifetime, 20*time.Millisecond, "%d lives", lives)
	// A refresh may be under way.
	require.Eventually(t, read, lifetime, 20*time.Millisecond, "a request for each token and no other")
	total := requests.count("token") - before
	t.Logf("%d token requests for %d, %d and %d tokens seen through the nodes", total,
		len(tokens[0]), len(tokens[1]), len(tokens[2]))
	if standbysServe() {
		require.GreaterOrEqual(t, total, lives*len(e.on))
	} else {
		require.Equal(t, tokens[0], tokens[1])
		require.Equal(t, tokens[0], tokens[2])
	}
	e.recordPrivateKeys(t)
}

// acceptanceIsStored: a cluster that is read only through a standby still deletes old versions.
func acceptanceIsStored(t *testing.T, c harness.Cluster) {
	p, requests := countedProvider(t)
	e := newEngine(t, c, "acceptance", p.Config)
	active := c.Active(t)
	newRoles(t, e.through(active), p, "myapi")
	e.awaitSame(t, seenWithin, "roles/myapi-shared")
	standby := e.through(c.Except(active)[0])
	for _, role := range []string{"creds/myapi-unleased", "creds/myapi-shared"} {
		version := e.through(active).Read(t, "keys/myapi").Number(t, "public_key_version")
		accepted := func() bool {
			versions := e.through(active).Versions(t, "myapi")
			return versions.Version(t, version, "accepted_time") != ""
		}
		require.False(t, accepted())
		reads := 0
		require.Eventually(t, func() bool {
			standby.Read(t, role)
			reads++
			return accepted()
		}, seenWithin, 100*time.Millisecond, "stored by the active node")
		t.Logf("%s: stored after %d reads, %d token requests", role, reads, requests.count("token"))
		staged := e.through(active).Write(t, "keys/myapi/rotate", nil)
		e.awaitSame(t, seenWithin, "keys/myapi")
		p.Register(t, staged.Text(t, "client_id"), staged.Text(t, "public_key"))
		if role == "creds/myapi-unleased" { // a shared token would be served until it expires
			e.through(active).Write(t, "roles/myapi-shared", map[string]any{"refresh_margin": "20s"})
			e.awaitSame(t, seenWithin, "roles/myapi-shared")
		}
	}
	e.recordPrivateKeys(t)
}

// mountsShareProcess: what one mount has, and what happens to it, is nothing to the other.
func mountsShareProcess(t *testing.T, c harness.Cluster, one, two engine) {
	t.Helper()
	p, _ := countedProvider(t)
	for _, e := range []engine{one, two} {
		e.on[0].Write(t, "config", p.Config)
		e.awaitSame(t, seenWithin, "config")
		newRoles(t, e.on[0], p, "myapi")
		e.awaitSame(t, seenWithin, "roles/myapi-shared")
	}
	one.on[0].Write(t, "keys/myapi", map[string]any{"disabled": true})
	one.eventually(t, seenWithin, "creds/myapi-unleased", func(got harness.Response) bool {
		return got.Status == http.StatusBadRequest
	})
	for _, m := range two.on {
		requireServes(t, m, "myapi")
	}
	for _, v := range c {
		if standbysServe() || v.IsActive(t.Context()) {
			two.through(v).KillPlugin(t, v.VaultServer, harness.PluginName) // there is only one
		}
		require.Equal(t, http.StatusBadRequest,
			one.through(v).Do(t, http.MethodGet, "creds/myapi-unleased", nil, nil).Status)
		requireServes(t, two.through(v), "myapi")
	}
	one.recordPrivateKeys(t)
	two.recordPrivateKeys(t)
}

func (e engine) recordPrivateKeys(t *testing.T) {
	t.Helper()
	e.on[0].RecordPrivateKeys(t)
}
