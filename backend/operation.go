package backend

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"regexp"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"

	"github.com/bcgov/vault-plugin-bcgov-jwt/backend/internal/exchange"
	"github.com/bcgov/vault-plugin-bcgov-jwt/backend/internal/keyring"
	"github.com/bcgov/vault-plugin-bcgov-jwt/backend/internal/tokenendpoint"
)

// HandleRequest wraps every operation: input that the path does not take is refused before anything runs, a panic ends
// the request and not the process (which serves other mounts too), and errors get the status that they mean.
func (b *backend) HandleRequest(ctx context.Context, req *logical.Request) (resp *logical.Response, err error) {
	defer b.recoverPanic(req, &resp, &err)
	if err := b.checkInput(ctx, req); err != nil {
		return answer(nil, err)
	}
	return answer(b.Backend.HandleRequest(ctx, req))
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

// userError is what the user can mend: Vault answers 400 with its text as it is.
type userError struct{ error }

func userErrorf(format string, args ...any) error {
	return userError{fmt.Errorf(format, args...)}
}

// answer turns a handler's error into what Vault passes on: only an ErrorResponse and a bare CodedError keep their
// meaning on the way from the plugin.
func answer(resp *logical.Response, err error) (*logical.Response, error) {
	var user userError
	var coded logical.HTTPCodedError
	switch {
	case err == nil:
		return resp, nil
	case errors.As(err, &user):
		return logical.ErrorResponse(err.Error()), nil
	case errors.As(err, &coded):
		return nil, coded
	case strings.Contains(err.Error(), logical.ErrReadOnly.Error()): // over gRPC only its text is left
		return nil, logical.ErrReadOnly
	default:
		return resp, err
	}
}

// providerError says what the provider's error means and what to do next, with the status that tells the reader who can
// mend it. Other errors pass unchanged.
func providerError(err error, mount string, key *keyring.Key, roleName string) error {
	failure, ok := errors.AsType[*tokenendpoint.Error](err)
	if !ok {
		return err
	}
	tried := err.Error()
	var others []string
	if refused, ok := errors.AsType[*exchange.AllVersionsRefusedError](err); ok {
		tried, others = failure.Error(), refused.Others()
	}
	text := strings.Join(append([]string{sentence(tried)}, advice(failure, mount, key, roleName)...), " ")
	text = strings.Join(append([]string{text}, others...), "\n")
	switch failure.Kind {
	case tokenendpoint.Refused, tokenendpoint.Blocked:
		return userError{errors.New(text)}
	case tokenendpoint.TimedOut, tokenendpoint.Canceled:
		return logical.CodedError(http.StatusGatewayTimeout, text)
	default:
		return logical.CodedError(http.StatusBadGateway, text)
	}
}

// advice is what a failure means and its remedy, each a sentence, with the names that the user knows filled in.
func advice(failure *tokenendpoint.Error, mount string, key *keyring.Key, roleName string) []string {
	names := strings.NewReplacer("{mount}", mount, "{key}", key.Name(), "{role}", roleName, "{register}", registering(mount, key))
	var sentences []string
	for _, text := range []string{failure.Meaning, names.Replace(failure.Remedy)} {
		if text != "" {
			sentences = append(sentences, sentence(text))
		}
	}
	return sentences
}

// registering is how the provider gets to know the key.
func registering(mount string, key *keyring.Key) string {
	if key.Settings().Registration == keyring.ByJWKS {
		return fmt.Sprintf("Give the API Services Portal the JWKS URL: Vault's address, as the provider reaches it, and %s", jwksPath(mount, key))
	}
	return fmt.Sprintf("Paste into the API Services Portal what `vault read -field=public_key %skeys/%s` prints (the public key, not the certificate, although the portal calls it one in places)", mount, key.Name())
}

func sentence(text string) string {
	if strings.HasSuffix(text, ".") || strings.HasSuffix(text, "?") {
		return text
	}
	return text + "."
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
	known := takes(path, req.Operation)
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

// takes lists the fields that a request may send for an operation: for a write all but those that the URL holds, for a read
// those that are declared as query parameters.
func takes(path *framework.Path, operation logical.Operation) []string {
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
	known := slices.DeleteFunc(takes(path, req.Operation), func(name string) bool { return name == listParameter })
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

// shorten keeps a name in an error short.
func shorten(name string) string {
	const most = 32
	if runes := []rune(name); len(runes) > most {
		return string(runes[:most]) + "…"
	}
	return name
}

// quoted shows a bad value in an error, unless it is so long that it may be a secret in the wrong field.
func quoted(value string) string {
	const most = 20
	if runes := []rune(value); len(runes) > most {
		return fmt.Sprintf("a text of %d characters", len(runes))
	}
	return strconv.Quote(value)
}

// validName is what keys and roles may be called. Paths are routed wider, so that a bad name is a clear error.
var validName = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$`)

// nameIn returns the name in a request's URL.
func nameIn(data *framework.FieldData, field string) (string, error) {
	name, _ := data.Raw[field].(string)
	if err := checkName(name); err != nil {
		return "", userErrorf("%s: %w", field, err)
	}
	return name, nil
}

func checkName(name string) error {
	if !validName.MatchString(name) || strings.Contains(name, "..") {
		return fmt.Errorf("%q must be 1 to 128 letters, digits, '_', '-' and '.', begin with a letter, digit or '_', and not contain '..'", shorten(name))
	}
	return nil
}
