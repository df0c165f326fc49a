package backend

import (
	"context"
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"

	"github.com/bcgov/vault-plugin-bcgov-jwt/backend/internal/keyring"
)

const sdkModule = "github.com/hashicorp/vault/sdk"

func (b *backend) pathInfo() *framework.Path {
	return &framework.Path{
		Pattern:      "info",
		DisplayAttrs: &framework.DisplayAttributes{OperationPrefix: operationPrefix},
		Operations: map[logical.Operation]framework.OperationHandler{
			logical.ReadOperation: &framework.PathOperation{
				Callback: b.readInfo, Summary: "Read what this plugin is and what it has done.",
				Responses: okResponse("The plugin and this node's counts.", responseSchemas([]responseField{
					{name: "version", kind: framework.TypeString, description: "The plugin's version."},
					{name: "commit", kind: framework.TypeString, description: "The commit it was built from."},
					{name: "go_version", kind: framework.TypeString, description: "The Go version it was built with."},
					{name: "sdk_version", kind: framework.TypeString, description: "The version of Vault's SDK in it."},
					{name: "key_types", kind: framework.TypeStringSlice, description: "The key types it makes."},
					{name: "algorithms", kind: framework.TypeStringSlice, description: "The JWS algorithms it signs with."},
					{name: "keys", kind: framework.TypeInt, description: "Keys in this mount."},
					{name: "roles", kind: framework.TypeInt, description: "Roles in this mount."},
					{name: "shared_tokens", kind: framework.TypeInt, description: "Tokens that this node holds for the roles with delivery=shared."},
					{name: "exchanges", kind: framework.TypeInt64, description: "Token requests of this mount on this node since the plugin started."},
					{name: "failures", kind: framework.TypeInt64, description: "How many of them failed."},
					{name: "last_failure_time", kind: framework.TypeString, description: "When the last one failed (RFC 3339); empty if none did."},
					{name: "last_failure_kind", kind: framework.TypeString, description: "refused, blocked, unavailable, malformed, timed out or internal."},
				})),
				DisplayAttrs: &framework.DisplayAttributes{OperationVerb: "read", OperationSuffix: "info"},
			},
		},
		HelpSynopsis:    "What this plugin is, and what it has done on this node.",
		HelpDescription: "Versions, key types, algorithms, and the counts of this node: keys and roles of the mount, shared tokens, and token requests and their failures since the plugin started.",
	}
}

func (b *backend) readInfo(ctx context.Context, req *logical.Request, _ *framework.FieldData) (*logical.Response, error) {
	keys, err := keyring.List(ctx, req.Storage)
	if err != nil {
		return nil, err
	}
	roles, err := req.Storage.List(ctx, roleStoragePrefix)
	if err != nil {
		return nil, fmt.Errorf("list the roles: %w", err)
	}
	statistics := b.exchanger.Statistics()
	return &logical.Response{Data: map[string]any{
		"version":           b.build.Version,
		"commit":            b.build.Commit,
		"go_version":        runtime.Version(),
		"sdk_version":       moduleVersion(sdkModule),
		"key_types":         texts(keyring.Types()),
		"algorithms":        algorithms(),
		"keys":              len(keys),
		"roles":             len(roles),
		"shared_tokens":     b.tokens.Len(),
		"exchanges":         statistics.Exchanges,
		"failures":          statistics.Failures,
		"last_failure_time": timestamp(statistics.LastFailureTime),
		"last_failure_kind": statistics.LastFailureKind,
	}}, nil
}

func moduleVersion(path string) string {
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, module := range info.Deps {
			if module.Path == path {
				return module.Version
			}
		}
	}
	return "unknown"
}
