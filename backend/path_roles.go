package backend

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"

	"github.com/bcgov/vault-plugin-bcgov-jwt/backend/internal/keyring"
	"github.com/bcgov/vault-plugin-bcgov-jwt/backend/internal/storage"
)

const (
	roleStoragePrefix = "role/"
	roleFormat        = 1
)

// role says what to ask the provider for with a key. Who may ask is a matter of policy on creds/<role>.
type role struct {
	Format int `json:"format"`
	// Key names the key, and KeyID tells it from a later one of the same name.
	Key        string   `json:"key"`
	KeyID      string   `json:"key_id"`
	Scopes     []string `json:"scopes"`
	Parameters []string `json:"parameters"`

	Delivery       delivery      `json:"delivery"`
	RefreshMargin  time.Duration `json:"refresh_margin"` // 0: by rule
	RevokeTokens   bool          `json:"revoke_tokens"`
	AllowAssertion bool          `json:"allow_assertion"`
}

func roleSettings() []setting[role] {
	return []setting[role]{
		newSetting("key", framework.TypeString,
			"The key to sign with. Default: the key of the role's own name.",
			func(r *role) *string { return &r.Key }, keyName),
		newSetting("scopes", framework.TypeCommaStringSlice,
			"The scopes to ask for, as a list. Default: none, so that the provider grants the client's own.",
			func(r *role) *[]string { return &r.Scopes }, scopeTokens),
		newSetting("parameters", framework.TypeStringSlice,
			"Further form parameters of the token request as `name=value`, such as resource, audience or authorization_details. "+
				"May be given several times.",
			func(r *role) *[]string { return &r.Parameters }, formParameters),
		newSetting("delivery", framework.TypeString,
			"How readers get tokens. leased: a fresh one each, under a lease. unleased: a fresh one each, without a lease, for Vault tokens that cannot hold one. "+
				"shared: one for all readers on a node, replaced ahead of time. Default: leased.",
			func(r *role) *string { return (*string)(&r.Delivery) }, deliveryName).allowing(texts(deliveries())...),
		newSetting("refresh_margin", framework.TypeDurationSecond,
			"How long before a token's end its reader should have the next one: the lease or ttl ends that much earlier. Default: 0, by rule: a fifth of the token's life, "+
				"10 s to 60 s, at most half of it.",
			func(r *role) *time.Duration { return &r.RefreshMargin }, marginWithinLife),
		newSetting("revoke_tokens", framework.TypeBool,
			"Ask the provider to revoke a token when its lease ends (RFC 7009), as well as that can be done. With delivery=leased only. Default: false.",
			func(r *role) *bool { return &r.RevokeTokens }, anyValue[bool]),
		newSetting("allow_assertion", framework.TypeBool,
			"Open assertion/<role>, which hands out signed client assertions for callers that reach the provider when Vault does not. Default: false.",
			func(r *role) *bool { return &r.AllowAssertion }, anyValue[bool]),
	}
}

func keyName(name string) (string, error) {
	name = strings.TrimSpace(name)
	return name, checkName(name)
}

// scopeTokens holds each scope to the scope-token of RFC 6749 §3.3. Its errors quote none, as it may be a secret that was
// pasted into the wrong field.
func scopeTokens(scopes []string) ([]string, error) {
	for i, scope := range scopes {
		if strings.ContainsFunc(scope, unicode.IsSpace) {
			return nil, fmt.Errorf("item %d has white space in it: write scopes as a list, with commas between them", i+1)
		}
		for _, c := range scope {
			if c < 0x21 || c > 0x7e || c == '"' || c == '\\' {
				return nil, fmt.Errorf("item %d has a character that a scope cannot have (RFC 6749 section 3.3)", i+1)
			}
		}
	}
	return scopes, nil
}

