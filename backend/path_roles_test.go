package backend

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/logical"
	"github.com/stretchr/testify/require"
)

func roleSettingNames() []string { return namesOf(roleFields()) }

// newRoleMount returns a mount with the keys a, b and myapi.
func newRoleMount(t *testing.T) *mount {
	t.Helper()
	m := newMount(t)
	for _, name := range []string{"a", "b", "myapi"} {
		m.write("keys/"+name, map[string]any{"type": "ed25519", "deletion_allowed": true})
	}
	return m
}

func (m *mount) rolesOfKey(key string) []string {
	m.tb.Helper()
	return m.read("keys/" + key).Data["roles"].([]string)
}

func TestRole_HasDefaults(t *testing.T) {
	t.Parallel()
	m := newRoleMount(t)
	answer := m.write("roles/myapi", nil)
	require.Equal(t, map[string]any{
		"key": "myapi", "scopes": []string{}, "parameters": []string{},
		"delivery": "leased", "refresh_margin": int64(0), "revoke_tokens": false, "allow_assertion": false,
	}, answer.Data)
	require.Empty(t, answer.Warnings)
	require.Equal(t, answer, m.read("roles/myapi"), "a write returns the same body as a read")
	require.Equal(t, []string{"myapi"}, m.rolesOfKey("myapi"))
}

func TestRole_EverySettingIsReturnedAsWritten(t *testing.T) {
	t.Parallel()
	m := newRoleMount(t)
	written := map[string]any{
		"key":        "a",
		"scopes":     []string{"z", "a", "urn:x:!#[]~"},
		"parameters": []string{"resource=https://b.example/?a=b,c", "resource=https://a.example", "audience=", "acr_values=1 2"},

		"delivery":        "leased",
		"refresh_margin":  25,
		"revoke_tokens":   true,
		"allow_assertion": true,
	}
	require.Len(t, written, len(roleFields()), "the test names every setting")
	m.write("roles/r", written)
	require.Equal(t, overJSON(t, written), only(t, m.read("roles/r"), roleSettingNames()...))
	restarted := mountOver(t, m.storage, m.clock)
	require.Equal(t, overJSON(t, written), only(t, restarted.read("roles/r"), roleSettingNames()...))
}

func TestRole_WrittenBackAsReadStoresNothing(t *testing.T) {
	t.Parallel()
	for name, written := range map[string]map[string]any{
		"defaults": {"key": "a"},
		"every setting": {
			"key": "a", "scopes": "x,y", "parameters": []string{"resource=1", "resource=2"},
			"refresh_margin": "2m", "revoke_tokens": true, "allow_assertion": true,
		},
		"shared": {"key": "a", "delivery": "shared"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := newRoleMount(t)
			m.write("roles/r", written)
			read := m.read("roles/r").Data
			writes := m.storage.writes()
			for _, operation := range []logical.Operation{logical.UpdateOperation, logical.PatchOperation} {
				require.Equal(t, read, m.do(operation, "roles/r", read).Data)
				require.Equal(t, read, m.do(operation, "roles/r", nil).Data)
			}
			require.Equal(t, read, m.read("roles/r").Data)
			require.Equal(t, writes, m.storage.writes(), "what changes nothing writes nothing")
		})
	}
}

func TestRole_AbsentFieldIsKeptEmptyOneIsReset(t *testing.T) {
	t.Parallel()
	for _, operation := range []logical.Operation{logical.UpdateOperation, logical.PatchOperation} {
		for _, empty := range []any{"", " ", nil, []string{}} {
			t.Run(fmt.Sprintf("%s %#v", operation, empty), func(t *testing.T) {
				t.Parallel()
				m := newRoleMount(t)
				m.write("roles/myapi", map[string]any{"key": "a", "scopes": "x,y", "parameters": "resource=1"})
				answer := m.do(operation, "roles/myapi", map[string]any{"scopes": empty})
				require.Equal(t, []any{"a", []string{}, []string{"resource=1"}}, []any{answer.Data["key"], answer.Data["scopes"], answer.Data["parameters"]})
				answer = m.do(operation, "roles/myapi", map[string]any{"parameters": empty})
				require.Equal(t, []string{}, answer.Data["parameters"])
				if _, isList := empty.([]string); !isList {
					answer = m.do(operation, "roles/myapi", map[string]any{"key": empty})
					require.Equal(t, "myapi", answer.Data["key"], "the role's own name")
					require.Equal(t, []string{"myapi"}, m.rolesOfKey("myapi"))
				}
			})
		}
	}
}

