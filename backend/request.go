package backend

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"runtime/debug"
	"slices"
	"strings"

	"github.com/agext/levenshtein"
	"github.com/bcgov/vault-plugin-bcgov-jwt/backend/internal/exchange"
	"github.com/bcgov/vault-plugin-bcgov-jwt/backend/internal/keyring"
	"github.com/bcgov/vault-plugin-bcgov-jwt/backend/internal/storage"
	"github.com/bcgov/vault-plugin-bcgov-jwt/backend/internal/tokenendpoint"
	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"
)

// HandleRequest wraps every operation: it rejects input that the path does not accept before
// anything runs, contains a panic to the request (the process serves other mounts too), and maps
// errors to statuses.
func (b *backend) HandleRequest(
	ctx context.Context, req *logical.Request,
) (resp *logical.Response, err error) {
	defer b.recoverPanic(req, &resp, &err)
	ctx = context.WithValue(ctx, urlMount{}, req.MountPoint)
	typed := *req
	typed.MountPoint = b.typedMount(req.MountPoint)
	if err := b.checkInput(ctx, &typed); err != nil {
		return vaultError(nil, err)
	}
	resp, err = b.Backend.HandleRequest(ctx, &typed)
	return vaultError(resp, withRemedy(typed.MountPoint, err))
}

// urlMount is the context's key for the mount's path in URLs, which contains the namespace.
type urlMount struct{}

// typedMount returns the mount's path as commands name it. In a namespace they are typed without
// it, but requests do not tell the two apart: where there may be namespaces, the path is taken to
// have one segment.
func (b *backend) typedMount(path string) string {
	if !b.mayHaveNamespaces() {
		return path
	}
	return path[strings.LastIndexByte(strings.TrimSuffix(path, "/"), '/')+1:]
}

// namespacesPossible reports whether the host is OpenBao or Vault Enterprise.
func (b *backend) namespacesPossible() bool {
	environment, err := b.System().PluginEnv(context.Background())
	return err == nil && environment != nil && (environment.VaultVersion >= "2" ||
		strings.HasPrefix(environment.VaultVersionMetadata, "ent"))
}

// HandleExistenceCheck tells create from update by the path alone: the framework would reject a bad
// field here with an error that quotes its value, which Vault logs in plaintext.
func (b *backend) HandleExistenceCheck(
	ctx context.Context, req *logical.Request,
) (found, exists bool, err error) {
	defer b.recoverPanic(req, nil, &err)
	byPath := *req
	byPath.Data = nil
	found, exists, err = b.Backend.HandleExistenceCheck(ctx, &byPath)
	if err != nil { // Vault would hide it from the user; the write returns it too
		return true, true, nil
	}
	return found, exists, nil
}

func (b *backend) recoverPanic(req *logical.Request, resp **logical.Response, err *error) {
	value := recover()
	if value == nil {
		return
	}
	// The value itself is not logged: it may hold a secret.
	b.Logger().Error("panic: please report it", "operation", req.Operation, "path", req.Path,
		"request_id", req.ID, "type", fmt.Sprintf("%T", value), "stack", string(debug.Stack()))
	if resp != nil {
		*resp = nil
	}
	*err = logical.CodedError(http.StatusInternalServerError,
		"internal error; the stack trace is in Vault's log with request_id="+req.ID)
}

