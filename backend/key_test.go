package backend

import (
	"context"
	"crypto/rand"
	"errors"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bcgov/vault-plugin-bcgov-jwt/integrationtest/idp"
	"github.com/hashicorp/vault/sdk/helper/consts"
	"github.com/hashicorp/vault/sdk/logical"
	"github.com/stretchr/testify/require"
)

// TestKey_WithPinnedEndpointsSendsNothingSecretToItsIssuer is an operator who may write only issuer: the host that it names
// may learn nothing that is worth anything, not by check, nor at the end of a lease.
func TestKey_WithPinnedEndpointsSendsNothingSecretToItsIssuer(t *testing.T) {
	t.Parallel()
	m, p := newReadyMount(t)
	m.write("keys/myapi", map[string]any{"token_endpoint": p.issuer() + tokenPath, "audience": p.issuer(), "revocation_endpoint": ""})
	m.write("roles/myapi", map[string]any{"revoke_tokens": true})
	hostile := newProvider(t, idp.Options{})
	leased := m.read("creds/myapi")
	m.write("keys/myapi", map[string]any{"issuer": hostile.issuer()})

	report := m.read("check/myapi").Data["report"].(string)
	m.revoke(leased)
	m.revoke(m.read("creds/myapi"))
	for _, received := range hostile.requests("") {
		require.Equal(t, http.MethodGet, received.method)
		require.Empty(t, received.form)
	}
	require.Contains(t, report, `key "myapi" has no revocation_endpoint`)
	require.Contains(t, report, "discovery shows "+hostile.issuer()+revocationPath)
	require.Empty(t, p.requests(revocationPath))
}

func TestKey_AudienceOtherThanIssuerRequiresTokenEndpoint(t *testing.T) {
	t.Parallel()
	m, p := newReadyMount(t)
	const required = "token_endpoint: is required, because audience is not the issuer"
	require.Contains(t, m.refused(logical.UpdateOperation, "keys/myapi", map[string]any{"audience": "https://other.example"}), required)
	m.write("keys/myapi", map[string]any{"audience": p.issuer()})
	require.Contains(t, m.refused(logical.PatchOperation, "keys/myapi", map[string]any{"issuer": "https://idp.example"}), required)
	m.write("keys/myapi", map[string]any{"audience": "https://other.example", "token_endpoint": p.issuer() + tokenPath})
	require.Contains(t, m.refused(logical.UpdateOperation, "keys/myapi", map[string]any{"token_endpoint": ""}), required)
	require.Equal(t, p.issuer()+tokenPath, m.read("keys/myapi").Data["token_endpoint"])
}

// TestKey_StoredWithoutRequiredTokenEndpointDiscoversNone is an entry from before token_endpoint was required.
func TestKey_StoredWithoutRequiredTokenEndpointDiscoversNone(t *testing.T) {
	t.Parallel()
	m, p := newReadyMount(t)
	entry := m.storage.entries(t)["key/myapi"]
	entry = strings.Replace(entry, `"audience":""`, `"audience":"https://other.example"`, 1)
	require.NoError(t, m.storage.Put(t.Context(), &logical.StorageEntry{Key: "key/myapi", Value: []byte(entry)}))
	m = mountOver(t, m.storage, m.clock)
	for _, path := range []string{"creds/myapi"} {
		require.Contains(t, m.refused(logical.ReadOperation, path, nil), "vault write bcgov-jwt/keys/myapi token_endpoint=…")
	}
	checked := m.read("check/myapi").Data
	require.Equal(t, "registration", checked["failed_step"])
	require.Equal(t, "Set it with: vault write bcgov-jwt/keys/myapi token_endpoint=…", checked["hint"])
	require.Empty(t, p.requests(discoveryPath))
	m.write("keys/myapi", map[string]any{"disabled": true}) // it can still be stopped
}

func TestKey_ChangeOfRegistrationIsLogged(t *testing.T) {
	t.Parallel()
	m, p := newReadyMount(t)
	m.write("keys/myapi", map[string]any{"disabled": true, "client_id": "my-client"})
	require.NotContains(t, m.log.String(), "key registration changed")
	m.write("keys/myapi", map[string]any{"client_id": "other", "token_endpoint": p.issuer() + tokenPath})
	require.Equal(t, 1, strings.Count(m.log.String(), "[INFO]"))
	for _, part := range []string{"key registration changed: key=myapi", `client_id="\"my-client\" → \"other\""`, `token_endpoint="\"\" → `, "request_id=request-1"} {
		require.Contains(t, m.log.String(), part)
	}
	require.NotContains(t, m.log.String(), "issuer=")
}

