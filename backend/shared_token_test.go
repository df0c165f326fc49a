package backend

import (
	"context"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/logical"
	"github.com/stretchr/testify/require"
)

// newSharedMount returns a ready mount whose role is shared.
func newSharedMount(tb testing.TB) (*mount, *provider) {
	tb.Helper()
	m, p := newReadyMount(tb)
	m.write("roles/myapi", map[string]any{"delivery": "shared"})
	return m, p
}

// tokenID identifies a token without showing it.
func (m *mount) tokenID() string {
	m.tb.Helper()
	return m.read("creds/myapi").Data["token_jti"].(string)
}

func TestCreds_SharedTokenIsOneForAllReaders(t *testing.T) {
	t.Parallel()
	const together, after = 100, 100
	m, p := newSharedMount(t)
	ids := make([]string, together+after)
	var readers sync.WaitGroup
	for i := range together {
		readers.Go(func() {
			if resp, err := m.send(logical.ReadOperation, "creds/myapi", nil); err == nil && !resp.IsError() {
				ids[i] = resp.Data["token_jti"].(string)
			}
		})
	}
	readers.Wait()
	for i := range after {
		ids[together+i] = m.tokenID()
	}
	for _, id := range ids {
		require.Equal(t, ids[0], id)
	}
	require.Contains(t, ids[0], "trrtcc:")
	require.Len(t, p.requests(tokenPath), 1)
	require.Equal(t, 1, m.read("info").Data["shared_tokens"])
	require.Equal(t, int64(1), m.read("info").Data["exchanges"])
}

func TestCreds_RolesShareNoToken(t *testing.T) {
	t.Parallel()
	m, p := newSharedMount(t)
	m.write("roles/second", map[string]any{"key": "myapi", "delivery": "shared"})
	require.NotEqual(t, m.tokenID(), m.read("creds/second").Data["token_jti"])
	require.Len(t, p.requests(tokenPath), 2)
	require.Equal(t, 2, m.read("info").Data["shared_tokens"])
}

func TestCreds_NodesShareNoToken(t *testing.T) {
	t.Parallel()
	here, p := newSharedMount(t)
	there := mountOver(t, here.storage, here.clock)
	require.NotEqual(t, here.tokenID(), there.tokenID(), "each node has its own")
	require.Len(t, p.requests(tokenPath), 2)
}

func TestCreds_WarmSharedReadMakesNoCalls(t *testing.T) {
	t.Parallel()
	m, p := newSharedMount(t)
	m.read("creds/myapi") // stores that the key was accepted
	m.read("creds/myapi") // reads it back
	storageCalls, systemCalls, begun := m.storage.calls(), m.system.calls.Load(), time.Now()
	for range 100 {
		m.read("creds/myapi")
	}
	require.Equal(t, storageCalls, m.storage.calls(), "storage")
	refreshes := 1 + int64(time.Since(begun)/replicationCacheTTL) // of the replication state, on a slow machine
	require.LessOrEqual(t, m.system.calls.Load(), systemCalls+2*refreshes, "Vault")
	require.Len(t, p.requests(tokenPath), 1)
}

func TestCreds_SharedTokenIsRefreshedEarly(t *testing.T) {
	t.Parallel()
	m, p := newSharedMount(t)
	old := m.tokenID()
	pass(m, p, 230*time.Second)
	require.Equal(t, old, m.tokenID())
	require.Len(t, p.requests(tokenPath), 1)
	pass(m, p, 6*time.Second)
	require.Equal(t, old, m.tokenID(), "nobody waits")
	require.Eventually(t, func() bool { return m.tokenID() != old }, eventually, poll)
	require.Len(t, p.requests(tokenPath), 2)
	require.GreaterOrEqual(t, m.read("creds/myapi").Data["ttl"], int64(200))
}