func TestRole_ScopesMayBeOneString(t *testing.T) {
	t.Parallel()
	m := newRoleMount(t)
	for _, given := range []any{"x,y", " x , y ", []string{"x", "y"}, []string{" x", "y "}} {
		require.Equal(t, []string{"x", "y"}, m.write("roles/r", map[string]any{"key": "a", "scopes": given}).Data["scopes"], "%v", given)
	}
}

func TestRole_Absent(t *testing.T) {
	t.Parallel()
	m := newRoleMount(t)
	require.Nil(t, m.read("roles/none"), "nil is a 404")
	m.delete("roles/none")
	text := m.failed(http.StatusNotFound, logical.PatchOperation, "roles/none", map[string]any{"key": "a"})
	require.Equal(t, `role "none" does not exist; create it with: vault write -f bcgov-jwt/roles/none`, text)
	for _, path := range []string{"creds/none", "assertion/none", "check/none"} {
		require.Equal(t, `unknown role "none"; to list roles: vault list bcgov-jwt/roles`, m.refused(logical.ReadOperation, path, nil))
	}
}

func TestRole_List(t *testing.T) {
	t.Parallel()
	m := newRoleMount(t)
	for _, name := range []string{"z", "y"} {
		m.write("roles/"+name, map[string]any{"key": "a"})
	}
	require.Equal(t, []string{"y", "z"}, m.list("roles/"))
	require.Equal(t, []string{"y", "z"}, m.rolesOfKey("a"))
}

func TestRole_RequiresExistingKey(t *testing.T) {
	t.Parallel()
	m := newRoleMount(t)
	text := m.refused(logical.UpdateOperation, "roles/none", nil)
	require.Equal(t, `key: "none" does not exist; set key=… or create it with: vault write -f bcgov-jwt/keys/none`, text)
	m.write("roles/r", map[string]any{"key": "a"})
	for _, operation := range []logical.Operation{logical.UpdateOperation, logical.PatchOperation} {
		require.Contains(t, m.refused(operation, "roles/r", map[string]any{"key": "none"}), `key: "none" does not exist`)
	}
	require.Equal(t, "a", m.read("roles/r").Data["key"])
}

func TestRole_MovesBetweenKeys(t *testing.T) {
	t.Parallel()
	m := newRoleMount(t)
	m.write("roles/r", map[string]any{"key": "a"})
	m.write("roles/other", map[string]any{"key": "a"})
	m.patch("roles/r", map[string]any{"key": "b"})
	require.Equal(t, []string{"other"}, m.rolesOfKey("a"))
	require.Equal(t, []string{"r"}, m.rolesOfKey("b"))
	require.Contains(t, m.refused(logical.DeleteOperation, "keys/b", nil), "key \"b\" is in use; first delete or change these roles: r")
	m.delete("roles/other")
	m.delete("keys/a")
	m.delete("roles/r")
	require.Empty(t, m.rolesOfKey("b"))
	m.delete("keys/b")
	for path := range m.storage.entries(t) {
		require.NotContains(t, path, "role", "no index is left")
	}
}

func TestRole_BadSettingErrorNamesField(t *testing.T) {
	t.Parallel()
	for field, values := range map[string][]any{
		"key":            {"-a", "..", "a/b", "é"},
		"scopes":         {"a b", "a,,b", "a,b,", ",", []string{"a", ""}, []string{"  "}, []string{"a\tb"}, `a"b`, `a\b`, "é", "a\x00", "\x7f", []string{"a", "b c"}},
		"delivery":       {"x", "Leased", "LEASED", "leased,shared", "none", "0"},
		"refresh_margin": {-1, "-1s", "24h", 86400, "86401s", 1 << 31},
		"parameters": {
			"resource", "=x", "=", "a b=c", "é=c", "a\n=b", "a=b\nc", "a=\x00",
			[]string{"resource=x", ""},
			[]string{" "},
			[]string{"a=b", "c"},
			"client_id[]=x", "a[b]=x", "a/b=x", "a%5B=x", "a+b=x", "a;b=x", "a&b=x", "a=" + strings.Repeat("b", 64<<10-1),
			[]string{"a=" + strings.Repeat("b", 32<<10), "a=" + strings.Repeat("b", 32<<10)},
		},
	} {
		t.Run(field, func(t *testing.T) {
			t.Parallel()
			m := newRoleMount(t)
			m.write("roles/old", map[string]any{"key": "a"})
			for _, value := range values {
				for path, operation := range map[string]logical.Operation{"roles/a": logical.UpdateOperation, "roles/old": logical.PatchOperation} {
					text := m.refused(operation, path, map[string]any{field: value})
					require.True(t, strings.HasPrefix(text, field+": "), "%v: %s", value, text)
				}
			}
			require.Nil(t, m.read("roles/a"))
		})
	}
}

