package backend

import (
	"maps"
	"net/http"

	"github.com/hashicorp/vault/sdk/framework"
)

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