// TestCreds_SharedTokenIsDroppedWhenInputsChange lists every change after which readers must not obtain the old token.
func TestCreds_SharedTokenIsDroppedWhenInputsChange(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*mount, *provider){
		"role written":            func(m *mount, _ *provider) { m.write("roles/myapi", map[string]any{"refresh_margin": 30}) },
		"role patched":            func(m *mount, _ *provider) { m.patch("roles/myapi", map[string]any{"parameters": "resource=x"}) },
		"role written by another": func(m *mount, _ *provider) { m.InvalidateKey(m.tb.Context(), "role/myapi") },
		"role created again": func(m *mount, _ *provider) {
			m.delete("roles/myapi")
			m.write("roles/myapi", map[string]any{"delivery": "shared"})
		},
		"key written":               func(m *mount, _ *provider) { m.write("keys/myapi", map[string]any{"assertion_ttl": 50}) },
		"key written by another":    func(m *mount, _ *provider) { m.InvalidateKey(m.tb.Context(), "key/myapi") },
		"config written":            func(m *mount, _ *provider) { m.write("config", map[string]any{"max_retries": 1}) },
		"config written by another": func(m *mount, _ *provider) { m.InvalidateKey(m.tb.Context(), "config") },
		"version activated": func(m *mount, p *provider) {
			m.write("keys/myapi/rotate", nil)
			p.registerVersion(m, 2)
			m.write("keys/myapi/activate", map[string]any{"force": true})
		},
		"version destroyed": func(m *mount, _ *provider) {
			m.write("keys/myapi/rotate", nil)
			m.write("keys/myapi/destroy", map[string]any{"version": 2})
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m, p := newSharedMount(t)
			m.write("roles/second", map[string]any{"key": "myapi", "delivery": "shared"})
			second := m.read("creds/second").Data["token_jti"]
			old := m.tokenID()
			change(m, p)
			renewed := m.tokenID()
			require.NotEqual(t, old, renewed)
			require.Equal(t, renewed, m.tokenID(), "and then it is shared")
			if !strings.HasPrefix(name, "role") {
				require.NotEqual(t, second, m.read("creds/second").Data["token_jti"], "every role's")
				return
			}
			require.Equal(t, second, m.read("creds/second").Data["token_jti"], "the other role's token is kept")
		})
	}
}

func TestCreds_SharedTokenOvertakenByWriteIsNotReused(t *testing.T) {
	t.Parallel()
	for path, change := range map[string]map[string]any{
		"roles/myapi": {"refresh_margin": 30}, "keys/myapi": nil, "config": {"max_retries": 1},
	} {
		t.Run(path, func(t *testing.T) {
			t.Parallel()
			m, p := newSharedMount(t)
			if change == nil {
				change = map[string]any{"token_endpoint": p.issuer() + tokenPath} // the one discovered
			}
			req := &logical.Request{Operation: logical.ReadOperation, Path: "creds/myapi", MountPoint: mountPoint, Storage: m.storage}
			role, err := m.roles.get(t.Context(), m.storage, "myapi")
			require.NoError(t, err)
			begun, err := m.tokenRequestForRole(t.Context(), req, "myapi", role)
			require.NoError(t, err)
			m.write(path, change)
			overtaken, err := begun.sharedResponse(t.Context())
			require.NoError(t, err)
			require.NotEqual(t, overtaken.Data["token_jti"], m.tokenID())
		})
	}
}

func TestCreds_RoleDeletedUnderASharedReadLeavesNoToken(t *testing.T) {
	t.Parallel()
	for name, remove := range map[string]func(*mount){
		"on this node": func(m *mount) { m.delete("roles/myapi") },
		"on another node": func(m *mount) {
			mountOver(m.tb, m.storage, m.clock).delete("roles/myapi")
			m.InvalidateKey(m.tb.Context(), "role/myapi")
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m, _ := newSharedMount(t)
			req := &logical.Request{Operation: logical.ReadOperation, Path: "creds/myapi", MountPoint: mountPoint, Storage: m.storage}
			role, err := m.roles.get(t.Context(), m.storage, "myapi")
			require.NoError(t, err)
			begun, err := m.tokenRequestForRole(t.Context(), req, "myapi", role)
			require.NoError(t, err)
			remove(m)
			_, err = begun.sharedResponse(t.Context())
			require.NoError(t, err, "it began before")
			require.Zero(t, m.tokens.Len())
		})
	}
}

