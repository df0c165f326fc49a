package rotation

import (
	"crypto/rand"
	"net/http"
	"net/url"
	"path"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bcgov/vault-plugin-bcgov-jwt/integrationtest/harness"
)

// TestJWKSRotation_FailsNoRead rotates three times while creds is read all the time; Keycloak
// fetches the keys from Vault itself. A unit test, which moves the clock, checks that an assertion
// signed with the old key is rejected after overlap_period: the minimum of that is too long to wait
// for here.
func TestJWKSRotation_FailsNoRead(t *testing.T) {
	t.Parallel()
	kc := harness.Keycloak(t)
	m := newMount(t, kc)
	name := "scheduled-" + rand.Text()
	source := newJWKSSource(t)
	m.NewJWKSClient(t, kc, name, source.URL, map[string]any{"prepublish_period": 0})
	keyID := func() string { return m.Read(t, "creds/"+name).Text(t, "key_id") }
	reads := m.StartLoad(t, name)
	m.EventuallyAccepted(t, name, 1, promptly)
	require.EqualValues(t, 1, source.fetches.Load())

	// Within 10 s of the load Keycloak does not fetch again: version 1 continues to sign.
	rotated := m.Write(t, "keys/"+name+"/rotate", nil)
	require.Equal(t, 2, rotated.Number(t, "active_version"))
	harness.RequireTexts(t, strings.Join(rotated.Warnings, " "), "prepublish_period is 0s")
	versions := m.Versions(t, name)
	signedBy := keyID()
	if source.fetches.Load() == 1 { // a busy machine may need longer than that to come here
		require.Equal(t, versions.Version(t, 1, "key_id"), signedBy)
	}
	m.EventuallyAccepted(t, name, 2, acceptTimeout)
	require.Equal(t, rotated.Text(t, "key_id"), keyID())

	// Published ten seconds before it signs, which leaves a busy machine time to see it staged.
	m.Write(t, "keys/"+name, map[string]any{"prepublish_period": 10})
	rotated = m.Write(t, "keys/"+name+"/rotate", nil)
	require.Equal(t, 3, rotated.Number(t, "staged_version"))
	versions = m.Versions(t, name)
	require.Equal(t, versions.Version(t, 2, "key_id"), keyID())
	require.Equal(t, []string{
		versions.Version(t, 3, "key_id"), versions.Version(t, 2, "key_id"),
		versions.Version(t, 1, "key_id"),
	}, publishedKeyIDs(t, m, name))
	m.EventuallyAccepted(t, name, 3, 10*time.Second+acceptTimeout)

	// More than 10 s after the load: the first rejected assertion makes Keycloak fetch.
	m.Write(t, "keys/"+name, map[string]any{"prepublish_period": 0})
	harness.Sleep(t, reloadPause)
	fetches := source.fetches.Load()
	rotated = m.Write(t, "keys/"+name+"/rotate", nil)
	require.Equal(t, rotated.Text(t, "key_id"), keyID(), "the very next read")
	require.Equal(t, fetches+1, source.fetches.Load())
	key := m.EventuallyAccepted(t, name, 4, promptly)
	harness.Sleep(t, time.Second)
	reads.End(t)
	versions = m.Versions(t, name)
	require.Equal(t, "schedule", versions.Version(t, 4, "activated_by"))
	require.Empty(t, activationsOf(t, name), "with jwks the schedule activates")

	// A destroyed version is accepted until Keycloak fetches the keys again, and rejected from then
	// on.
	destroyedID := versions.Version(t, 3, "key_id")
	destroyed := privateKey(t, m, name, destroyedID)
	m.RecordPrivateKeys(t)
	m.Write(t, "keys/"+name+"/destroy", map[string]any{"version": 3})
	require.Equal(t, http.StatusOK, requestToken(t, kc, key, destroyed, destroyedID),
		"before Keycloak fetches again")
	harness.Sleep(t, reloadPause)
	m.Write(t, "keys/"+name+"/rotate", nil)
	m.Read(t, "creds/"+name)
	m.EventuallyAccepted(t, name, 5, promptly)
	require.Equal(t, http.StatusBadRequest, requestToken(t, kc, key, destroyed, destroyedID))
}

