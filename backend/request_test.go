package backend

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"
	"github.com/stretchr/testify/require"
)

func TestRequest_FieldsOfOtherOperationsAreRejected(t *testing.T) {
	t.Parallel()
	served := newMount(t).operations()
	require.Len(t, served, 20, "paths")
	for path, operations := range served {
		for _, operation := range operations {
			t.Run(string(operation)+" "+path, func(t *testing.T) {
				t.Parallel()
				m := newMount(t)
				m.write("keys/myapi", map[string]any{"type": "ed25519", "deletion_allowed": true})
				if !strings.HasPrefix(path, "keys/") {
					m.write("roles/myapi", nil)
				}
				before := m.storage.entries(t)
				for field, text := range foreignFields(m.Route(path), operation) {
					for _, value := range []any{"x", 1, nil, []string{}, ""} {
						// Sent directly, as after Vault's existence check.
						resp, err := m.HandleRequest(t.Context(), &logical.Request{
							Operation: operation, Path: path, MountPoint: mountPoint, Storage: m.storage, Data: overJSON(t, map[string]any{field: value}),
						})
						require.NoError(t, err)
						require.True(t, resp.IsError(), "%s=%v", field, value)
						require.Contains(t, resp.Error().Error(), text)
					}
				}
				require.Equal(t, before, m.storage.entries(t))
			})
		}
	}
}

// foreignFields maps fields that must be rejected to a part of the error.
func foreignFields(path *framework.Path, operation logical.Operation) map[string]string {
	fields := map[string]string{
		"nonsense":               `unknown field "nonsense"`,
		"":                       `unknown field ""`,
		strings.Repeat("é", 200): strings.Repeat("é", 32) + "…",
		"LIST":                   `unknown field "LIST"`,
	}
	if operation != logical.ListOperation {
		fields["list"] = `unknown field "list"`
	}
	for name, schema := range path.Fields {
		switch {
		case schema.Query && operation == logical.ReadOperation: // its own
		case inURL(path, name):
			fields[name] = name + ": is part of the path, not a field"
			fields[strings.ToUpper(name)] = `unknown field "` + strings.ToUpper(name)
		case isWrite(operation) && !schema.Query:
			fields[strings.ToUpper(name)] = fmt.Sprintf("did you mean %q?", name)
			fields[strings.ToUpper(name[:1])+name[1:]] = fmt.Sprintf("did you mean %q?", name)
		default:
			fields[name] = name // settings and query parameters are not interchangeable
		}
	}
	return fields
}

func TestRequest_UnknownFieldErrorListsKnownOnes(t *testing.T) {
	t.Parallel()
	m := newMount(t)
	require.Equal(t, `unknown field "resource": this operation accepts allow_assertion, delivery, key, parameters, refresh_margin, revoke_tokens, scopes`, m.refused(logical.UpdateOperation, "roles/a", map[string]any{"resource": "x"}))
	require.Equal(t, `unknown field "scopes": this operation accepts no fields`, m.refused(logical.ReadOperation, "creds/a", map[string]any{"scopes": "x"}))
	require.Equal(t, `unknown field "x": this operation accepts no fields`, m.refused(logical.ListOperation, "keys/", map[string]any{"x": "y"}))
}

// wrongValues returns values of another JSON type than the field's, or that do not parse as it.
func wrongValues(kind framework.FieldType) []any {
	object, list := map[string]any{"a": 1}, []any{"a"}
	switch kind {
	case framework.TypeString:
		return []any{5, 5.7, true, object, list, []any{}}
	case framework.TypeBool:
		return []any{5, 0, 1, "yes", "on", "2", object, list}
	case framework.TypeInt:
		return []any{5.7, true, false, "5.7", "010", "0x1", "1e1", "one", "1,000", object, list, math53, 1 << 40, "99999999999999999999"}
	case framework.TypeDurationSecond:
		return []any{90.5, true, "500ms", "1.5s", "90.5", "soon", "1 h", "5x", object, list, math53, "99999999999999999999", "36028797018964013"}
	case framework.TypeCommaStringSlice, framework.TypeStringSlice:
		return []any{5, true, object, []any{1}, []any{"a", nil}, []any{[]any{"a"}}, []any{object}}
	}
	return nil
}

