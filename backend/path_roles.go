package backend

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"
)

func (b *backend) pathRolesList() *framework.Path {
	return &framework.Path{
		Pattern:      "roles/?$",
		DisplayAttrs: &framework.DisplayAttributes{OperationPrefix: operationPrefix},
		Operations: map[logical.Operation]framework.OperationHandler{
			logical.ListOperation: &framework.PathOperation{
				Callback: b.listRoles, Summary: "List the roles.", Responses: listResponse(),
				DisplayAttrs: &framework.DisplayAttributes{OperationSuffix: "roles"},
			},
		},
		HelpSynopsis:    "List the roles.",
		HelpDescription: "Lists the names of all roles of this mount.",
	}
}

func (b *backend) pathRoles() *framework.Path {
	settings := roleFields()
	answers := okResponse("The role.", responseFields(settings, nil))
	write := &framework.PathOperation{
		Callback: b.writeRole, Summary: "Create or change a role.", Responses: answers,
		ForwardPerformanceStandby: true, ForwardPerformanceSecondary: true,
		DisplayAttrs: &framework.DisplayAttributes{OperationSuffix: "role"},
	}
	return &framework.Path{
		Pattern:        "roles/(?P<name>[^/]+)",
		DisplayAttrs:   &framework.DisplayAttributes{OperationPrefix: operationPrefix},
		ExistenceCheck: b.roleExists,
		Fields: fieldSchemas(settings, map[string]*framework.FieldSchema{
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
				Callback: b.deleteRole, Summary: "Delete a role.", Responses: noContentResponse(),
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
	return b.roleResponse(ctx, req, name, found)
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
	defaults := role{Format: roleFormat, Key: name, Delivery: leasedDelivery}
	after := defaults
	if before != nil {
		after = *before
	}
	if err := apply(roleFields(), &after, &defaults, req.Data); err != nil {
		return nil, err
	}
	if after.RevokeTokens && after.Delivery != leasedDelivery {
		return nil, userErrorf("revoke_tokens: works with delivery=leased only, as the end of a lease is what revokes; this role would be %s", after.Delivery)
	}
	if err := b.storeRole(ctx, req, name, before, &after); err != nil {
		return nil, err
	}
	return b.roleResponse(ctx, req, name, &after)
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

// roleAnswer is the role as written, with a warning where it cannot work.
func (b *backend) roleResponse(ctx context.Context, req *logical.Request, name string, r *role) (*logical.Response, error) {
	resp := &logical.Response{Data: toResponse(roleFields(), r)}
	_, err := b.keyOfRole(ctx, req, name, r)
	if _, ok := errors.AsType[userError](err); ok {
		resp.AddWarning(err.Error())
		return resp, nil
	}
	return resp, err
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
