package harness

import (
	"encoding/json"
	"maps"
	"net/http"
	"net/url"
	"path"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// Operation is an operation of the OpenAPI document.
type Operation struct {
	Method string
	Path   string // with {name} in it
	Query  url.Values
	Fields []string // of its body
}

// String returns the method and the path.
func (o Operation) String() string { return o.Method + " " + o.Path }

// Operations returns the operations of the mount's OpenAPI document, deletions last.
func (m *Mount) Operations(t *testing.T) []Operation {
	t.Helper()
	address := m.Client.Address() + "/v1/" + m.Path + "?help=1"
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, address, http.NoBody)
	require.NoError(t, err)
	req.Header.Set("X-Vault-Token", m.Client.Token())
	resp, err := m.Client.CloneConfig().HttpClient.Do(req)
	require.NoError(t, err)
	defer resp.Body.Close()
	var help struct {
		OpenAPI openAPI `json:"openapi"`
	}
	require.NoError(t, json.NewDecoder(resp.Body).Decode(&help))
	var operations []Operation
	for address, item := range help.OpenAPI.Paths {
		for _, method := range []string{"get", "post", "put", "patch", "delete", "head"} {
			if raw, found := item[method]; found {
				operations = append(operations, help.OpenAPI.operation(t, method, address, raw))
			}
		}
	}
	require.NotEmpty(t, operations)
	slices.SortFunc(operations, func(a, b Operation) int {
		switch aDeletes, bDeletes := a.Method == http.MethodDelete, b.Method == http.MethodDelete; {
		case aDeletes && !bDeletes:
			return 1
		case bDeletes && !aDeletes:
			return -1
		default:
			return strings.Compare(a.String(), b.String())
		}
	})
	return operations
}

// openAPI is the part of an OpenAPI 3 document that says what may be called.
type openAPI struct {
	Paths      map[string]map[string]json.RawMessage `json:"paths"`
	Components struct {
		Schemas map[string]struct {
			Properties map[string]json.RawMessage `json:"properties"`
		} `json:"schemas"`
	} `json:"components"`
}

func (d *openAPI) operation(t *testing.T, method, address string, raw json.RawMessage) Operation {
	t.Helper()
	var described struct {
		Parameters []struct {
			Name   string `json:"name"`
			In     string `json:"in"`
			Schema struct {
				Enum []string `json:"enum"`
			} `json:"schema"`
		} `json:"parameters"`
		RequestBody struct {
			Content map[string]struct {
				Schema struct {
					Ref string `json:"$ref"`
				} `json:"schema"`
			} `json:"content"`
		} `json:"requestBody"`
	}
	require.NoError(t, json.Unmarshal(raw, &described))
	o := Operation{
		Method: strings.ToUpper(method), Path: strings.TrimPrefix(address, "/"),
		Query: url.Values{},
	}
	for _, parameter := range described.Parameters {
		if parameter.In == "query" && len(parameter.Schema.Enum) == 1 { // list=true
			o.Query.Set(parameter.Name, parameter.Schema.Enum[0])
		}
	}
	for _, content := range described.RequestBody.Content {
		schema := d.Components.Schemas[path.Base(content.Schema.Ref)]
		o.Fields = slices.Sorted(maps.Keys(schema.Properties))
	}
	return o
}