func formParameters(parameters []string) ([]string, error) {
	reserved := reservedParameters()
	for _, parameter := range parameters {
		name, value, found := strings.Cut(parameter, "=")
		switch {
		case !found:
			return nil, errors.New("each item must be name=value")
		case name == "" || strings.ContainsFunc(name, func(c rune) bool { return c <= ' ' || c > '~' }):
			return nil, errors.New("the name before '=' must be printable ASCII without spaces")
		case strings.ContainsFunc(value, unicode.IsControl):
			return nil, fmt.Errorf("the value of %q has a control character in it", shorten(name))
		case slices.Contains(reserved, strings.ToLower(name)):
			return nil, fmt.Errorf("%q belongs to the grant or to the client's authentication, or to another grant, and cannot be set by a role", name)
		}
	}
	return parameters, nil
}

// reservedParameters are the form parameters of this grant and of client authentication (RFC 6749, RFC 7521, RFC 7523),
// of other grants and flows (RFC 6749, 7636, 8628, 8693, 9126, 9449, OpenID CIBA, UMA 2.0), and Keycloak's own.
func reservedParameters() []string {
	return strings.Fields(`
		grant_type client_id client_secret client_assertion client_assertion_type scope scopes
		assertion code code_verifier redirect_uri refresh_token username password device_code auth_req_id
		subject_token subject_token_type actor_token actor_token_type requested_token_type requested_subject
		requested_issuer subject_issuer requested_token_use
		request request_uri claims nonce state response_type response_mode login_hint
		token token_type_hint dpop_jkt code_challenge code_challenge_method
		ticket rpt permission claim_token claim_token_format submit_request
		client_session_state client_session_host`)
}

// form returns the parameters as a form takes them.
func (r *role) form() url.Values {
	form := make(url.Values, len(r.Parameters))
	for _, parameter := range r.Parameters {
		name, value, _ := strings.Cut(parameter, "=")
		form.Add(name, value)
	}
	return form
}

func (b *backend) pathRolesList() *framework.Path {
	return &framework.Path{
		Pattern:      "roles/?$",
		DisplayAttrs: &framework.DisplayAttributes{OperationPrefix: operationPrefix},
		Operations: map[logical.Operation]framework.OperationHandler{
			logical.ListOperation: &framework.PathOperation{
				Callback: b.listRoles, Summary: "List the roles.", Responses: listed(),
				DisplayAttrs: &framework.DisplayAttributes{OperationSuffix: "roles"},
			},
		},
		HelpSynopsis:    "List the roles.",
		HelpDescription: "Lists the names of all roles of this mount.",
	}
}

func (b *backend) pathRoles() *framework.Path {
	settings := roleSettings()
	answers := ok("The role.", answerFields(settings, nil))
	write := &framework.PathOperation{
		Callback: b.writeRole, Summary: "Create or change a role.", Responses: answers,
		ForwardPerformanceStandby: true, ForwardPerformanceSecondary: true,
		DisplayAttrs: &framework.DisplayAttributes{OperationSuffix: "role"},
	}
	return &framework.Path{
		Pattern:        "roles/(?P<name>[^/]+)",
		DisplayAttrs:   &framework.DisplayAttributes{OperationPrefix: operationPrefix},
		ExistenceCheck: b.roleExists,
		Fields: schemas(settings, map[string]*framework.FieldSchema{
			"name": {Type: framework.TypeString, Description: "The role's name.", Required: true},
		}),
		Operations: map[logical.Operation]framework.OperationHandler{
			logical.CreateOperation: write,
			logical.UpdateOperation: write,
			logical.PatchOperation: &framework.PathOperation{
				Callback: b.writeRole, Summary: "Change parts of a role.", Responses: answers,
				ForwardPerformanceStandby: true, ForwardPerformanceSecondary: true,
				DisplayAttrs: &framework.DisplayAttributes{OperationVerb: "patch", OperationSuffix: "role"},
			},
			logical.ReadOperation: &framework.PathOperation{
				Callback: b.readRole, Summary: "Read a role.", Responses: answers,
				DisplayAttrs: &framework.DisplayAttributes{OperationSuffix: "role"},
			},
			logical.DeleteOperation: &framework.PathOperation{
				Callback: b.deleteRole, Summary: "Delete a role.", Responses: noContent(),
				ForwardPerformanceStandby: true, ForwardPerformanceSecondary: true,
				DisplayAttrs: &framework.DisplayAttributes{OperationSuffix: "role"},
			},
		},
		HelpSynopsis:    "What to ask the provider for, and with which key.",
		HelpDescription: strings.TrimSpace(rolesHelp),
	}
}