// TestKey_ChangeOfRegistrationForgetsWhatWasAccepted moves a key to another issuer and back: the only version that the
// first one knows must not expire because the second accepted a newer one.
func TestKey_ChangeOfRegistrationForgetsWhatWasAccepted(t *testing.T) {
	t.Parallel()
	m, a := newReadyMount(t)
	b := newProvider(t, idp.Options{})
	m.write("keys/myapi", map[string]any{"overlap_period": 120})
	require.Equal(t, 1, m.signedBy())
	m.write("keys/myapi/rotate", nil)
	b.registerVersion(m, 2)
	m.write("keys/myapi", map[string]any{"issuer": b.issuer()})
	require.Empty(t, m.version(1)["accepted_time"])
	require.Equal(t, 2, m.signedBy())
	require.NotEmpty(t, m.version(2)["accepted_time"])

	m.write("keys/myapi", map[string]any{"issuer": a.issuer()})
	require.Empty(t, m.version(2)["accepted_time"])
	require.Empty(t, m.version(1)["expire_time"])
	pass(m, a, 100*24*time.Hour)
	m.runPeriodic()
	require.Equal(t, 1, m.signedBy())
}

func TestKey_AllowedRolesAloneMayUseIt(t *testing.T) {
	t.Parallel()
	m, p := newReadyMount(t)
	m.write("roles/team-a-read", map[string]any{"key": "myapi", "allow_assertion": true})
	m.write("roles/other", map[string]any{"key": "myapi", "allow_assertion": true, "delivery": "shared"})
	m.read("creds/other")
	m.write("keys/myapi", map[string]any{"allowed_roles": "team-a-*,exact"})

	const refused = `key "myapi" does not allow role "other"; to allow it, write the complete list: vault write bcgov-jwt/keys/myapi allowed_roles=…`
	asked := len(p.requests(tokenPath))
	for _, path := range []string{"creds/other", "assertion/other"} {
		require.Equal(t, refused, m.refused(logical.ReadOperation, path, nil))
	}
	checked := m.read("check/other").Data
	require.Equal(t, "key", checked["failed_step"])
	require.Equal(t, `key "myapi" does not allow role "other"`, checked["error"])
	require.Equal(t, "To allow it, write the complete list: vault write bcgov-jwt/keys/myapi allowed_roles=…", checked["hint"])
	require.Len(t, p.requests(tokenPath), asked)
	require.Equal(t, []string{capitalized(refused)}, m.read("roles/other").Warnings)
	for _, role := range []string{"other", "new"} {
		require.Contains(t, m.refused(logical.UpdateOperation, "roles/"+role, map[string]any{"key": "myapi", "scopes": "s"}), "does not allow role")
	}
	m.delete("roles/other")
	m.write("roles/exact", map[string]any{"key": "myapi"})
	for _, path := range []string{"creds/team-a-read", "assertion/team-a-read", "creds/exact"} {
		require.NotEmpty(t, m.read(path).Data)
	}
	m.write("keys/myapi", map[string]any{"allowed_roles": ""})
	require.NotEmpty(t, m.read("creds/myapi").Data)
}

func TestKeyWrite_AllowedRolesAreNamesWithStars(t *testing.T) {
	t.Parallel()
	m := newMount(t)
	for _, bad := range []string{"a,b/c", "a,?", "a,[ab]", "a,b c", "a,.b"} {
		text := m.refused(logical.UpdateOperation, "keys/myapi", map[string]any{"allowed_roles": bad})
		require.Equal(t, "allowed_roles: item 2 must be the name of a role, in which * matches any text", text)
	}
	require.Nil(t, m.read("keys/myapi"))
}

func TestRole_RevokeTokensWithoutEndpointWarns(t *testing.T) {
	t.Parallel()
	m, _ := newReadyMount(t)
	require.Empty(t, m.write("roles/myapi", map[string]any{"revoke_tokens": true}).Warnings)
	m.write("keys/myapi", map[string]any{"revocation_endpoint": ""})
	require.Equal(t, []string{
		`revoke_tokens has no effect, because key "myapi" has no revocation_endpoint; set it with: vault write bcgov-jwt/keys/myapi revocation_endpoint=…`,
	}, m.write("roles/myapi", map[string]any{"scopes": "a"}).Warnings)
}

