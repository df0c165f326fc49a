package backend

import (
	"context"
	"runtime"
	"runtime/debug"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"

	"github.com/bcgov/vault-plugin-bcgov-jwt/backend/internal/keyring"
)

const sdkModule = "github.com/hashicorp/vault/sdk"

func (b *backend) pathInfo() *framework.Path {
	return &framework.Path{
		Pattern: "info",
		Operations: map[logical.Operation]framework.OperationHandler{
			logical.ReadOperation: operation(b.readInfo,
				"Read the plugin's version and this node's counters.",
				okResponse("Version and counters.", declaredFields("info")), "read", "info"),
		},
		HelpSynopsis: "Plugin version and this node's counters.",
		HelpDescription: "Versions, key types, algorithms, the mount's keys and roles, and " +
			"this node's counters since the plugin started.",
	}
}

func (b *backend) readInfo(
	ctx context.Context, req *logical.Request, _ *framework.FieldData,
) (*logical.Response, error) {
	keys, err := keyring.List(ctx, req.Storage)
	if err != nil {
		return nil, err
	}
	roles, err := roleNames(ctx, req.Storage)
	if err != nil {
		return nil, err
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