// reserved lists the form parameters that belong to the grant, to client authentication or to another grant.
const reserved = `grant_type client_id client_secret client_assertion client_assertion_type scope scopes assertion code code_verifier redirect_uri refresh_token
	username password device_code auth_req_id subject_token subject_token_type actor_token actor_token_type requested_token_type requested_subject
	requested_issuer subject_issuer requested_token_use request request_uri claims nonce state response_type response_mode login_hint token
	token_type_hint dpop_jkt code_challenge code_challenge_method ticket rpt permission claim_token claim_token_format submit_request
	client_session_state client_session_host`

func TestRole_ReservedParametersAreRejectedInAnyCase(t *testing.T) {
	t.Parallel()
	m := newRoleMount(t)
	for name := range strings.FieldsSeq(reserved) {
		for _, spelled := range []string{
			name, strings.ToUpper(name), strings.ToUpper(name[:1]) + name[1:], " " + name,
			strings.ReplaceAll(name, "_", "."), strings.ReplaceAll(name, "_", "-"), strings.ReplaceAll(name, "_", ""), "." + name, name + ":",
		} {
			text := m.refused(logical.UpdateOperation, "roles/a", map[string]any{"parameters": []string{"resource=1", spelled + "=hunter2"}})
			require.Contains(t, text, "parameters: ", spelled)
			require.Contains(t, text, strings.TrimSpace(spelled))
			require.NotContains(t, text, "hunter2")
		}
		m.write("roles/a", map[string]any{"parameters": "x_" + name + "=1"}) // only the whole name is reserved
	}
}

func TestRole_ParametersUpToTheLimitAreAccepted(t *testing.T) {
	t.Parallel()
	m := newRoleMount(t)
	longest := []string{"a.b:c-d_E9=" + strings.Repeat("x", 64<<10-13), "a="}
	require.Equal(t, longest, m.write("roles/a", map[string]any{"parameters": longest}).Data["parameters"])
}

func TestRole_KeyFieldErrorShowsCommand(t *testing.T) {
	t.Parallel()
	m := newRoleMount(t)
	m.write("roles/myapi", nil)
	for _, field := range namesOf(keyFields()) {
		for _, operation := range []logical.Operation{logical.UpdateOperation, logical.PatchOperation} {
			text := m.refused(operation, "roles/myapi", map[string]any{field: "x"})
			require.True(t, strings.HasPrefix(text, field+": belongs to the key;"), text)
			require.Contains(t, text, "vault write bcgov-jwt/keys/myapi "+field+"=")
		}
	}
}

// remakeKey replaces the key by a new one of that name, which the API does not allow while roles use it.
func (m *mount) remakeKey(name string) {
	m.tb.Helper()
	spare := newMount(m.tb)
	spare.write("keys/"+name, map[string]any{"type": "ed25519"})
	entry, err := spare.storage.Get(m.tb.Context(), "key/"+name)
	require.NoError(m.tb, err)
	require.NoError(m.tb, m.storage.InmemStorage.Put(m.tb.Context(), entry))
	m.InvalidateKey(m.tb.Context(), "key/"+name)
}

func TestRole_IsNotBoundToLaterKeyOfSameName(t *testing.T) {
	t.Parallel()
	m := newRoleMount(t)
	m.write("roles/r", map[string]any{"key": "a"})
	m.remakeKey("a")

	const command = "vault write bcgov-jwt/roles/r key=a"
	text := m.refused(logical.ReadOperation, "creds/r", nil)
	require.Contains(t, text, `earlier key "a"`)
	require.Contains(t, text, command)
	require.Contains(t, strings.Join(m.read("roles/r").Warnings, "\n"), command)
	check := m.read("check/r").Data
	require.Equal(t, false, check["ok"])
	require.Equal(t, "key", check["failed_step"])
	require.Contains(t, check["error"], `earlier key "a"`)
	require.Contains(t, check["hint"], command)

	require.Contains(t, strings.Join(m.write("roles/r", map[string]any{"scopes": "x"}).Warnings, "\n"), command, "another change does not rebind it")
	require.Empty(t, m.write("roles/r", map[string]any{"key": "a"}).Warnings, "this does")
	require.Contains(t, m.refused(logical.ReadOperation, "creds/r", nil), "client_id")
}

