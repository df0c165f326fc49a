package backend

import (
	"maps"
	"net/http"

	"github.com/hashicorp/vault/sdk/framework"
)

// computed describes fields of an answer that are no settings.
type computed struct {
	name        string
	kind        framework.FieldType
	description string
	sensitive   bool
	optional    bool // not in every answer
}

// answerFields declares an answer: the settings as they are echoed, and computed fields. All are always there.
func answerFields[T any](settings []setting[T], others []computed) map[string]*framework.FieldSchema {
	fields := make(map[string]*framework.FieldSchema, len(settings)+len(others))
	for _, s := range settings {
		field := *s.schema
		field.Required = true
		fields[s.name] = &field
	}
	maps.Copy(fields, computedFields(others))
	return fields
}

func computedFields(others []computed) map[string]*framework.FieldSchema {
	fields := make(map[string]*framework.FieldSchema, len(others))
	for _, c := range others {
		fields[c.name] = &framework.FieldSchema{Type: c.kind, Description: c.description, Required: !c.optional}
		if c.sensitive {
			fields[c.name].DisplayAttrs = &framework.DisplayAttributes{Sensitive: true}
		}
	}
	return fields
}

func ok(description string, fields map[string]*framework.FieldSchema) map[int][]framework.Response {
	return map[int][]framework.Response{http.StatusOK: {{Description: description, Fields: fields}}}
}

func noContent() map[int][]framework.Response {
	return map[int][]framework.Response{http.StatusNoContent: {{Description: "Done."}}}
}

func listed() map[int][]framework.Response {
	return ok("The names.", map[string]*framework.FieldSchema{
		"keys": {Type: framework.TypeStringSlice, Description: "The names; absent if there are none."},
	})
}
