package backend

import (
	"maps"
	"math"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"
	"github.com/stretchr/testify/require"
)

func openAPI(t *testing.T, m *mount) *framework.OASDocument {
	t.Helper()
	resp, err := m.HandleRequest(t.Context(), &logical.Request{
		Operation: logical.HelpOperation, Path: "", Storage: m.storage, Data: map[string]any{"requestResponsePrefix": "BcgovJwt"},
	})
	require.NoError(t, err)
	document, isDocument := resp.Data["openapi"].(*framework.OASDocument)
	require.True(t, isDocument)
	return document
}

// TestOpenAPI_DeclaresWhatIsSent: generated clients decode by the declared types.
func TestOpenAPI_DeclaresWhatIsSent(t *testing.T) {
	t.Parallel()
	m, _ := newReadyMount(t)
	document := openAPI(t, m)
	m.write("roles/myapi", map[string]any{"allow_assertion": true})
	m.write("roles/unleased", map[string]any{"key": "myapi", "delivery": "unleased"})
	compared := map[string]bool{}
	for _, request := range []struct {
		operation logical.Operation
		method    string
		path      string
		data      map[string]any
		declared  string // empty: the path
	}{
		{logical.UpdateOperation, "POST", "config", map[string]any{"allowed_hosts": "127.0.0.1:1,*.example.com"}, ""},
		{logical.PatchOperation, "PATCH", "config", map[string]any{"allowed_hosts": nil}, ""},
		{logical.ReadOperation, "GET", "config", nil, ""},
		{logical.UpdateOperation, "POST", "keys/myapi", nil, "keys/{name}"},
		{logical.PatchOperation, "PATCH", "keys/myapi", nil, "keys/{name}"},
		{logical.ReadOperation, "GET", "keys/myapi", nil, "keys/{name}"},
		{logical.ListOperation, "GET", "keys/", nil, ""},
		{logical.ReadOperation, "GET", "keys/myapi/certificate", map[string]any{"version": 1}, "keys/{name}/certificate"},
		{logical.ReadOperation, "GET", "keys/myapi/jwks", nil, "keys/{name}/jwks"},
		{logical.ListOperation, "GET", "keys/myapi/versions/", nil, "keys/{name}/versions/"},
		{logical.ReadOperation, "GET", "keys/myapi/versions/1", nil, "keys/{name}/versions/{version}"},
		{logical.UpdateOperation, "POST", "roles/myapi", nil, "roles/{name}"},
		{logical.PatchOperation, "PATCH", "roles/myapi", nil, "roles/{name}"},
		{logical.ReadOperation, "GET", "roles/myapi", nil, "roles/{name}"},
		{logical.ListOperation, "GET", "roles/", nil, ""},
		{logical.ReadOperation, "GET", "creds/myapi", nil, "creds/{role}"},
		{logical.ReadOperation, "GET", "creds/unleased", nil, "creds/{role}"},
		{logical.ReadOperation, "GET", "assertion/myapi", nil, "assertion/{role}"},
		{logical.ReadOperation, "GET", "check/myapi", nil, "check/{role}"},
		{logical.ReadOperation, "GET", "info", nil, ""},
		{logical.ReadOperation, "GET", "wrapping_key", nil, ""},
		{logical.UpdateOperation, "POST", "keys/myapi/rotate", nil, "keys/{name}/rotate"},
		{logical.UpdateOperation, "POST", "keys/myapi/activate", map[string]any{"force": true}, "keys/{name}/activate"},
		{logical.UpdateOperation, "POST", "keys/myapi/destroy", map[string]any{"version": 1}, "keys/{name}/destroy"},
	} {
		declared := "/" + request.declared
		if request.declared == "" {
			declared += request.path
		}
		operation := operationOf(t, document, declared, request.method)
		m.generateQuickly()
		sent := overJSON(t, m.do(request.operation, request.path, request.data).Data)
		properties := responseProperties(t, document, operation)
		for name, value := range sent {
			require.Contains(t, properties, name, declared)
			require.Equal(t, oasType(value), properties[name].Type, "%s of %s %s", name, request.method, declared)
		}
		compared[request.method+" "+declared] = true
	}
	for declared, item := range document.Paths {
		for method, operation := range operationsOf(item) {
			if method != "DELETE" && declared != "/keys/{name}/import" && declared != "/jwks/{id}" && declared != "/metrics" {
				require.Contains(t, compared, method+" "+declared, operation.OperationID)
			}
		}
	}
}

// TestOpenAPI_DeclaresFieldsThatAreAccepted: what is refused is not declared.
func TestOpenAPI_DeclaresFieldsThatAreAccepted(t *testing.T) {
	t.Parallel()
	m := newMount(t)
	document := openAPI(t, m)
	kinds := map[string]logical.Operation{
		"POST": logical.UpdateOperation, "PATCH": logical.PatchOperation, "GET": logical.ReadOperation, "DELETE": logical.DeleteOperation,
	}
	for declared, item := range document.Paths {
		route := m.Route(regexp.MustCompile(`\{\w+\}`).ReplaceAllString(strings.TrimPrefix(declared, "/"), "myapi"))
		for method, operation := range operationsOf(item) {
			kind := kinds[method]
			if strings.HasSuffix(declared, "/") {
				kind = logical.ListOperation
			}
			var fields []string
			for _, parameter := range operation.Parameters {
				require.Equal(t, "query", parameter.In, "%s %s", method, declared)
				fields = append(fields, parameter.Name)
			}
			if operation.RequestBody != nil {
				for _, content := range operation.RequestBody.Content {
					fields = append(fields, slices.Collect(maps.Keys(resolve(document, content.Schema).Properties))...)
				}
			}
			slices.Sort(fields)
			require.Equal(t, allowedFields(route, kind), fields, "%s %s", method, declared)
		}
	}
}

func operationsOf(item *framework.OASPathItem) map[string]*framework.OASOperation {
	found := map[string]*framework.OASOperation{"GET": item.Get, "POST": item.Post, "PATCH": item.Patch, "DELETE": item.Delete}
	maps.DeleteFunc(found, func(_ string, operation *framework.OASOperation) bool { return operation == nil })
	return found
}

func operationOf(t *testing.T, document *framework.OASDocument, path, method string) *framework.OASOperation {
	t.Helper()
	require.Contains(t, document.Paths, path)
	operation := operationsOf(document.Paths[path])[method]
	require.NotNil(t, operation, "%s %s", method, path)
	return operation
}

func responseProperties(
	t *testing.T, document *framework.OASDocument, operation *framework.OASOperation,
) map[string]*framework.OASSchema {
	t.Helper()
	for _, content := range operation.Responses[200].Content {
		return resolve(document, content.Schema).Properties
	}
	require.Fail(t, "no content", operation.OperationID)
	return nil
}

func resolve(document *framework.OASDocument, schema *framework.OASSchema) *framework.OASSchema {
	if name, isReference := strings.CutPrefix(schema.Ref, "#/components/schemas/"); isReference {
		return document.Components.Schemas[name]
	}
	return schema
}

// oasType returns the type of a JSON value in OpenAPI.
func oasType(value any) string {
	switch v := value.(type) {
	case string:
		return "string"
	case bool:
		return "boolean"
	case []any:
		return "array"
	case float64:
		if v == math.Trunc(v) {
			return "integer"
		}
		return "number"
	default:
		return "object"
	}
}