func TestRole_WarnsOfDeletedKey(t *testing.T) {
	t.Parallel()
	m := newRoleMount(t)
	m.write("roles/r", map[string]any{"key": "a"})
	require.NoError(t, m.storage.Delete(t.Context(), "key/a"))
	m.InvalidateKey(t.Context(), "key/a")
	require.Contains(t, m.refused(logical.ReadOperation, "creds/r", nil), `key "a", which does not exist; to use another key: vault write bcgov-jwt/roles/r key=…`)
	require.Contains(t, m.read("roles/r").Warnings[0], "does not exist")
	require.Equal(t, "key", m.read("check/r").Data["failed_step"])
	m.write("roles/r", map[string]any{"key": "b"})
	require.Empty(t, m.read("roles/r").Warnings)
	m.delete("roles/r")
}

func TestRole_EntryWinsOverIndex(t *testing.T) {
	t.Parallel()
	m := newRoleMount(t)
	m.write("roles/r", map[string]any{"key": "b"})
	for _, stale := range []string{"key-role/a/r", "key-role/a/never"} {
		require.NoError(t, m.storage.Put(t.Context(), &logical.StorageEntry{Key: stale, Value: []byte("{}")}))
	}
	require.Empty(t, m.rolesOfKey("a"))
	m.delete("keys/a")
}

func TestRole_IndexNeverHidesRoleAfterFault(t *testing.T) {
	t.Parallel()
	for n := 1; n <= 3; n++ {
		m := newRoleMount(t)
		m.write("roles/r", map[string]any{"key": "a"})
		m.storage.failNth(n, verb.writes)
		m.failed(http.StatusInternalServerError, logical.UpdateOperation, "roles/r", map[string]any{"key": "b"})
		m.storage.intercept(nil)
		key := m.read("roles/r").Data["key"].(string)
		require.Equal(t, []string{"r"}, m.rolesOfKey(key), "write %d", n)
		require.Contains(t, m.refused(logical.DeleteOperation, "keys/"+key, nil), "is in use; first delete or change these roles")
	}
}

func TestRole_KeyIsNeverDeletedConcurrently(t *testing.T) {
	t.Parallel()
	m := newRoleMount(t)
	m.write("roles/r", map[string]any{"key": "myapi"})
	settings := map[string]any{"type": "ed25519", "deletion_allowed": true}
	for range 100 {
		var wg sync.WaitGroup
		for _, key := range []string{"a", "b"} {
			wg.Go(func() { // rejected if the key is deleted
				_, err := m.send(logical.UpdateOperation, "roles/r", map[string]any{"key": key})
				noServerError(t, err)
			})
			wg.Go(func() { // rejected if the role uses it
				_, err := m.send(logical.DeleteOperation, "keys/"+key, nil)
				noServerError(t, err)
			})
		}
		wg.Wait()
		role := m.read("roles/r")
		require.Empty(t, role.Warnings, "it has its key")
		require.Equal(t, []string{"r"}, m.rolesOfKey(role.Data["key"].(string)))
		for _, key := range []string{"a", "b"} {
			m.write("keys/"+key, settings)
		}
	}
}

func TestRole_KeyDeletionWaitsForBinding(t *testing.T) {
	t.Parallel()
	m := newRoleMount(t)
	deleted := make(chan error, 1)
	m.storage.intercept(func(v verb, path string) error {
		if v == put && path == "role/r" { // the key was found, and the role is not stored yet
			go func() {
				_, err := m.send(logical.DeleteOperation, "keys/a", nil)
				deleted <- err
			}()
			time.Sleep(20 * time.Millisecond)
		}
		return nil
	})
	m.write("roles/r", map[string]any{"key": "a"})
	require.NoError(t, <-deleted)
	require.NotNil(t, m.read("keys/a"), "the deletion waited, and found the role")
}

func TestRole_BindingWaitsForKeyDeletion(t *testing.T) {
	t.Parallel()
	m := newRoleMount(t)
	bound := make(chan *logical.Response, 1)
	m.storage.intercept(func(v verb, path string) error {
		if v == remove && path == "key/a" { // no role was found, and the key is not deleted yet
			go func() {
				resp, _ := m.send(logical.UpdateOperation, "roles/r", map[string]any{"key": "a"})
				bound <- resp
			}()
			time.Sleep(20 * time.Millisecond)
		}
		return nil
	})
	m.delete("keys/a")
	require.ErrorContains(t, (<-bound).Error(), `key: "a" does not exist`)
	require.Nil(t, m.read("roles/r"))
}

func noServerError(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Errorf("unexpected error: %v", err)
	}
}

func TestRole_IsStoredWithItsFormat(t *testing.T) {
	t.Parallel()
	m := newRoleMount(t)
	m.write("roles/r", map[string]any{"key": "a"})
	var stored map[string]any
	require.NoError(t, json.Unmarshal([]byte(m.storage.entries(t)["role/r"]), &stored))
	require.InDelta(t, roleFormat, stored["format"], 0)
	require.NotEmpty(t, stored["key_id"])
}