func TestCreds_SharedTokenIsKeptWhileInputsStay(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*mount, *provider){
		"first acceptance stored": func(m *mount, _ *provider) { require.NotEmpty(m.tb, m.version(1)["accepted_time"]) },
		"version staged":          func(m *mount, _ *provider) { m.write("keys/myapi/rotate", nil) },
		"written unchanged": func(m *mount, _ *provider) {
			m.write("roles/myapi", m.read("roles/myapi").Data)
			m.write("keys/myapi", map[string]any{"client_id": "my-client"})
			m.write("config", map[string]any{"max_retries": 0})
		},
		"rejected write": func(m *mount, _ *provider) {
			m.refused(logical.UpdateOperation, "roles/myapi", map[string]any{"delivery": "x"})
			m.refused(logical.UpdateOperation, "keys/myapi", map[string]any{"assertion_ttl": 1})
		},
		"another role, another key": func(m *mount, _ *provider) {
			m.write("keys/second", map[string]any{"type": "ed25519", "deletion_allowed": true})
			m.write("roles/second", nil)
			m.delete("roles/second")
			m.delete("keys/second")
		},
		"other entries invalidated": func(m *mount, _ *provider) {
			for _, path := range []string{"role/my", "role/myapi2", "key/my", "configuration", "key-role/myapi/myapi", "wrapping-key"} {
				m.InvalidateKey(m.tb.Context(), path)
			}
		},
		"check and assertion": func(m *mount, _ *provider) {
			m.read("check/myapi")
			m.refused(logical.ReadOperation, "assertion/myapi", nil)
		},
		"background work": func(m *mount, _ *provider) { m.runPeriodic() },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m, p := newSharedMount(t)
			old := m.tokenID()
			change(m, p)
			require.Equal(t, old, m.tokenID())
		})
	}
}

func TestCreds_SharedTokenSurvivesVersionSwitch(t *testing.T) {
	t.Parallel()
	m, p := newSharedMount(t)
	m.write("roles/second", map[string]any{"key": "myapi"})
	old := m.tokenID()
	m.write("keys/myapi/rotate", nil)
	p.registerVersion(m, 2)
	m.read("creds/second") // the provider rejects version 1 and accepts version 2
	require.Equal(t, 2, m.read("keys/myapi").Data["active_version"])
	require.Equal(t, old, m.tokenID(), "an issued token stays valid")
	m.write("roles/myapi", map[string]any{"refresh_margin": 30})
	require.Equal(t, m.version(2)["key_id"], m.read("creds/myapi").Data["key_id"])
}

func TestCreds_SharedTokenFailsWhereFreshOneWould(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		harm func(*mount)
		text string
	}{
		"key disabled":          {func(m *mount) { m.write("keys/myapi", map[string]any{"disabled": true}) }, `key "myapi" is disabled`},
		"role deleted":          {func(m *mount) { m.delete("roles/myapi") }, `unknown role "myapi"`},
		"key replaced":          {func(m *mount) { m.remakeKey("myapi") }, `earlier key "myapi"`},
		"host not allowed":      {func(m *mount) { m.write("config", map[string]any{"allowed_hosts": "idp.example"}) }, "allowed_hosts"},
		"no longer this client": {func(m *mount) { m.write("keys/myapi", map[string]any{"client_id": "other"}) }, "HTTP 401"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m, _ := newSharedMount(t)
			m.read("creds/myapi")
			test.harm(m)
			require.Contains(t, m.refused(logical.ReadOperation, "creds/myapi", nil), test.text)
		})
	}
}

func TestCreds_SharedTokenEndsWithDisabledKey(t *testing.T) {
	t.Parallel()
	m, p := newSharedMount(t)
	old := m.tokenID()
	m.write("keys/myapi", map[string]any{"disabled": true})
	sent := len(p.requests(tokenPath))
	m.refused(logical.ReadOperation, "creds/myapi", nil)
	require.Len(t, p.requests(tokenPath), sent)
	m.write("keys/myapi", map[string]any{"disabled": false})
	require.NotEqual(t, old, m.tokenID())
}

func TestCreds_RoleNoLongerSharedReturnsFreshTokens(t *testing.T) {
	t.Parallel()
	m, _ := newSharedMount(t)
	old := m.tokenID()
	m.write("roles/myapi", map[string]any{"delivery": ""})
	require.NotEqual(t, old, m.tokenID())
	require.Equal(t, 0, m.read("info").Data["shared_tokens"])
}

