package backend

import (
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/hashicorp/vault/sdk/logical"
	"github.com/stretchr/testify/require"
)

func TestActivate_TestsTheStagedVersionFirst(t *testing.T) {
	t.Parallel()
	m, p := newReadyMount(t)
	m.read("creds/myapi")
	m.write("keys/myapi/rotate", nil)
	p.registerVersion(m, 2)
	asked := len(p.requests(tokenPath))
	answer := m.write("keys/myapi/activate", nil)
	require.Len(t, p.requests(tokenPath), asked+1, "the staged version, and no other")
	require.Equal(t, m.read("keys/myapi").Data, answer.Data, "it returns the key's read")
	require.Empty(t, answer.Warnings)
	require.Contains(t, m.log.String(), "tested_with=myapi")
	require.Equal(t, 2, answer.Data["active_version"])
	require.Equal(t, 0, answer.Data["staged_version"])
	require.Equal(t, "operator", m.version(2)["activated_by"])
	require.NotEmpty(t, m.version(2)["accepted_time"], "the test was an acceptance")
	require.NotEmpty(t, m.version(1)["expire_time"])
	require.Contains(t, m.log.String(), "key version activated: key=myapi from=1 to=2 tested_with=myapi request_id=request-1")
	require.Equal(t, 2, m.signedBy())
}

func TestActivate_ForceSkipsTheProvider(t *testing.T) {
	t.Parallel()
	m, p := newReadyMount(t)
	m.write("keys/myapi/rotate", nil)
	p.Close()
	m.write("keys/myapi/activate", map[string]any{"force": true})
	require.Contains(t, m.log.String(), `tested_with=""`)
	require.Contains(t, m.log.String(), `to=2 tested_with="" request_id`)
	require.Equal(t, map[string]string{"1": "retired", "2": "active"}, m.states())
	require.Empty(t, p.requests(tokenPath))
	require.Empty(t, m.version(2)["accepted_time"])
	require.Empty(t, m.version(1)["expire_time"], "it stays until the new one was accepted")
}

func TestActivate_ForceNeedsNoRoleAndNoRegistration(t *testing.T) {
	t.Parallel()
	m := newMount(t)
	m.write("keys/myapi", map[string]any{"type": "ed25519"})
	m.write("keys/myapi/rotate", nil)
	require.Equal(t, 2, m.write("keys/myapi/activate", map[string]any{"force": "true"}).Data["active_version"])
}

func TestActivate_UnregisteredVersionFallsBackToTheOldOne(t *testing.T) {
	t.Parallel()
	m, p := newReadyMount(t)
	m.read("creds/myapi")
	m.write("keys/myapi/rotate", nil)
	m.write("keys/myapi/activate", map[string]any{"force": true})
	require.Equal(t, 1, m.signedBy(), "no read fails")
	p.registerVersion(m, 2)
	require.Equal(t, 2, m.signedBy())
}