func TestRequest_WrongTypeErrorNamesField(t *testing.T) {
	t.Parallel()
	for _, path := range []string{"config", "keys/myapi", "roles/myapi"} {
		for name, field := range newMount(t).Route(path).Fields {
			if name == "name" || field.Query {
				continue
			}
			t.Run(path+" "+name, func(t *testing.T) {
				t.Parallel()
				m := newMount(t)
				m.write("keys/myapi", map[string]any{"type": "ed25519"})
				m.write("roles/myapi", nil)
				values := wrongValues(field.Type)
				require.NotEmpty(t, values)
				before := m.storage.entries(t)
				for _, value := range values {
					for _, operation := range []logical.Operation{logical.UpdateOperation, logical.PatchOperation} {
						resp, err := m.HandleRequest(t.Context(), &logical.Request{
							Operation: operation, Path: path, MountPoint: mountPoint, Storage: m.storage, Data: overJSON(t, map[string]any{name: value}),
						})
						require.NoError(t, err)
						require.True(t, resp.IsError(), "%v", value)
						require.True(t, strings.HasPrefix(resp.Error().Error(), name+": "), "%v: %s", value, resp.Error())
					}
				}
				require.Equal(t, before, m.storage.entries(t))
			})
		}
	}
}

func TestRequest_WrongValueIsNotQuoted(t *testing.T) {
	t.Parallel()
	m := newMount(t)
	for field, value := range map[string]any{"assertion_ttl": "hunter2", "disabled": "hunter2", "client_id": map[string]any{"hunter2": 1}, "issuer": "https://hunter2@idp"} {
		require.NotContains(t, m.refusedDirectly("keys/a", map[string]any{field: value}), "hunter2")
	}
	require.NotContains(t, m.refusedDirectly("config", map[string]any{"max_retries": "hunter2"}), "hunter2")
}

// refusedDirectly sends a write without an existence check, and returns its error.
func (m *mount) refusedDirectly(path string, data map[string]any) string {
	m.tb.Helper()
	resp, err := m.HandleRequest(m.tb.Context(), &logical.Request{
		Operation: logical.UpdateOperation, Path: path, MountPoint: mountPoint, Storage: m.storage, Data: overJSON(m.tb, data),
	})
	require.NoError(m.tb, err)
	require.True(m.tb, resp.IsError())
	return resp.Error().Error()
}

func TestRequest_ExistenceCheckIgnoresData(t *testing.T) {
	t.Parallel()
	m := newMount(t)
	m.write("keys/myapi", map[string]any{"type": "ed25519"})
	for _, path := range []string{"keys/myapi", "roles/myapi"} {
		for _, data := range []map[string]any{
			{"assertion_ttl": "hunter2", "scopes": map[string]any{}}, {"disabled": "x", "parameters": 5.5}, {"client_id": []any{1}, "key": []any{1}}, {"assertion_ttl": -1},
		} {
			_, _, err := m.HandleExistenceCheck(t.Context(), &logical.Request{Operation: logical.UpdateOperation, Path: path, Storage: m.storage, Data: overJSON(t, data)})
			require.NoError(t, err, "Vault would show this error in place of the write's own, which names the field and quotes nothing")
		}
	}
}

func TestRequest_ExistenceCheckReportsWhatExists(t *testing.T) {
	t.Parallel()
	m := newMount(t)
	m.write("keys/there", map[string]any{"type": "ed25519"})
	m.write("roles/there", nil)
	for path, want := range map[string]bool{"keys/there": true, "roles/there": true, "keys/none": false, "roles/none": false, "keys/-bad": false, "roles/..": false} {
		checked, exists, err := m.HandleExistenceCheck(t.Context(), &logical.Request{Operation: logical.UpdateOperation, Path: path, Storage: m.storage})
		require.NoError(t, err)
		require.True(t, checked)
		require.Equal(t, want, exists, path)
	}
}

func TestRequest_PanicEndsOnlyTheRequest(t *testing.T) {
	t.Parallel()
	const secret = "hunter2"
	for _, value := range []any{secret, errors.New(secret), map[string]string{"k": secret}, nil} {
		t.Run(fmt.Sprintf("%T", value), func(t *testing.T) {
			t.Parallel()
			m := newMount(t)
			m.write("keys/myapi", map[string]any{"type": "ed25519"})
			m.InvalidateKey(t.Context(), "key/myapi")
			m.storage.intercept(func(verb, string) error { panic(value) })

			text := m.failed(http.StatusInternalServerError, logical.PatchOperation, "keys/myapi", map[string]any{"disabled": true})
			require.Contains(t, text, "request-1")
			require.NotContains(t, text, secret)
			_, _, err := m.HandleExistenceCheck(t.Context(), &logical.Request{ID: "request-2", Operation: logical.UpdateOperation, Path: "keys/myapi", Storage: m.storage})
			require.ErrorContains(t, err, "request-2")
			require.NotContains(t, err.Error(), secret)

			logged := m.log.String()
			for _, part := range []string{"panic: please report it", "request_id=request-1", "request_id=request-2", "path=keys/myapi", "request_test.go"} {
				require.Contains(t, logged, part)
			}
			require.NotContains(t, logged, secret)

			m.storage.intercept(nil)
			m.write("keys/myapi", map[string]any{"disabled": true}) // no lock stays held
		})
	}
}