// TestCreds_LeasedReadOnStandbyIsForwardedBeforeAnythingIsSent is a node that serves reads and cannot store a lease.
func TestCreds_LeasedReadOnStandbyIsForwardedBeforeAnythingIsSent(t *testing.T) {
	t.Parallel()
	writer, p := newReadyMount(t)
	writer.write("roles/unleased", map[string]any{"key": "myapi", "delivery": "unleased", "allow_assertion": true})
	writer.write("roles/shared", map[string]any{"key": "myapi", "delivery": "shared"})
	writer.read("creds/myapi")
	standby := nodeOver(t, writer.storage, writer.clock, consts.ReplicationPerformanceStandby)
	asked := len(p.requests(""))
	_, err := standby.handle(t.Context(), logical.ReadOperation, "creds/myapi", nil)
	require.ErrorIs(t, err, logical.ErrReadOnly)
	require.Len(t, p.requests(""), asked)
	for _, path := range []string{"creds/unleased", "creds/shared", "assertion/unleased", "check/myapi"} {
		require.NotEmpty(t, standby.read(path).Data, path)
	}
}

// publishKey creates a key with registration=jwks, and returns its ID.
func (m *mount) publishKey(name string) string {
	m.tb.Helper()
	m.write("keys/"+name, map[string]any{"type": "ed25519", "registration": "jwks", "deletion_allowed": true})
	key, err := m.keys.get(m.tb.Context(), m.storage, name)
	require.NoError(m.tb, err)
	return key.ID()
}

// isPublished reports whether a key set is served under an ID.
func (m *mount) isPublished(id string) bool {
	m.tb.Helper()
	return m.jwks(logical.ReadOperation, id) != nil
}

func (m *mount) knownIDs() (count int) {
	m.backend.keyIDs.Range(func(any, any) bool { count++; return true })
	return count
}

func TestKeyIDs_WarmRequestsCallNothingAndKeepNothing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) { // the clock stands still, and with it what is cached of replication
		m := newMount(t)
		id, manual := m.publishKey("myapi"), m.publishKey("manual")
		m.write("keys/manual", map[string]any{"registration": "manual"})
		for _, id := range []string{id, manual, rand.Text()} {
			m.jwks(logical.ReadOperation, id)
		}
		stored, system := m.storage.calls(), m.system.calls.Load()
		for range 1000 {
			require.False(t, m.isPublished(rand.Text()))
			require.False(t, m.isPublished(manual))
			require.True(t, m.isPublished(id))
		}
		require.Equal(t, stored, m.storage.calls())
		require.Equal(t, system, m.system.calls.Load())
		require.Equal(t, 2, m.knownIDs(), "the keys'")
		require.Len(t, m.keyNames.values, 2)
	})
}

func TestKeyIDs_StorageIsListedOnce(t *testing.T) {
	t.Parallel()
	source := newMount(t)
	id := source.publishKey("myapi")
	synctest.Test(t, func(t *testing.T) {
		m := mountOver(t, newStorage(), &clock{})
		m.storage.InmemStorage = source.storage.InmemStorage
		listing := make(chan struct{})
		m.storage.intercept(func(v verb, _ string) error {
			if v == list {
				<-listing
			}
			return nil
		})
		var wait sync.WaitGroup
		for range 50 {
			wait.Go(func() { m.isPublished(rand.Text()) })
			wait.Go(func() { m.isPublished(id) })
		}
		synctest.Wait()
		close(listing)
		wait.Wait()
		require.Equal(t, 1, m.storage.counts[list])
		require.Equal(t, 1, m.knownIDs())
	})
}