func TestCreds_SharedTokenOutlivesOutage(t *testing.T) {
	t.Parallel()
	m, p := newSharedMount(t)
	first := m.read("creds/myapi").Data
	p.answerWith(tokenPath, http.StatusServiceUnavailable, jsonType, `{"error":"hunter2eyJ"}`)
	pass(m, p, 250*time.Second)
	var resp *logical.Response
	require.Eventually(t, func() bool { resp = m.read("creds/myapi"); return len(resp.Warnings) > 0 }, eventually, poll)
	require.Len(t, resp.Warnings, 1)
	require.True(t, strings.HasPrefix(resp.Warnings[0], "The token could not be refreshed yet; it is valid until expires_at: token request at "), resp.Warnings[0])
	require.Contains(t, resp.Warnings[0], "HTTP 503")
	requireClean(t, strings.ReplaceAll(resp.Warnings[0], "hunter2eyJ", ""))
	require.Equal(t, int64(10), resp.Data["ttl"], "soon, but not immediately")
	for _, name := range []string{"token_jti", "issued_at", "expires_at", "last_vault_rotation", "rotation_period"} {
		require.Equal(t, first[name], resp.Data[name], name)
	}

	pass(m, p, 47*time.Second) // 3 s are left of it
	require.Contains(t, m.failed(http.StatusBadGateway, logical.ReadOperation, "creds/myapi", nil), "HTTP 503")
	require.Equal(t, 1, strings.Count(m.log.String(), "shared token refresh failed; serving the old token until it expires"))

	p.interceptWith(nil)
	m.clock.advance(2 * time.Second) // no pause
	recovered := m.read("creds/myapi")
	require.NotEqual(t, first["token_jti"], recovered.Data["token_jti"])
	require.Empty(t, recovered.Warnings)
	require.Equal(t, 1, strings.Count(m.log.String(), "shared token refreshed after failures"))
	requireClean(t, m.log.String())
}

func TestCreds_SharedTokenSurvivesCanceledRequest(t *testing.T) {
	t.Parallel()
	m, p := newSharedMount(t)
	arrived, release := p.holdToken(1)
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-arrived
		cancel()
	}()
	_, err := m.handle(ctx, logical.ReadOperation, "creds/myapi", nil)
	require.EqualError(t, err, "the request was canceled before a token was obtained")
	coded, isCoded := err.(logical.HTTPCodedError) //nolint:errorlint // only a bare one keeps its code
	require.True(t, isCoded)
	require.Equal(t, http.StatusGatewayTimeout, coded.Code())
	release()
	m.read("creds/myapi")
	require.Len(t, p.requests(tokenPath), 1)
}

func TestCreds_CleanEndsSharedFetch(t *testing.T) {
	t.Parallel()
	m, p := newSharedMount(t)
	m.write("config", map[string]any{"request_timeout": 45})
	arrived := make(chan struct{}, 1)
	p.interceptWith(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, tokenPath) {
			arrived <- struct{}{}
		}
		silent(tokenPath)(w, r)
	})
	ended := make(chan error, 1)
	go func() {
		_, err := m.send(logical.ReadOperation, "creds/myapi", nil)
		ended <- err
	}()
	<-arrived
	begun := time.Now()
	m.Cleanup(t.Context())
	require.Error(t, <-ended)
	require.Less(t, time.Since(begun), eventually, "well before request_timeout")
	require.Equal(t, "the secrets engine is stopping; read again", m.failed(http.StatusServiceUnavailable, logical.ReadOperation, "creds/myapi", nil))
	require.Len(t, p.requests(tokenPath), 1)
}

func TestCreds_PanicInBackgroundEndsOnlyTheFetch(t *testing.T) {
	t.Parallel()
	m, p := newSharedMount(t)
	m.read("check/myapi") // role, key and configuration are in memory
	m.storage.intercept(func(verb, string) error { panic("hunter2") })
	text := m.failed(http.StatusInternalServerError, logical.ReadOperation, "creds/myapi", nil)
	require.Contains(t, text, "request-1")
	require.NotContains(t, text, "hunter2")
	for _, part := range []string{"panic: please report it", "request_id=request-1", "path=creds/myapi", "fetchInBackground"} {
		require.Contains(t, m.log.String(), part)
	}
	require.NotContains(t, m.log.String(), "hunter2")

	m.storage.intercept(nil)
	pass(m, p, 2*time.Second) // no pause
	m.read("creds/myapi")
	m.write("keys/myapi", map[string]any{"assertion_ttl": 60}) // no lock stays held
}
