package backend

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/bcgov/vault-plugin-bcgov-jwt/backend/internal/storage"
	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"
)

func (b *backend) pathRolesList() *framework.Path {
	return listPath("roles", "key, delivery and scopes", roleNames, roleRow)
}

// roleRow returns what a list shows of a role.
func roleRow(ctx context.Context, s logical.Storage, name string) (map[string]any, error) {
	r, err := loadRole(ctx, s, name)
	if err != nil || r == nil { // as in keyRow
		return map[string]any{}, err
	}
	return map[string]any{
		"key": r.Key, "delivery": string(r.Delivery), "scopes": responseValue(r.Scopes),
	}, nil
}

func (b *backend) pathRoles() *framework.Path {
	fields := roleFields()
	responses := okResponse("The role.", withSettings(fields))
	return &framework.Path{
		Pattern:        "roles/(?P<name>[^/]+)",
		ExistenceCheck: existence(&b.roles),
		Fields: fieldSchemas(fields, map[string]*framework.FieldSchema{
			"name": nameField("role"),
		}),
		Operations: entryOperations("role", "Update a role.", responses,
			b.readRole, b.writeRole, b.deleteRole),
		HelpSynopsis:    "Manage roles: what to request, with which key.",
		HelpDescription: textOf("roles"),
	}
}

func (b *backend) readRole(
	ctx context.Context, req *logical.Request, name string,
) (*logical.Response, error) {
	found, err := b.roles.get(ctx, req.Storage, name)
	if err != nil || found == nil {
		return nil, err
	}
	return b.roleResponse(ctx, req, name, found)
}

func (b *backend) writeRole(
	ctx context.Context, req *logical.Request, name string,
) (*logical.Response, error) {
	unlock, err := b.roleLocks.lock(ctx, name)
	if err != nil {
		return nil, err
	}
	defer unlock()
	before, err := loadRole(ctx, req.Storage, name)
	if err != nil {
		return nil, err
	}
	if before == nil && req.Operation == logical.PatchOperation {
		return nil, logical.CodedError(http.StatusNotFound, fmt.Sprintf("role %q does not exist; "+
			"create it with: vault write -f %sroles/%[1]s", name, req.MountPoint))
	}
	defaults := role{Format: roleFormat, Key: name, Delivery: leasedDelivery}
	after := defaults
	if before != nil {
		after = *before
	}
	if err := apply(roleFields(), &after, &defaults, req.Data); err != nil {
		return nil, err
	}
	if err := after.validate(); err != nil {
		return nil, err
	}
	if err := b.storeRole(ctx, req, name, before, &after); err != nil {
		return nil, err
	}
	return b.roleResponse(ctx, req, name, &after)
}

func (b *backend) deleteRole(
	ctx context.Context, req *logical.Request, name string,
) (*logical.Response, error) {
	unlock, err := b.roleLocks.lock(ctx, name)
	if err != nil {
		return nil, err
	}
	defer unlock()
	found, err := loadRole(ctx, req.Storage, name)
	if storage.IsDamaged(err) { // its index may remain: without the role it does not count
		defer b.roleChanged(name)
		return nil, req.Storage.Delete(ctx, roleStoragePrefix+name)
	}
	if err != nil || found == nil {
		return nil, err
	}
	unlockKey, err := b.keyLocks.lock(ctx, found.Key)
	if err != nil {
		return nil, err
	}
	defer unlockKey()
	defer b.roleChanged(name)
	for _, path := range []string{roleStoragePrefix + name, roleIndex(found.Key, name)} {
		if err := req.Storage.Delete(ctx, path); err != nil {
			return nil, fmt.Errorf("delete role %q: %w", name, err)
		}
	}
	return nil, nil
}

// roleResponse returns the role's settings, with a warning if it cannot work with its key.
func (b *backend) roleResponse(
	ctx context.Context, req *logical.Request, name string, r *role,
) (*logical.Response, error) {
	resp := &logical.Response{Data: toResponse(roleFields(), r)}
	key, err := b.keyOfRole(ctx, req, name, r)
	if _, ok := errors.AsType[userError](err); ok || storage.Unreadable(err) {
		resp.AddWarning(capitalized(withRemedy(req.MountPoint, err).Error()))
		return resp, nil
	}
	if err == nil && r.RevokeTokens && key.Settings().RevocationEndpoint == "" {
		resp.AddWarning(noRevocationEndpoint(req.MountPoint, key.Name()))
	}
	return resp, err
}
