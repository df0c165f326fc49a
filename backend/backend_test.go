package backend

import (
	"net/http"
	"path"
	"slices"
	"strings"
	"testing"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	// A dependency of Vault's SDK starts this one when it is imported.
	goleak.VerifyTestMain(m, goleak.IgnoreTopFunction("go.opencensus.io/stats/view.(*worker).start"))
}

func TestFactory_CreatesMount(t *testing.T) {
	t.Parallel()
	created, err := Factory(Build{Version: "v9.8.7"})(t.Context(), &logical.BackendConfig{System: &countingSystem{}, Logger: hclog.NewNullLogger()})
	require.NoError(t, err)
	require.Equal(t, logical.TypeLogical, created.Type())
	require.Equal(t, "v9.8.7", created.(logical.PluginVersioner).PluginVersion().Version)
	require.Equal(t, []string{"key/", "wrapping-key"}, created.SpecialPaths().SealWrapStorage, "a prefix without its slash would match nothing below")
	require.Equal(t, []string{"jwks/+"}, created.SpecialPaths().Unauthenticated)
	created.Cleanup(t.Context())

	_, err = Factory(Build{})(t.Context(), nil)
	require.Error(t, err)
}

func TestFactory_WorksAtCatalogRegistration(t *testing.T) {
	t.Parallel()
	created, err := Factory(Build{Version: "v1.0.0"})(t.Context(), &logical.BackendConfig{})
	require.NoError(t, err)
	created.Cleanup(t.Context())
}

func TestStorage_PrivateKeysAreSealWrapped(t *testing.T) {
	t.Parallel()
	m, _ := newReadyMount(t)
	for path, value := range m.storage.entries(t) {
		if !strings.HasPrefix(path, m.SpecialPaths().SealWrapStorage[0]) {
			require.NotContains(t, value, "private", path)
			require.Less(t, len(value), 512, path)
		}
	}
}

// operations returns all that the mount serves, by a concrete path.
func (m *mount) operations() map[string][]logical.Operation {
	found := map[string][]logical.Operation{}
	for _, p := range m.Paths {
		concrete := p.Pattern
		for field := range p.Fields {
			concrete = strings.ReplaceAll(concrete, "(?P<"+field+">[^/]+)", "myapi")
		}
		concrete = strings.TrimPrefix(strings.TrimSuffix(strings.ReplaceAll(concrete, "/?", "/"), "$"), "^")
		for operation := range p.Operations {
			found[concrete] = append(found[concrete], operation)
		}
	}
	return found
}

func TestPaths_AreDocumented(t *testing.T) {
	t.Parallel()
	m := newMount(t)
	ids := map[string]string{}
	for concrete, operations := range m.operations() {
		route := m.Route(concrete)
		require.NotNil(t, route, concrete)
		require.NotEmpty(t, route.HelpSynopsis, concrete)
		require.NotEmpty(t, route.HelpDescription, concrete)
		for name, field := range route.Fields {
			require.NotEmpty(t, field.Description, "%s of %s", name, concrete)
		}
		for _, operation := range operations {
			properties := route.Operations[operation].Properties()
			require.NotEmpty(t, properties.Summary, "%s %s", operation, concrete)
			require.NotEmpty(t, properties.Responses, "%s %s", operation, concrete)
			// The first read of the wrapping key creates it.
			writes := isWrite(operation) || operation == logical.DeleteOperation || concrete == "wrapping_key"
			require.Equal(t, writes, properties.ForwardPerformanceStandby, "%s %s", operation, concrete)
			require.Equal(t, properties.ForwardPerformanceStandby, properties.ForwardPerformanceSecondary, "%s %s", operation, concrete)
			if operation == logical.CreateOperation || properties.Unpublished {
				continue // one operation with update in OpenAPI, or none
			}
			id := string(operation) + " " + properties.DisplayAttrs.OperationVerb + " " + properties.DisplayAttrs.OperationSuffix
			require.Empty(t, ids[id], "%s has the OpenAPI name of %s", concrete, ids[id])
			ids[id] = concrete
		}
	}
}

func TestPaths_OpenAPIOperationIDsDiffer(t *testing.T) {
	t.Parallel()
	m := newMount(t)
	resp, err := m.HandleRequest(t.Context(), &logical.Request{
		Operation: logical.HelpOperation, Path: "", Storage: m.storage, Data: map[string]any{"requestResponsePrefix": "BcgovJwt"},
	})
	require.NoError(t, err)
	document, isDocument := resp.Data["openapi"].(*framework.OASDocument)
	require.True(t, isDocument)
	seen := map[string]string{}
	for oasPath, item := range document.Paths {
		for _, operation := range []*framework.OASOperation{item.Get, item.Post, item.Patch, item.Delete} {
			if operation == nil {
				continue
			}
			require.True(t, strings.HasPrefix(operation.OperationID, operationPrefix+"-"), operation.OperationID)
			require.Empty(t, seen[operation.OperationID], "%s twice: %s", operation.OperationID, oasPath)
			seen[operation.OperationID] = oasPath
		}
	}
	require.NotEmpty(t, seen)
	require.Contains(t, resp.Data["help"], "bcgov-jwt/keys/myapi")
}

