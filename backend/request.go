package backend

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"runtime/debug"
	"slices"
	"strings"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"
)

// HandleRequest wraps every operation: input that the path does not take is refused before anything runs, a panic ends
// the request and not the process (which serves other mounts too), and errors get the status that they mean.
func (b *backend) HandleRequest(ctx context.Context, req *logical.Request) (resp *logical.Response, err error) {
	defer b.recoverPanic(req, &resp, &err)
	if err := b.checkInput(ctx, req); err != nil {
		return vaultError(nil, err)
	}
	return vaultError(b.Backend.HandleRequest(ctx, req))
}

// HandleExistenceCheck is what Vault asks before a write, to tell create from update. It goes by the path alone: the
// framework would refuse a bad field here with an error that quotes its value, which Vault logs in clear.
func (b *backend) HandleExistenceCheck(ctx context.Context, req *logical.Request) (found, exists bool, err error) {
	defer b.recoverPanic(req, nil, &err)
	byPath := *req
	byPath.Data = nil
	found, exists, err = b.Backend.HandleExistenceCheck(ctx, &byPath)
	if err != nil { // Vault would hide it from the user; the write meets it too, and says it
		return true, true, nil
	}
	return found, exists, nil
}

func (b *backend) recoverPanic(req *logical.Request, resp **logical.Response, err *error) {
	value := recover()
	if value == nil {
		return
	}
	// The value itself stays out of the log: it may hold anything.
	b.Logger().Error("panic: please report it", "operation", req.Operation, "path", req.Path, "request_id", req.ID,
		"type", fmt.Sprintf("%T", value), "stack", string(debug.Stack()))
	if resp != nil {
		*resp = nil
	}
	*err = logical.CodedError(http.StatusInternalServerError,
		fmt.Sprintf("internal error in the secrets engine: its stack is in Vault's log under request_id %s", req.ID))
}

// checkInput refuses fields that the operation does not take, and values of the wrong type: the framework drops the
// former, with a warning at best, and converts the latter.
func (b *backend) checkInput(ctx context.Context, req *logical.Request) error {
	switch req.Operation {
	case logical.CreateOperation, logical.UpdateOperation, logical.PatchOperation,
		logical.ReadOperation, logical.ListOperation, logical.DeleteOperation, logical.HeaderOperation:
	default:
		return nil
	}
	path := b.Route(req.Path)
	if path == nil || len(req.Data) == 0 {
		return nil
	}
	known := allowedFields(path, req.Operation)
	for _, name := range slices.Sorted(maps.Keys(req.Data)) {
		if !slices.Contains(known, name) {
			return userErrorf("%s", b.unknownField(ctx, path, req, name))
		}
		if err := checkType(path.Fields[name], req.Data, name); err != nil {
			return userErrorf("%s: %w", name, err)
		}
	}
	return nil
}

// checkType refuses a value of the wrong type, and trims one that the framework, which comes after, would not.
func checkType(schema *framework.FieldSchema, data map[string]any, name string) error {
	if schema == nil {
		return nil
	}
	if _, err := convert(schema.Type, data[name]); err != nil {
		return err
	}
	if text, ok := data[name].(string); ok && schema.Type != framework.TypeString {
		data[name] = strings.TrimSpace(text)
	}
	return nil
}

// listParameter is how a client that cannot send LIST asks for one.
const listParameter = "list"

// allowedFields lists the fields that a request may send for an operation: for a write all but those that the URL holds, for a read
// those that are declared as query parameters.
func allowedFields(path *framework.Path, operation logical.Operation) []string {
	var names []string
	for name, schema := range path.Fields {
		switch {
		case inURL(path, name):
		case isWrite(operation) && !schema.Query, operation == logical.ReadOperation && schema.Query:
			names = append(names, name)
		}
	}
	if operation == logical.ListOperation {
		names = append(names, listParameter)
	}
	slices.Sort(names)
	return names
}

func isWrite(operation logical.Operation) bool {
	switch operation {
	case logical.CreateOperation, logical.UpdateOperation, logical.PatchOperation:
		return true
	}
	return false
}

func inURL(path *framework.Path, field string) bool {
	return strings.Contains(path.Pattern, "(?P<"+field+">")
}

func (b *backend) unknownField(ctx context.Context, path *framework.Path, req *logical.Request, name string) string {
	if inURL(path, name) {
		return fmt.Sprintf("%s: is given by the path, not as a field", name)
	}
	if hint := b.misplacedOnRole(ctx, req, name); hint != "" {
		return hint
	}
	known := slices.DeleteFunc(allowedFields(path, req.Operation), func(name string) bool { return name == listParameter })
	for _, candidate := range known {
		if strings.EqualFold(candidate, name) {
			return fmt.Sprintf("unknown field %q: did you mean %q? Field names are in lower case", shorten(name), candidate)
		}
	}
	if len(known) == 0 {
		return fmt.Sprintf("unknown field %q: this operation takes no fields", shorten(name))
	}
	return fmt.Sprintf("unknown field %q: this operation takes %s", shorten(name), strings.Join(known, ", "))
}