func TestRequest_ErrorsMapToWhatVaultPassesOn(t *testing.T) {
	t.Parallel()
	coded := logical.CodedError(http.StatusBadGateway, "down")
	plain := errors.New("plain")
	for name, test := range map[string]struct {
		err  error
		text string // of an ErrorResponse
		want error
	}{
		"none":                    {},
		"user's":                  {err: userErrorf("x: %d%% wrong", 5), text: "x: 5% wrong"},
		"user's, wrapped":         {err: fmt.Errorf("config: %w", userErrorf("bad")), text: "config: bad"},
		"user's of another error": {err: userErrorf("issuer: %w", plain), text: "issuer: plain"},
		"coded":                   {err: coded, want: coded},
		"coded, wrapped":          {err: fmt.Errorf("while: %w", coded), want: coded},
		"read only":               {err: logical.ErrReadOnly, want: logical.ErrReadOnly},
		"read only, wrapped":      {err: fmt.Errorf("store: %w", fmt.Errorf("put: %w", logical.ErrReadOnly)), want: logical.ErrReadOnly},
		"plain":                   {err: plain, want: plain},
		"unsupported":             {err: logical.ErrUnsupportedPath, want: logical.ErrUnsupportedPath},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			resp, err := vaultError(nil, test.err)
			require.Equal(t, test.want, err, "bare, not wrapped")
			if test.text == "" {
				require.Nil(t, resp)
				return
			}
			require.Equal(t, map[string]any{"error": test.text}, resp.Data)
		})
	}
}

func TestRequest_EveryWritePassesOnBareReadOnlyError(t *testing.T) {
	t.Parallel()
	private, _ := newPEM(t)
	for _, test := range []struct {
		operation logical.Operation
		path      string
		data      map[string]any
	}{
		{logical.UpdateOperation, "config", map[string]any{"max_retries": 1}},
		{logical.PatchOperation, "config", map[string]any{"max_retries": 1}},
		{logical.DeleteOperation, "config", nil},
		{logical.UpdateOperation, "keys/new", map[string]any{"type": "ed25519"}},
		{logical.UpdateOperation, "keys/myapi", map[string]any{"disabled": true}},
		{logical.PatchOperation, "keys/myapi", map[string]any{"disabled": true}},
		{logical.DeleteOperation, "keys/unused", nil},
		{logical.UpdateOperation, "roles/new", map[string]any{"key": "myapi"}},
		{logical.UpdateOperation, "roles/myapi", map[string]any{"scopes": "x"}},
		{logical.PatchOperation, "roles/myapi", map[string]any{"key": "unused"}},
		{logical.DeleteOperation, "roles/myapi", nil},
		{logical.UpdateOperation, "keys/myapi/rotate", nil},
		{logical.UpdateOperation, "keys/staged/activate", map[string]any{"force": true}},
		{logical.UpdateOperation, "keys/staged/destroy", map[string]any{"version": 2}},
		{logical.UpdateOperation, "keys/new/import", map[string]any{"private_key": private}},
		{logical.ReadOperation, "wrapping_key", nil},
	} {
		t.Run(string(test.operation)+" "+test.path, func(t *testing.T) {
			t.Parallel()
			m, _ := newReadyMount(t)
			m.write("keys/unused", map[string]any{"type": "ed25519", "deletion_allowed": true})
			m.write("keys/staged", map[string]any{"type": "ed25519"})
			m.write("keys/staged/rotate", nil)
			m.storage.intercept(func(v verb, _ string) error {
				if v.writes() {
					return logical.ErrReadOnly
				}
				return nil
			})
			resp, err := m.handle(t.Context(), test.operation, test.path, test.data)
			require.Equal(t, logical.ErrReadOnly, err)
			require.Nil(t, resp)
		})
	}
}

func TestRequest_AllowedFieldsDependOnOperation(t *testing.T) {
	t.Parallel()
	m := newMount(t)
	require.True(t, slices.Contains(allowedFields(m.Route("keys/a"), logical.UpdateOperation), "type"))
	require.NotContains(t, allowedFields(m.Route("keys/a"), logical.UpdateOperation), "name")
	require.Empty(t, allowedFields(m.Route("keys/a"), logical.ReadOperation))
	require.Equal(t, []string{"version"}, allowedFields(m.Route("keys/a/certificate"), logical.ReadOperation))
	require.Equal(t, []string{"force"}, allowedFields(m.Route("keys/a/activate"), logical.UpdateOperation))
	require.Equal(t, []string{"list"}, allowedFields(m.Route("keys/"), logical.ListOperation))
}
