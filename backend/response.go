package backend

import (
	"context"
	"maps"
	"net/http"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"
)

// operation describes an operation. Its OpenAPI ID consists of verb and suffix.
func operation(
	callback framework.OperationFunc, summary string, responses map[int][]framework.Response,
	verb, suffix string,
) *framework.PathOperation {
	return &framework.PathOperation{
		Callback: callback, Summary: summary, Responses: responses,
		DisplayAttrs: &framework.DisplayAttributes{OperationVerb: verb, OperationSuffix: suffix},
	}
}

// forwarded marks an operation that needs a node that can write.
func forwarded(o *framework.PathOperation) *framework.PathOperation {
	o.ForwardPerformanceStandby, o.ForwardPerformanceSecondary = true, true
	return o
}

// listPath describes the list of a kind of entry, such as keys.
func listPath(kind string, callback framework.OperationFunc) *framework.Path {
	synopsis := "List the " + kind + "."
	return &framework.Path{
		Pattern: kind + "/?$",
		Operations: map[logical.Operation]framework.OperationHandler{
			logical.ListOperation: operation(callback, synopsis, listResponse(), "", kind),
		},
		HelpSynopsis:    synopsis,
		HelpDescription: "Lists the names of the mount's " + kind + ".",
	}
}

// nameField describes the name of a key or role in a path.
func nameField(kind string) *framework.FieldSchema {
	return &framework.FieldSchema{
		Type: framework.TypeString, Description: "Name of the " + kind + ".", Required: true,
	}
}

// namedHandler handles a request for the key or role of this name.
type namedHandler func(context.Context, *logical.Request, string) (*logical.Response, error)

func (h namedHandler) callback(
	ctx context.Context, req *logical.Request, data *framework.FieldData,
) (*logical.Response, error) {
	name, err := nameIn(data, "name")
	if err != nil {
		return nil, err
	}
	return h(ctx, req, name)
}

// responseField describes a computed field of a response.
type responseField struct {
	name        string
	kind        framework.FieldType
	description string
	sensitive   bool
	optional    bool // not in every response
}

func stringField(name, description string) responseField {
	return responseField{name: name, kind: framework.TypeString, description: description}
}

func intField(name, description string) responseField {
	return responseField{name: name, kind: framework.TypeInt, description: description}
}

// responseFields declares a response: the fields of an entry, and computed ones.
func responseFields[T any](
	fields []field[T], others []responseField,
) map[string]*framework.FieldSchema {
	schemas := make(map[string]*framework.FieldSchema, len(fields)+len(others))
	for _, f := range fields {
		schema := *f.schema
		schema.Required = true
		schemas[f.name] = &schema
	}
	maps.Copy(schemas, responseSchemas(others))
	return schemas
}

func responseSchemas(fields []responseField) map[string]*framework.FieldSchema {
	schemas := make(map[string]*framework.FieldSchema, len(fields))
	for _, f := range fields {
		schemas[f.name] = &framework.FieldSchema{
			Type: f.kind, Description: f.description, Required: !f.optional,
		}
		if f.sensitive {
			schemas[f.name].DisplayAttrs = &framework.DisplayAttributes{Sensitive: true}
		}
	}
	return schemas
}

func okResponse(
	description string, fields map[string]*framework.FieldSchema,
) map[int][]framework.Response {
	return map[int][]framework.Response{http.StatusOK: {{Description: description, Fields: fields}}}
}

func noContentResponse() map[int][]framework.Response {
	return map[int][]framework.Response{http.StatusNoContent: {{Description: "Success."}}}
}

func listResponse() map[int][]framework.Response {
	return okResponse("The names.", map[string]*framework.FieldSchema{
		"keys": {Type: framework.TypeStringSlice, Description: "Absent if there are none."},
	})
}
