package backend

import (
	"embed"
	"net/http"
	"strings"

	"github.com/hashicorp/vault/sdk/framework"
)

// helpTexts are what `vault path-help` prints below a path's synopsis, one file per path.
//
//go:embed help
var helpTexts embed.FS

// help returns the help text of this name. It panics for an unknown one, when the mount is made.
func help(name string) string {
	text, err := helpTexts.ReadFile("help/" + name + ".txt")
	if err != nil {
		panic(err)
	}
	return strings.TrimSpace(string(text))
}

// fieldText is a line of help/fields.txt.
type fieldText struct{ name, kind, text string }

// fieldTexts returns the lines of a section of help/fields.txt.
func fieldTexts(section string) []fieldText {
	_, rest, _ := strings.Cut(help("fields"), "\n["+section+"]\n")
	block, _, _ := strings.Cut(rest, "\n\n")
	var fields []fieldText
	for line := range strings.SplitSeq(block, "\n") {
		declared, text, _ := strings.Cut(line, ": ")
		name, kind, _ := strings.Cut(declared, " ")
		fields = append(fields, fieldText{name, kind, text})
	}
	return fields
}

// declaredFields returns the fields that help/fields.txt declares in these sections.
func declaredFields(sections ...string) map[string]*framework.FieldSchema {
	schemas := map[string]*framework.FieldSchema{}
	for _, section := range sections {
		for _, f := range fieldTexts(section) {
			kind, optional := strings.CutSuffix(f.kind, "?")
			schema := &framework.FieldSchema{
				Type: declaredType(kind), Description: f.text, Required: !optional,
			}
			if kind == "secret" {
				schema.DisplayAttrs = &framework.DisplayAttributes{Sensitive: true}
			}
			schemas[f.name] = schema
		}
	}
	return schemas
}

func declaredType(kind string) framework.FieldType {
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
	schemas := declaredFields(sections...)
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