// TestJWKSRotation_UnreachableKeySet rotates while Keycloak cannot fetch the JWKS. A unit test,
// which moves the clock, checks that nothing expires for three times overlap_period, and that the
// automatic rotation waits as long.
func TestJWKSRotation_UnreachableKeySet(t *testing.T) {
	t.Parallel()
	outages := map[string]http.HandlerFunc{
		"the connection is cut": func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
		"an answer 503 in its place": func(w http.ResponseWriter, _ *http.Request) {
			http.Error(w, `{"errors":["Vault is sealed"]}`, http.StatusServiceUnavailable)
		},
		"a page in its place": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/html")
			_, _ = w.Write([]byte("<html>proxy</html>"))
		},
	}
	for outage, handler := range outages {
		t.Run(outage, func(t *testing.T) {
			t.Parallel()
			kc := harness.Keycloak(t)
			m := newMount(t, kc)
			name := "unreachable-" + rand.Text()
			source := newJWKSSource(t)
			m.NewJWKSClient(t, kc, name, source.URL, map[string]any{
				"type": "ecdsa-p256", "prepublish_period": 0, "assertion_ttl": 30, "overlap_period": 105,
			})
			reads := m.StartLoad(t, name)
			m.EventuallyAccepted(t, name, 1, promptly)

			source.fail(handler)
			before := source.fetches.Load()
			m.Write(t, "keys/"+name+"/rotate", nil)
			require.Eventually(t, func() bool { return source.fetches.Load() > before },
				acceptTimeout, 100*time.Millisecond, "Keycloak does not fetch")
			harness.Sleep(t, 5*time.Second)
			require.Equal(t, 2, m.Read(t, "keys/"+name).Number(t, "active_version"))
			versions := m.Versions(t, name)
			require.Empty(t, versions.Version(t, 2, "accepted_time"))
			require.Empty(t, versions.Version(t, 1, "expire_time"),
				"what the provider knows does not expire")
			require.Equal(t, versions.Version(t, 1, "key_id"),
				m.Read(t, "creds/"+name).Text(t, "key_id"))

			source.recover()
			m.EventuallyAccepted(t, name, 2, acceptTimeout)
			require.NotEmpty(t, m.Versions(t, name).Version(t, 1, "expire_time"))
			harness.Sleep(t, time.Second)
			reads.End(t)
		})
	}
}

// TestJWKS_KeyOfSameNameHasOtherURL: a new key inherits neither the JWKS URL of a deleted key of
// its name nor a role that named that key.
func TestJWKS_KeyOfSameNameHasOtherURL(t *testing.T) {
	t.Parallel()
	p := harness.EmbeddedProvider(t)
	m := harness.NewMount(t, p.Config)
	settings := map[string]any{"type": "ed25519", "registration": "jwks", "deletion_allowed": true}
	m.NewClient(t, p, "myapi", settings)
	m.Read(t, "creds/myapi")
	old := m.Read(t, "keys/myapi").Text(t, "jwks_path")
	require.Len(t, publishedKeyIDs(t, m, "myapi"), 1)
	role := m.Stored(t, "role/myapi")
	m.RecordPrivateKeys(t)
	m.Delete(t, "roles/myapi")
	m.Delete(t, "keys/myapi")
	requireNoKeySet(t, old)

	m.NewClient(t, p, "myapi", settings)
	m.Read(t, "creds/myapi")
	requireNoKeySet(t, old)
	require.NotEqual(t, old, m.Read(t, "keys/myapi").Text(t, "jwks_path"))
	require.Len(t, publishedKeyIDs(t, m, "myapi"), 1)

	// What a restored snapshot or a lost race may leave: the old role beside the new key. No API
	// creates it.
	m.Delete(t, "roles/myapi")
	raw := map[string]any{"value": role}
	_, err := m.Client.Logical().WriteWithContext(t.Context(), m.RawPath("role/myapi"), raw)
	require.NoError(t, err)
	got := m.Do(t, http.MethodGet, "creds/myapi", nil, nil)
	require.Equal(t, http.StatusBadRequest, got.Status, got.ErrorText())
	harness.RequireTexts(t, got.ErrorText(), m.Expand("vault write {mount}/roles/myapi"))

	// A key that a person registers publishes nothing, and so do names and junk.
	current := m.Read(t, "keys/myapi").Text(t, "jwks_path")
	m.Write(t, "keys/myapi", map[string]any{"registration": "manual"})
	require.Empty(t, m.Read(t, "keys/myapi").Text(t, "jwks_path"))
	id := path.Base(current)
	for _, id := range []string{id, "myapi", strings.ToLower(id), "a b", strings.Repeat("A", 300)} {
		requireNoKeySet(t, "/v1/"+m.Path+"/jwks/"+url.PathEscape(id))
	}
}
