package backend

import (
	"net/http"

	"github.com/hashicorp/vault/sdk/framework"
)

// responseField describes a computed field that every response has.
func responseField(kind framework.FieldType, description string) *framework.FieldSchema {
	return &framework.FieldSchema{Type: kind, Description: description, Required: true}
}

func responseText(description string) *framework.FieldSchema {
	return responseField(framework.TypeString, description)
}

// responseSecret describes a token or an assertion.
func responseSecret(description string) *framework.FieldSchema {
	schema := responseText(description)
	schema.DisplayAttrs = &framework.DisplayAttributes{Sensitive: true}
	return schema
}

// responseFields declares a response: the fields of an entry, and computed ones.
func responseFields[T any](
	fields []field[T], computed map[string]*framework.FieldSchema,
) map[string]*framework.FieldSchema {
	schemas := fieldSchemas(fields, computed)
	for _, f := range fields {
		schema := *f.schema
		schema.Required = true
		schemas[f.name] = &schema
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