func TestActivate_IsRejected(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		prepare func(m *mount, p *provider)
		data    map[string]any
		says    []string
	}{
		"none staged": {
			says: []string{`key "myapi" has no staged version`, "vault write -f bcgov-jwt/keys/myapi/rotate"},
		},
		"none staged, forced": {
			data: map[string]any{"force": true}, says: []string{"has no staged version"},
		},
		"no role": {
			prepare: func(m *mount, _ *provider) { m.delete("roles/myapi"); m.write("keys/myapi/rotate", nil) },
			says:    []string{"has no role to test version 2 with", "force=true", "vault write bcgov-jwt/roles/… key=myapi"},
		},
		"disabled": {
			prepare: func(m *mount, _ *provider) {
				m.write("keys/myapi/rotate", nil)
				m.write("keys/myapi", map[string]any{"disabled": true})
			},
			says: []string{`key "myapi" is disabled`},
		},
		"not registered": {
			prepare: func(m *mount, _ *provider) { m.write("keys/myapi/rotate", nil) },
			says:    []string{`version 2 was not activated, because no token could be obtained with it for role "myapi"`, "force=true", "HTTP 400 invalid_client", "Unable to load public key", "vault read -field=public_key bcgov-jwt/keys/myapi"},
		},
		"not approved": {
			prepare: func(m *mount, p *provider) {
				m.write("keys/myapi/rotate", nil)
				p.answerWith(tokenPath, http.StatusUnauthorized, jsonType, `{"error":"invalid_client","error_description":"Invalid client or Invalid client credentials"}`)
			},
			says: []string{"version 2 was not activated", "HTTP 401", "does not know client_id"},
		},
		"a force that is none": {
			prepare: func(m *mount, _ *provider) { m.write("keys/myapi/rotate", nil) },
			data:    map[string]any{"force": "hunter2"}, says: []string{"force: must be true or false"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m, p := newReadyMount(t)
			m.read("creds/myapi")
			if test.prepare != nil {
				test.prepare(m, p)
			}
			text := m.refused(logical.UpdateOperation, "keys/myapi/activate", test.data)
			for _, part := range test.says {
				require.Contains(t, text, part)
			}
			require.NotContains(t, text, "hunter2")
			requireClean(t, text)
		})
	}
}

func TestActivate_FailedTestChangesNothing(t *testing.T) {
	t.Parallel()
	m, p := newReadyMount(t)
	m.write("keys/myapi/rotate", nil)
	before := m.storage.entries(t)
	p.answerWith(tokenPath, http.StatusServiceUnavailable, jsonType, `{}`)
	text := m.failed(http.StatusBadGateway, logical.UpdateOperation, "keys/myapi/activate", nil)
	require.Contains(t, text, "version 2 was not activated")
	require.Contains(t, text, "HTTP 503")
	require.Equal(t, before, m.storage.entries(t))
}

// TestActivate_OnlyTheTestedVersionIsActivated holds the provider's response to the test.
func TestActivate_OnlyTheTestedVersionIsActivated(t *testing.T) {
	t.Parallel()
	for name, meanwhile := range map[string]func(m *mount){
		"destroyed": func(m *mount) { m.write("keys/myapi/destroy", map[string]any{"version": 2}) },
		"destroyed, and another made": func(m *mount) {
			m.write("keys/myapi/destroy", map[string]any{"version": 2})
			m.write("keys/myapi/rotate", nil)
		},
		"deleted, and made again": func(m *mount) {
			m.delete("roles/myapi")
			m.delete("keys/myapi")
			m.write("keys/myapi", map[string]any{"type": "ed25519"})
			m.write("keys/myapi/rotate", nil)
		},
		"deleted": func(m *mount) { m.delete("roles/myapi"); m.delete("keys/myapi") },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m, p := newReadyMount(t)
			m.write("keys/myapi", map[string]any{"deletion_allowed": true})
			m.write("keys/myapi/rotate", nil)
			p.registerVersion(m, 2)
			arrived, release := p.holdToken(1)
			answered := make(chan *logical.Response, 1)
			go func() {
				resp, err := m.send(logical.UpdateOperation, "keys/myapi/activate", nil)
				if err != nil {
					t.Error(err)
				}
				answered <- resp
			}()
			<-arrived
			meanwhile(m)
			before := m.storage.entries(t)
			release()
			resp := <-answered
			require.True(t, resp.IsError())
			text := resp.Error().Error()
			require.True(t, strings.Contains(text, "was destroyed before it could be activated") || strings.Contains(text, `key "myapi" does not exist`), text)
			require.Equal(t, before, m.storage.entries(t))
		})
	}
}