// FuzzParameters checks that accepted parameters reach the form as written, and that none belongs to the grant or to client
// authentication.
func FuzzParameters(f *testing.F) {
	for _, seed := range []string{"resource=https://api.example", "CLIENT_ID=x", "a==b", "=", "noequals", " scope=x", "audience=a\x00b", "ſcope=x"} {
		f.Add(seed, "x=y")
	}
	f.Fuzz(func(t *testing.T, first, second string) {
		accepted, err := formParameters([]string{first, second})
		if err != nil {
			require.NotContains(t, err.Error(), "\n")
			return
		}
		form := (&role{Parameters: accepted}).form()
		for name, values := range form {
			require.NotContains(t, reservedParameters(), strings.ToLower(name))
			for _, value := range values {
				require.Contains(t, []string{first, second}, name+"="+value)
			}
		}
	})
}

func TestRole_Delivery(t *testing.T) {
	t.Parallel()
	m := newRoleMount(t)
	for given, stored := range map[any]string{"leased": "leased", "unleased": "unleased", " shared ": "shared", "": "leased", nil: "leased"} {
		require.Equal(t, stored, m.write("roles/myapi", map[string]any{"delivery": given}).Data["delivery"])
		require.Equal(t, stored, m.read("roles/myapi").Data["delivery"])
	}
	for given, stored := range map[any]int64{"1s": 1, 86399: 86399, "23h": 82800, "": 0, 0: 0} {
		require.Equal(t, stored, m.write("roles/myapi", map[string]any{"refresh_margin": given}).Data["refresh_margin"])
	}
	require.Equal(t, `delivery: "x" is not one of leased, unleased, shared`, m.refused(logical.UpdateOperation, "roles/myapi", map[string]any{"delivery": "x"}))
	require.NotContains(t, m.refused(logical.UpdateOperation, "roles/myapi", map[string]any{"delivery": "hunter2hunter2hunter2"}), "hunter2", "it may be a secret")
}

func TestRole_RevokeTokensRequiresLease(t *testing.T) {
	t.Parallel()
	for _, delivery := range []delivery{unleasedDelivery, sharedDelivery} {
		t.Run(string(delivery), func(t *testing.T) {
			t.Parallel()
			m := newRoleMount(t)
			const text = "revoke_tokens: requires delivery=leased, not "
			require.Contains(t, m.refused(logical.UpdateOperation, "roles/myapi", map[string]any{"revoke_tokens": true, "delivery": delivery}), text)
			require.Nil(t, m.read("roles/myapi"))

			m.write("roles/myapi", map[string]any{"revoke_tokens": true})
			for _, operation := range []logical.Operation{logical.UpdateOperation, logical.PatchOperation} {
				require.Contains(t, m.refused(operation, "roles/myapi", map[string]any{"delivery": delivery}), text)
				require.Equal(t, "leased", m.read("roles/myapi").Data["delivery"], "the old entry stays")
				require.Equal(t, true, m.read("roles/myapi").Data["revoke_tokens"])
			}
			m.write("roles/myapi", map[string]any{"delivery": delivery, "revoke_tokens": false})
			require.Contains(t, m.refused(logical.PatchOperation, "roles/myapi", map[string]any{"revoke_tokens": true}), text)
			require.Equal(t, false, m.read("roles/myapi").Data["revoke_tokens"])
		})
	}
}

func TestRole_OldEntryIsLeased(t *testing.T) {
	t.Parallel()
	m, _ := newReadyMount(t)
	var stored map[string]any
	require.NoError(t, json.Unmarshal([]byte(m.storage.entries(t)["role/myapi"]), &stored))
	for _, later := range []string{"delivery", "refresh_margin", "revoke_tokens", "allow_assertion"} {
		require.Contains(t, stored, later)
		delete(stored, later)
	}
	entry, err := logical.StorageEntryJSON("role/myapi", stored)
	require.NoError(t, err)
	require.NoError(t, m.storage.Put(t.Context(), entry))
	m.InvalidateKey(t.Context(), "role/myapi")

	data := m.read("roles/myapi").Data
	require.Equal(t, []any{"leased", int64(0), false, false}, []any{data["delivery"], data["refresh_margin"], data["revoke_tokens"], data["allow_assertion"]})
	require.NotNil(t, m.read("creds/myapi").Secret)
	writes := m.storage.writes()
	m.write("roles/myapi", data)
	require.Equal(t, writes, m.storage.writes(), "it equals what a write stores")
}
