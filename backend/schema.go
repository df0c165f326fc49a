package backend

import (
	"context"
	"embed"
	"maps"
	"net/http"
	"strings"

	"github.com/bcgov/vault-plugin-bcgov-jwt/backend/internal/keyring"
	"github.com/bcgov/vault-plugin-bcgov-jwt/backend/internal/storage"
	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"
)

// textFiles are tables, and what `vault path-help` prints below a path's synopsis.
//
//go:embed texts
var textFiles embed.FS

// textOf returns the file of this name in texts.
func textOf(name string) string {
	content, _ := textFiles.ReadFile("texts/" + name + ".txt") // a test reads all
	return strings.TrimSpace(string(content))
}

// fieldText is a line of texts/fields.txt.
type fieldText struct{ name, kind, text string }

// fieldTexts returns the lines of a section of texts/fields.txt.
func fieldTexts(section string) []fieldText {
	_, rest, _ := strings.Cut(textOf("fields"), "\n["+section+"]\n")
	block, _, _ := strings.Cut(rest, "\n\n")
	var fields []fieldText
	for line := range strings.SplitSeq(block, "\n") {
		declared, text, _ := strings.Cut(line, ": ")
		name, kind, _ := strings.Cut(declared, " ")
		fields = append(fields, fieldText{name, kind, text})
	}
	return fields
}

// declaredFields returns the fields that texts/fields.txt declares in these sections.
func declaredFields(sections ...string) map[string]*framework.FieldSchema {
	kinds := map[string]framework.FieldType{
		"string": framework.TypeString, "secret": framework.TypeString,
		"int": framework.TypeInt, "int64": framework.TypeInt64,
		"bool": framework.TypeBool, "list": framework.TypeStringSlice,
	}
	schemas := map[string]*framework.FieldSchema{}
	for _, section := range sections {
		for _, f := range fieldTexts(section) {
			kind, optional := strings.CutSuffix(f.kind, "?")
			schema := &framework.FieldSchema{
				Type: kinds[kind], Description: f.text, Required: !optional,
			}
			if kind == "secret" {
				schema.DisplayAttrs = &framework.DisplayAttributes{Sensitive: true}
			}
			schemas[f.name] = schema
		}
	}
	return schemas
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

// listPath describes the list of a kind of entry, such as keys, and what `vault list -detailed`
// shows of each. describe reads storage alone, so that a list of thousands fills no cache.
func listPath(
	kind, columns string, stored func(context.Context, logical.Storage) ([]string, error),
	describe func(context.Context, logical.Storage, string) (map[string]any, error),
) *framework.Path {
	list := func(
		ctx context.Context, req *logical.Request, _ *framework.FieldData,
	) (*logical.Response, error) {
		names, err := stored(ctx, req.Storage)
		if err != nil {
			return nil, err
		}
		info := make(map[string]any, len(names))
		for _, name := range names {
			row, err := describe(ctx, req.Storage, name)
			switch {
			case storage.Unreadable(err):
				row = map[string]any{"state": "unreadable"}
			case err != nil:
				return nil, err
			}
			info[name] = row
		}
		return logical.ListResponseWithInfo(names, info), nil
	}
	return singlePath(kind+"/?$", "Lists the mount's "+kind+"; with -detailed, their "+columns+".",
		nil, logical.ListOperation,
		operation(list, "List the "+kind+".", listResponse(columns), "", kind))
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

// entryOperations describes the operations on a key or a role.
func entryOperations(
	kind, patchSummary string, responses map[int][]framework.Response,
	read, write, remove namedHandler,
) map[logical.Operation]framework.OperationHandler {
	on := func(handler namedHandler, verb, summary string) *framework.PathOperation {
		return operation(handler.callback, summary, responses, verb, kind)
	}
	update := forwarded(on(write, "", "Create or update a "+kind+"."))
	deletion := forwarded(on(remove, "", "Delete a "+kind+"."))
	deletion.Responses = noContentResponse()
	return map[logical.Operation]framework.OperationHandler{
		logical.CreateOperation: update,
		logical.UpdateOperation: update,
		logical.PatchOperation:  forwarded(on(write, "patch", patchSummary)),
		logical.ReadOperation:   on(read, "", "Read a "+kind+"."),
		logical.DeleteOperation: deletion,
	}
}

// existence returns the check by which Vault tells create from update.
func existence[T any](entries *entryCache[T]) framework.ExistenceFunc {
	return func(
		ctx context.Context, req *logical.Request, data *framework.FieldData,
	) (bool, error) {
		name, err := nameIn(data, "name")
		if err != nil {
			return false, nil // the write returns the error
		}
		entry, err := entries.get(ctx, req.Storage, name)
		return entry != nil, err
	}
}

// singlePath describes a path with one operation, whose summary is the path's synopsis too.
func singlePath(
	pattern, help string, fields map[string]*framework.FieldSchema,
	kind logical.Operation, only *framework.PathOperation,
) *framework.Path {
	return &framework.Path{
		Pattern:         pattern,
		Fields:          fields,
		Operations:      map[logical.Operation]framework.OperationHandler{kind: only},
		HelpSynopsis:    only.Summary,
		HelpDescription: help,
	}
}

// roleReadPath returns the path of a read that names a role.
func roleReadPath(prefix, help string, read *framework.PathOperation) *framework.Path {
	return singlePath(prefix+"/(?P<role>[^/]+)", help,
		map[string]*framework.FieldSchema{"role": nameField("role")}, logical.ReadOperation, read)
}

// keyPath describes keys/<name>/<suffix>, with one operation.
func keyPath(
	suffix, help string, fields map[string]*framework.FieldSchema,
	kind logical.Operation, only *framework.PathOperation,
) *framework.Path {
	all := map[string]*framework.FieldSchema{"name": nameField("key")}
	maps.Copy(all, fields)
	return singlePath("keys/(?P<name>[^/]+)/"+suffix, help, all, kind, only)
}

// keyActionPath describes keys/<name>/<action>, whose update returns the key.
func keyActionPath(
	action, suffix, synopsis, help string,
	handler namedHandler, fields map[string]*framework.FieldSchema,
) *framework.Path {
	return keyPath(action, help, fields, logical.UpdateOperation,
		forwarded(operation(handler.callback, synopsis, keyResponseSchema(), action, suffix)))
}

// keyCallback handles a read about a key; of one that does not exist it is a 404.
func (b *backend) keyCallback(
	read func(*framework.FieldData, *keyring.Key) (*logical.Response, error),
) framework.OperationFunc {
	return func(
		ctx context.Context, req *logical.Request, data *framework.FieldData,
	) (*logical.Response, error) {
		name, err := nameIn(data, "name")
		if err != nil {
			return nil, err
		}
		key, err := b.keys.get(ctx, req.Storage, name)
		if err != nil || key == nil {
			return nil, err
		}
		return read(data, key)
	}
}