func TestPaths_SecretFieldsAreSensitive(t *testing.T) {
	t.Parallel()
	m := newMount(t)
	for path, secret := range map[string]string{"creds/myapi": "access_token", "assertion/myapi": "client_assertion"} {
		answer := m.Route(path).Operations[logical.ReadOperation].Properties().Responses[http.StatusOK][0]
		for name, field := range answer.Fields {
			require.Equal(t, name == secret, field.DisplayAttrs != nil && field.DisplayAttrs.Sensitive, "%s of %s", name, path)
		}
		require.Contains(t, answer.Fields, secret)
	}
	require.True(t, m.Secret(accessTokenType).Fields["access_token"].DisplayAttrs.Sensitive)
}

func TestInvalidate_NextReadSeesOtherNodesWrite(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		path, storagePath string
		change            map[string]any
		field             string
		want              any
	}{
		"config": {"check/myapi", "config", map[string]any{"allow_insecure_endpoints": false}, "ok", false},
		"key":    {"keys/myapi", "key/myapi", map[string]any{"disabled": true}, "disabled", true},
		"role":   {"roles/myapi", "role/myapi", map[string]any{"scopes": "a,b"}, "scopes", []string{"a", "b"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			here, _ := newReadyMount(t)
			there := mountOver(t, here.storage, here.clock)
			old := here.read(test.path).Data[test.field]
			there.write(strings.Replace(test.path, "check/myapi", "config", 1), test.change)
			require.Equal(t, old, here.read(test.path).Data[test.field], "cached until invalidated")
			here.InvalidateKey(t.Context(), test.storagePath+"x")
			here.InvalidateKey(t.Context(), "other/"+test.storagePath)
			require.Equal(t, old, here.read(test.path).Data[test.field], "another entry is invalidated")
			here.InvalidateKey(t.Context(), test.storagePath)
			require.Equal(t, test.want, here.read(test.path).Data[test.field])
		})
	}
}

func TestInvalidate_OfDeletedEntry(t *testing.T) {
	t.Parallel()
	here, _ := newReadyMount(t)
	there := mountOver(t, here.storage, here.clock)
	here.read("creds/myapi")
	there.delete("roles/myapi")
	here.InvalidateKey(t.Context(), "role/myapi")
	require.Contains(t, here.refused(logical.ReadOperation, "creds/myapi", nil), `unknown role "myapi"`)
}

func TestClean_LeavesNothingBehind(t *testing.T) {
	t.Parallel()
	m, p := newReadyMount(t)
	m.read("creds/myapi")
	m.Cleanup(t.Context())
	require.Empty(t, m.clients.values)
	require.Empty(t, m.keys.values)
	require.Empty(t, m.roles.values)
	require.Eventually(t, func() bool { return p.open.Load() == 0 }, eventually, poll, "no connection")
}

func TestRequest_UnknownPathIsRejected(t *testing.T) {
	t.Parallel()
	m := newMount(t)
	for _, unserved := range []string{"", "nothing", "keys/a/b", "creds/", "config/x", path.Join("check", "a", "b")} {
		_, err := m.handle(t.Context(), logical.ReadOperation, unserved, nil)
		require.Error(t, err, "%q", unserved)
	}
}

// TestRequest_UnsupportedOperationIgnoresTheBody: anyone may send one to jwks/.
func TestRequest_UnsupportedOperationIgnoresTheBody(t *testing.T) {
	t.Parallel()
	m := newMount(t)
	rejected := 0
	for path, served := range m.operations() {
		for _, operation := range []logical.Operation{
			logical.CreateOperation, logical.UpdateOperation, logical.PatchOperation, logical.ReadOperation, logical.ListOperation,
			logical.DeleteOperation, logical.HeaderOperation,
		} {
			if slices.Contains(served, operation) {
				continue
			}
			_, err := m.HandleRequest(t.Context(), &logical.Request{
				Operation: operation, Path: path, MountPoint: mountPoint, Storage: m.storage, Data: map[string]any{"nonsense": 1, "version": "x", "id": "y"},
			})
			require.Equal(t, logical.ErrUnsupportedOperation, err, "%s %s", operation, path)
			rejected++
		}
	}
	require.Greater(t, rejected, 50)
	require.Zero(t, m.storage.calls())
}