func (b *backend) listRoles(ctx context.Context, req *logical.Request, _ *framework.FieldData) (*logical.Response, error) {
	names, err := req.Storage.List(ctx, roleStoragePrefix)
	if err != nil {
		return nil, fmt.Errorf("list the roles: %w", err)
	}
	return logical.ListResponse(names), nil
}

func (b *backend) roleExists(ctx context.Context, req *logical.Request, data *framework.FieldData) (bool, error) {
	name, err := nameIn(data, "name")
	if err != nil {
		return false, nil // the write itself says what is wrong with the name
	}
	found, err := b.roles.get(ctx, req.Storage, name)
	return found != nil, err
}

func (b *backend) readRole(ctx context.Context, req *logical.Request, data *framework.FieldData) (*logical.Response, error) {
	name, err := nameIn(data, "name")
	if err != nil {
		return nil, err
	}
	found, err := b.roles.get(ctx, req.Storage, name)
	if err != nil || found == nil {
		return nil, err
	}
	return b.roleAnswer(ctx, req, name, found)
}

func (b *backend) writeRole(ctx context.Context, req *logical.Request, data *framework.FieldData) (*logical.Response, error) {
	name, err := nameIn(data, "name")
	if err != nil {
		return nil, err
	}
	defer lock(b.roleLocks, name)()
	before, err := loadRole(ctx, req.Storage, name)
	if err != nil {
		return nil, err
	}
	if before == nil && req.Operation == logical.PatchOperation {
		return nil, logical.CodedError(http.StatusNotFound, fmt.Sprintf("there is no role %q to patch", name))
	}
	defaults := role{Format: roleFormat, Key: name, Delivery: leased}
	after := defaults
	if before != nil {
		after = *before
	}
	if err := apply(roleSettings(), &after, &defaults, req.Data); err != nil {
		return nil, err
	}
	if after.RevokeTokens && after.Delivery != leased {
		return nil, userErrorf("revoke_tokens: works with delivery=leased only, as the end of a lease is what revokes; this role would be %s", after.Delivery)
	}
	if err := b.storeRole(ctx, req, name, before, &after); err != nil {
		return nil, err
	}
	return b.roleAnswer(ctx, req, name, &after)
}

// storeRole binds the role to its key and writes it, under the locks of the keys that it leaves and joins. It is called
// under the role's lock.
func (b *backend) storeRole(ctx context.Context, req *logical.Request, name string, before, after *role) error {
	keys := []string{after.Key}
	if before != nil {
		keys = append(keys, before.Key)
	}
	defer lock(b.keyLocks, keys...)()
	_, keyNamed := req.Data["key"]
	if before == nil || keyNamed {
		key, err := keyring.Load(ctx, req.Storage, after.Key)
		if err != nil {
			return err
		}
		if key == nil {
			return userErrorf("key: there is no key %q; make it with: vault write -f %skeys/%s", after.Key, req.MountPoint, after.Key)
		}
		after.KeyID = key.ID()
	}
	if before != nil && reflect.DeepEqual(*before, *after) {
		return nil
	}
	defer b.roleChanged(name)
	if err := storage.Put(ctx, req.Storage, roleIndex(after.Key, name), struct{}{}); err != nil {
		return err
	}
	if err := storage.Put(ctx, req.Storage, roleStoragePrefix+name, after); err != nil {
		return err
	}
	if before != nil && before.Key != after.Key {
		return req.Storage.Delete(ctx, roleIndex(before.Key, name))
	}
	return nil
}

func (b *backend) deleteRole(ctx context.Context, req *logical.Request, data *framework.FieldData) (*logical.Response, error) {
	name, err := nameIn(data, "name")
	if err != nil {
		return nil, err
	}
	defer lock(b.roleLocks, name)()
	found, err := loadRole(ctx, req.Storage, name)
	if err != nil || found == nil {
		return nil, err
	}
	defer lock(b.keyLocks, found.Key)()
	defer b.roleChanged(name)
	for _, path := range []string{roleStoragePrefix + name, roleIndex(found.Key, name)} {
		if err := req.Storage.Delete(ctx, path); err != nil {
			return nil, fmt.Errorf("delete role %q: %w", name, err)
		}
	}
	return nil, nil
}