// TestKeyIDs_FollowOtherNodes: each change elsewhere is announced by entry, in any order, and only that one is read.
func TestKeyIDs_FollowOtherNodes(t *testing.T) {
	t.Parallel()
	for name, announced := range map[string]func(id string) []string{
		"key first":   func(id string) []string { return []string{"key/new", "key-id/" + id} },
		"index first": func(id string) []string { return []string{"key-id/" + id, "key/new"} },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			here := newMount(t)
			there := mountOver(t, here.storage, here.clock)
			first := here.publishKey("first")
			require.True(t, here.isPublished(first))
			here.storage.intercept(func(_ verb, path string) error {
				require.NotEqual(t, "key-id/", path, "it is not listed again")
				return nil
			})

			id := there.publishKey("new")
			require.False(t, here.isPublished(id), "not announced yet")
			for _, path := range announced(id) {
				here.InvalidateKey(t.Context(), path)
			}
			require.True(t, here.isPublished(id))
			there.write("keys/new", map[string]any{"registration": "manual"})
			here.InvalidateKey(t.Context(), "key/new")
			require.False(t, here.isPublished(id))
			there.write("keys/new", map[string]any{"registration": "jwks"})
			here.InvalidateKey(t.Context(), "key/new")
			require.True(t, here.isPublished(id))

			there.delete("keys/new")
			for _, path := range announced(id) {
				here.InvalidateKey(t.Context(), path)
			}
			require.False(t, here.isPublished(id))
			calls := here.storage.calls()
			require.False(t, here.isPublished(id))
			require.Equal(t, calls, here.storage.calls(), "a deleted key's ID is unknown again")
			require.True(t, here.isPublished(first))
			require.Equal(t, 1, here.knownIDs())
		})
	}
}

func TestKeyIDs_FollowOwnWrites(t *testing.T) {
	t.Parallel()
	m := newMount(t)
	require.False(t, m.isPublished(rand.Text())) // lists
	id := m.publishKey("myapi")
	require.True(t, m.isPublished(id))
	m.storage.failNth(1, verb.writes)
	m.failed(500, logical.DeleteOperation, "keys/myapi", nil)
	m.storage.intercept(nil)
	require.True(t, m.isPublished(id), "the key was not deleted")
	m.storage.failNth(2, verb.writes)
	m.failed(500, logical.DeleteOperation, "keys/myapi", nil)
	m.storage.intercept(nil)
	require.False(t, m.isPublished(id), "only its index was not")

	id = m.publishKey("myapi")
	require.True(t, m.isPublished(id))
	m.delete("keys/myapi")
	calls := m.storage.calls()
	require.False(t, m.isPublished(id))
	require.Equal(t, calls, m.storage.calls())
}

// overtakenStorage runs a function after a list was read and before it is returned.
type overtakenStorage struct {
	logical.Storage
	overtake func()
}

func (s *overtakenStorage) List(ctx context.Context, prefix string) ([]string, error) {
	names, err := s.Storage.List(ctx, prefix)
	s.overtake()
	return names, err
}

func TestKeyIDs_WriteThatOvertakesTheListCounts(t *testing.T) {
	t.Parallel()
	source := newMount(t)
	deleted := source.publishKey("deleted")
	m := mountOver(t, source.storage, source.clock)
	var created string
	s := &overtakenStorage{m.storage, func() {
		created = m.publishKey("created")
		m.delete("keys/deleted")
	}}
	_, err := m.HandleRequest(t.Context(), &logical.Request{
		Operation: logical.ReadOperation, Path: "jwks/" + rand.Text(), MountPoint: mountPoint, Storage: s,
	})
	require.NoError(t, err)
	require.True(t, m.isPublished(created))
	require.False(t, m.isPublished(deleted))
	require.Equal(t, 1, m.knownIDs())
}

func TestKeyIDs_StorageFaultIsLoggedAndNotTold(t *testing.T) {
	t.Parallel()
	source := newMount(t)
	id := source.publishKey("myapi")
	var texts []string
	for _, path := range []string{"key-id/", "key-id/" + id, "key/myapi"} {
		m := mountOver(t, source.storage, source.clock)
		m.storage.intercept(func(_ verb, called string) error {
			if called == path {
				return errors.New("secret detail")
			}
			return nil
		})
		_, err := m.HandleRequest(t.Context(), &logical.Request{
			Operation: logical.ReadOperation, Path: "jwks/" + id, MountPoint: mountPoint, Storage: m.storage, ID: "request-1",
		})
		m.storage.intercept(nil)
		coded, ok := err.(logical.HTTPCodedError) //nolint:errorlint // only a bare one keeps its code on the way to Vault
		require.True(t, ok, "%v", err)
		require.Equal(t, 500, coded.Code())
		texts = append(texts, err.Error())
		require.Contains(t, m.log.String(), "key set could not be read: request_id=request-1")
		require.Contains(t, m.log.String(), "secret detail")
		require.True(t, m.isPublished(id), "the next request reads again")
	}
	const fixed = "the key set could not be read; the cause is in Vault's log"
	require.Equal(t, []string{fixed, fixed, fixed}, texts)
}