// checkInput rejects fields that the operation does not accept and values of the wrong type: the
// framework ignores the former, with a warning at best, and converts the latter.
func (b *backend) checkInput(ctx context.Context, req *logical.Request) error {
	switch req.Operation {
	case logical.CreateOperation, logical.UpdateOperation, logical.PatchOperation,
		logical.ReadOperation, logical.ListOperation, logical.DeleteOperation,
		logical.HeaderOperation:
	default:
		return nil
	}
	path := b.Route(req.Path)
	if path == nil {
		return nil
	}
	if path.Operations[req.Operation] == nil {
		return logical.ErrUnsupportedOperation
	}
	if len(req.Data) == 0 {
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

// checkType rejects a value of the wrong type, and trims one that the framework would not.
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

// listParameter turns a GET into a LIST, for clients that cannot send LIST.
const listParameter = "list"

// allowedFields returns the fields that an operation accepts: a write all that are not in the URL,
// a read those declared as query parameters.
func allowedFields(path *framework.Path, operation logical.Operation) []string {
	var names []string
	for name, schema := range path.Fields {
		switch {
		case inURL(path, name):
		case isWrite(operation) && !schema.Query,
			operation == logical.ReadOperation && schema.Query:
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

// unknownField explains a field that the operation does not accept.
func (b *backend) unknownField(
	ctx context.Context, path *framework.Path, req *logical.Request, name string,
) string {
	if inURL(path, name) {
		return name + ": is part of the path, not a field"
	}
	if hint := b.misplaced(ctx, req, name); hint != "" {
		return hint
	}
	known := slices.DeleteFunc(allowedFields(path, req.Operation),
		func(name string) bool { return name == listParameter })
	unknown := fmt.Sprintf("unknown field %q: ", shorten(name))
	if len(known) == 0 {
		return unknown + "this operation accepts no fields"
	}
	if likely := nearest(strings.ToLower(name), known); likely != "" {
		return fmt.Sprintf("%sdid you mean %q?", unknown, likely)
	}
	return unknown + "this operation accepts " + strings.Join(known, ", ")
}

// nearest returns the name that a mistyped one most likely stands for, if it is near to any.
func nearest(mistyped string, names []string) string {
	distance := func(name string) int { return levenshtein.Distance(mistyped, name, nil) }
	likely := slices.MinFunc(names, func(a, b string) int { return distance(a) - distance(b) })
	if distance(likely) > max(1, len(likely)/3) {
		return ""
	}
	return likely
}

// misplaced explains a field that belongs to another path; empty if it does not.
func (b *backend) misplaced(ctx context.Context, req *logical.Request, field string) string {
	kind, name, _ := strings.Cut(req.Path, "/")
	key, isImport := strings.CutSuffix(name, "/import")
	write := "vault write " + req.MountPoint
	was, field := field, cmp.Or(map[string]string{
		"activation_delay": "prepublish_period", "retire_after": "overlap_period",
		"scope": "scopes",
	}[field], field)
	if kind == "roles" {
		key = b.intendedKey(ctx, req, name)
	}
	subject := was + ":"
	if was != field {
		subject += " was renamed to " + field + ";"
	}
	switch {
	case kind != "roles" && (kind != "keys" || strings.Contains(key, "/")):
		return ""
	case isImport && has(keyFields(), field):
		return fmt.Sprintf("%s: is set after the import, with: %skeys/%s %s=…",
			was, write, key, field)
	case field == "private_key" || field == "ciphertext":
		if existing, _ := b.keys.get(ctx, req.Storage, key); existing != nil {
			key = "…" // which imports no other version
		}
		return fmt.Sprintf("%s: is not a setting; import it as a new key with: %skeys/%s/import "+
			"private_key=@client.key", was, write, key)
	case kind == "roles" && field == "type":
		return "type: belongs to the key, and is fixed when that is created"
	case kind == "roles" && has(keyFields(), field):
		return fmt.Sprintf("%s belongs to the key; set it with: %skeys/%s %s=…",
			subject, write, key, field)
	case kind == "keys" && has(roleFields(), field):
		return fmt.Sprintf("%s: belongs to a role; set it with: %sroles/%s %s=…",
			was, write, key, field)
	case kind == "keys" && was != field:
		return fmt.Sprintf("%s set %s=…", subject, field)
	}
	return ""
}

func has[T any](fields []field[T], name string) bool {
	return slices.ContainsFunc(fields, func(f field[T]) bool { return f.name == name })
}

// intendedKey returns the key that a write to a role is about.
func (b *backend) intendedKey(ctx context.Context, req *logical.Request, role string) string {
	if named, ok := req.Data["key"].(string); ok && checkName(named) == nil {
		return named
	}
	if found, err := b.roles.get(ctx, req.Storage, role); err == nil && found != nil {
		return found.Key
	}
	return role
}

// userError is an error that the user can fix. Vault answers 400 with its text unchanged.
type userError struct{ error }

func userErrorf(format string, args ...any) error {
	return userError{fmt.Errorf(format, args...)}
}

// withRemedy adds to the error of a damaged entry what to do.
func withRemedy(mount string, err error) error {
	damaged, ok := errors.AsType[*storage.DamagedError](err)
	if !ok {
		return err
	}
	path := damaged.Path
	if path == keyring.WrappingKeyStoragePath {
		return fmt.Errorf("%w; restore it from a backup", err)
	}
	if kind, name, ok := strings.Cut(path, "/"); ok { // key/a is served as keys/a
		path = kind + "s/" + name
	}
	return fmt.Errorf("%w; restore it from a backup, or delete it with: vault delete %s%s",
		err, mount, path)
}

// vaultError turns a handler's error into one that Vault passes on: only an ErrorResponse and a
// bare CodedError keep their meaning on the way from the plugin.
func vaultError(resp *logical.Response, err error) (*logical.Response, error) {
	var user userError
	var coded logical.HTTPCodedError
	switch {
	case err == nil:
		return resp, nil
	case errors.As(err, &user):
		return logical.ErrorResponse(err.Error()), nil
	case errors.As(err, &coded):
		return nil, coded
	// Over gRPC only the text of Vault's error is left.
	case strings.Contains(err.Error(), logical.ErrReadOnly.Error()):
		return nil, logical.ErrReadOnly
	default:
		return resp, err
	}
}

// providerError explains a provider's error, with the status that tells the reader who can fix it.
// Other errors pass unchanged.
func providerError(err error, s *situation) error {
	failure, ok := errors.AsType[*tokenendpoint.Error](err)
	if !ok {
		return err
	}
	tried := err.Error()
	var others []string
	if refused, ok := errors.AsType[*exchange.AllVersionsRefusedError](err); ok {
		tried, others = failure.Error(), refused.Others()
	}
	text := strings.TrimSpace(sentence(tried) + " " + s.advice(failure))
	text = strings.Join(append([]string{text}, others...), "\n")
	switch failure.Reason.Kind() {
	case tokenendpoint.KindRejected, tokenendpoint.KindBlocked:
		return userError{errors.New(text)}
	case tokenendpoint.KindTimedOut, tokenendpoint.KindCanceled:
		return logical.CodedError(http.StatusGatewayTimeout, text)
	default:
		return logical.CodedError(http.StatusBadGateway, text)
	}
}