// roleChanged forgets what this node holds of a role, whether or not the write of it succeeded.
func (b *backend) roleChanged(name string) {
	b.roles.drop(name)
	b.tokens.Drop(name)
}

// roleAnswer is the role as written, with a warning where it cannot work.
func (b *backend) roleAnswer(ctx context.Context, req *logical.Request, name string, r *role) (*logical.Response, error) {
	resp := &logical.Response{Data: echoAll(roleSettings(), r)}
	_, err := b.keyOf(ctx, req, name, r)
	if _, ok := errors.AsType[userError](err); ok {
		resp.AddWarning(err.Error())
		return resp, nil
	}
	return resp, err
}

// keyOf returns the key that a role was bound to, or a userError where that key is no more.
func (b *backend) keyOf(ctx context.Context, req *logical.Request, name string, r *role) (*keyring.Key, error) {
	key, err := b.keys.get(ctx, req.Storage, r.Key)
	if err != nil {
		return nil, err
	}
	if key == nil {
		return nil, userErrorf("role %q names the key %q, which does not exist", name, r.Key)
	}
	if key.ID() != r.KeyID {
		return nil, userErrorf("role %q was made for an earlier key %q, which was deleted; to use the present key of that name: vault write %sroles/%s key=%s",
			name, r.Key, req.MountPoint, name, r.Key)
	}
	return key, nil
}

func loadRole(ctx context.Context, s logical.Storage, name string) (*role, error) {
	stored := role{Delivery: leased} // what a role was before it could say so
	found, err := storage.Get(ctx, s, roleStoragePrefix+name, roleFormat, &stored)
	if err != nil {
		return nil, fmt.Errorf("role %q: %w", name, err)
	}
	if !found {
		return nil, nil
	}
	return &stored, nil
}

// roleIndex is the storage path that says that a role names a key. It holds nothing.
func roleIndex(key, role string) string {
	return roleIndexPrefix(key) + role
}

func roleIndexPrefix(key string) string { return "key-role/" + key + "/" }

// rolesOf lists the roles that name a key. A role's entry decides where its index differs.
func (b *backend) rolesOf(ctx context.Context, s logical.Storage, key string) ([]string, error) {
	indexed, err := s.List(ctx, roleIndexPrefix(key))
	if err != nil {
		return nil, fmt.Errorf("list the roles of key %q: %w", key, err)
	}
	names := []string{}
	for _, name := range indexed {
		found, err := b.roles.get(ctx, s, name)
		if err != nil {
			return nil, err
		}
		if found != nil && found.Key == key {
			names = append(names, name)
		}
	}
	return names, nil
}

// misplacedOnRole explains a field that belongs to the key: a role can never send a key's signature elsewhere.
func (b *backend) misplacedOnRole(ctx context.Context, req *logical.Request, field string) string {
	name, isRole := strings.CutPrefix(req.Path, "roles/")
	if !isRole || field != "type" && !slices.ContainsFunc(keySettings(), func(s setting[keyring.Settings]) bool { return s.name == field }) {
		return ""
	}
	key := name
	if found, err := b.roles.get(ctx, req.Storage, name); err == nil && found != nil {
		key = found.Key
	}
	if named, ok := req.Data["key"].(string); ok && checkName(named) == nil {
		key = named
	}
	return fmt.Sprintf("%s: belongs to the key, not to the role; set it with: vault write %skeys/%s %s=…", field, req.MountPoint, key, field)
}

const rolesHelp = `
A role names a key and what to ask the provider for with it. Who may read the role's
tokens is decided by a policy on creds/<role>:

    path "bcgov-jwt/creds/myapi" { capabilities = ["read"] }

One role per set of scopes is the narrowing that is safe: creds takes no parameters.
How readers get tokens is the role's delivery: leased (people, CI jobs, Vault Agent),
unleased (Vault tokens with num_uses=1) or shared (many readers of one token).

The client's registration (client_id, issuer, endpoints) belongs to the key.
`
