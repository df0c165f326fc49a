package backend

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/hashicorp/vault/sdk/logical"
)

// misplaced explains a field that belongs to another path; empty if it does not.
func (b *backend) misplaced(ctx context.Context, req *logical.Request, field string) string {
	kind, name, _ := strings.Cut(req.Path, "/")
	renamed := map[string]string{
		"activation_delay": "prepublish_period", "retire_after": "overlap_period",
	}[field]
	switch {
	case kind == "roles" && (field == "type" || has(keyFields(), cmp.Or(renamed, field))):
		return fmt.Sprintf("%s: belongs to the key; set it with: vault write %skeys/%s %[1]s=…",
			cmp.Or(renamed, field), req.MountPoint, b.intendedKey(ctx, req, name))
	case kind != "keys" || strings.Contains(name, "/"):
		return ""
	case renamed != "":
		return fmt.Sprintf("%s: has been renamed to %s", field, renamed)
	case field == "private_key" || field == "ciphertext":
		return fmt.Sprintf("%s: a private key is imported as a new key: vault write "+
			"%skeys/%s/import %[1]s=@<file>", field, req.MountPoint, name)
	case has(roleFields(), field):
		return fmt.Sprintf("%s: belongs to a role; set it with: vault write %sroles/%s %[1]s=…",
			field, req.MountPoint, name)
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