func TestActivate_RoleDeletedBeforeTheTestLeavesItToTheNext(t *testing.T) {
	t.Parallel()
	m, p := newReadyMount(t)
	m.write("roles/other", map[string]any{"key": "myapi"})
	m.write("keys/myapi/rotate", nil)
	p.registerVersion(m, 2)
	m.InvalidateKey(t.Context(), "role/other")
	var once sync.Once
	m.storage.intercept(func(_ verb, path string) error {
		if path == "role/other" { // the roles are being listed, and the first is chosen
			once.Do(func() {
				require.NoError(t, m.storage.InmemStorage.Delete(t.Context(), "role/myapi"))
				m.InvalidateKey(t.Context(), "role/myapi")
			})
		}
		return nil
	})
	m.write("keys/myapi/activate", nil)
	require.Contains(t, m.log.String(), "tested_with=other")
	require.NotContains(t, m.log.String(), "panic")
}

func TestActivate_KeyChangedDuringTheTestIsAnError(t *testing.T) {
	t.Parallel()
	m, p := newReadyMount(t)
	m.write("keys/myapi/rotate", nil)
	p.registerVersion(m, 2)
	arrived, release := p.holdToken(1)
	result := make(chan error, 1)
	go func() { result <- sent(logical.UpdateOperation, "keys/myapi/activate", nil)(m) }()
	<-arrived
	m.write("keys/myapi", map[string]any{"client_id": "another"})
	release()
	require.ErrorContains(t, <-result, "was changed while version 2 was being tested")
	require.Equal(t, map[string]string{"1": "active", "2": "staged"}, m.states())
}

// TestActivate_RoleThatCannotSucceedLeavesTheTestToTheNext: roles are tried in order of their names.
func TestActivate_RoleThatCannotSucceedLeavesTheTestToTheNext(t *testing.T) {
	t.Parallel()
	refusedScope := func(m *mount, name string) {
		m.write("roles/"+name, map[string]any{"key": "myapi", "scopes": "not-granted"})
	}
	for name, test := range map[string]struct {
		prepare    func(m *mount, p *provider)
		testedWith string // empty: not activated
		says       string
		requests   int
	}{
		"a scope that is not granted": {
			prepare:    func(m *mount, _ *provider) { refusedScope(m, "a"); refusedScope(m, "b") },
			testedWith: "myapi", requests: 3,
		},
		"a damaged role": {
			prepare: func(m *mount, _ *provider) {
				m.write("roles/a", map[string]any{"key": "myapi"})
				m.damage("role/a", func(string) string { return "" })
				m.InvalidateKey(m.tb.Context(), "role/a")
			},
			testedWith: "myapi", requests: 1,
		},
		"a role that the key no longer allows": {
			prepare: func(m *mount, _ *provider) {
				m.write("roles/a", map[string]any{"key": "myapi"})
				m.write("keys/myapi", map[string]any{"allowed_roles": "my*"})
			},
			testedWith: "myapi", requests: 1,
		},
		"more than three": {
			prepare: func(m *mount, _ *provider) {
				for _, name := range []string{"a", "b", "c"} {
					refusedScope(m, name)
				}
			},
			says: `with it for role "a"`, requests: 3,
		},
		"none that works": {
			prepare: func(m *mount, _ *provider) { refusedScope(m, "myapi") },
			says:    "invalid_scope", requests: 1,
		},
		"an unregistered key": {
			prepare: func(m *mount, p *provider) {
				m.write("roles/a", map[string]any{"key": "myapi"})
				p.registerVersion(m, 1)
			},
			says: `with it for role "a"`, requests: 1,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m, p := newReadyMount(t)
			m.write("keys/myapi/rotate", nil)
			p.registerVersion(m, 2)
			test.prepare(m, p)
			resp, err := m.send(logical.UpdateOperation, "keys/myapi/activate", nil)
			require.NoError(t, err)
			require.Len(t, p.requests(tokenPath), test.requests)
			if test.testedWith == "" {
				require.True(t, resp.IsError())
				require.Contains(t, resp.Error().Error(), test.says)
				require.Equal(t, map[string]string{"1": "active", "2": "staged"}, m.states())
				return
			}
			require.Contains(t, m.log.String(), "tested_with="+test.testedWith)
			require.Contains(t, m.log.String(), "tested_with="+test.testedWith)
			require.Equal(t, map[string]string{"1": "retired", "2": "active"}, m.states())
		})
	}
}
