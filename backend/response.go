package backend

import (
	"net/http"
	"strings"

	"github.com/hashicorp/vault/sdk/framework"
)

// responseFields returns the fields that help/fields.txt declares in these sections.
func responseFields(sections ...string) map[string]*framework.FieldSchema {
	schemas := map[string]*framework.FieldSchema{}
	for _, section := range sections {
		for _, f := range fieldTexts(section) {
			kind, optional := strings.CutSuffix(f.kind, "?")
			schema := &framework.FieldSchema{
				Type: responseType(kind), Description: f.text, Required: !optional,
			}
			if kind == "secret" {
				schema.DisplayAttrs = &framework.DisplayAttributes{Sensitive: true}
			}
			schemas[f.name] = schema
		}
	}
	return schemas
}

func responseType(kind string) framework.FieldType {
	switch kind {
	case "int":
		return framework.TypeInt
	case "int64":
		return framework.TypeInt64
	case "bool":
		return framework.TypeBool
	case "list":
		return framework.TypeStringSlice
	default:
		return framework.TypeString
	}
}

// withSettings declares a response: the settings of an entry, as they are sent, and other sections.
func withSettings[T any](fields []field[T], sections ...string) map[string]*framework.FieldSchema {
	schemas := responseFields(sections...)
	for name, schema := range fieldSchemas(fields, nil) {
		sent := *schema
		sent.Required = true
		switch sent.Type {
		case framework.TypeDurationSecond:
			sent.Type = framework.TypeInt64
		case framework.TypeCommaStringSlice:
			sent.Type = framework.TypeStringSlice
		}
		schemas[name] = &sent
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

func listResponse(columns string) map[int][]framework.Response {
	return okResponse("The names.", map[string]*framework.FieldSchema{
		"keys":     {Type: framework.TypeStringSlice, Description: "The names, if there are any."},
		"key_info": {Type: framework.TypeMap, Description: "By name: " + columns + "."},
	})
}
