package backend

import (
	"bytes"
	"cmp"
	"context"
	"net/http"
	"runtime"
	"runtime/debug"

	"github.com/bcgov/vault-plugin-bcgov-jwt/backend/internal/keyring"
	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"
	"github.com/prometheus/common/expfmt"
)

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
	totals, err := b.metrics.totals()
	if err != nil {
		return nil, err
	}
	failure := cmp.Or(b.metrics.lastFailure.Load(), &lastFailure{})
	return &logical.Response{Data: map[string]any{
		"version":            b.build.Version,
		"commit":             b.build.Commit,
		"go_version":         runtime.Version(),
		"sdk_version":        moduleVersion("github.com/hashicorp/vault/sdk"),
		"key_types":          texts(keyring.Types()),
		"algorithms":         algorithms(),
		"keys":               len(keys),
		"roles":              len(roles),
		"shared_tokens":      b.tokens.Len(),
		"exchanges":          totals["bcgov_jwt_exchanges_total"],
		"failures":           totals["failures"],
		"fallbacks":          totals["bcgov_jwt_fallbacks_total"],
		"version_switches":   totals["bcgov_jwt_version_switches_total"],
		"served_late":        totals["bcgov_jwt_shared_tokens_served_late_total"],
		"failed_revocations": totals["bcgov_jwt_failed_revocations_total"],
		"last_failure_time":  timestamp(failure.at),
		"last_failure_kind":  failure.kind,
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

func (b *backend) pathMetrics() *framework.Path {
	responses := map[int][]framework.Response{http.StatusOK: {{
		Description: "Prometheus' text format.", MediaType: "text/plain",
	}}}
	return singlePath("metrics", textOf("metrics"), nil, logical.ReadOperation,
		operation(b.readMetrics, "Read this node's metrics for Prometheus.", responses,
			"read", "metrics"))
}

func (b *backend) readMetrics(
	ctx context.Context, req *logical.Request, _ *framework.FieldData,
) (*logical.Response, error) {
	if err := b.loadForMetrics(ctx, req.Storage); err != nil {
		return nil, err
	}
	families, err := b.metrics.gather(b.keys.all(), b.now())
	if err != nil {
		return nil, err
	}
	var text bytes.Buffer
	format := expfmt.NewFormat(expfmt.TypeTextPlain)
	encoder := expfmt.NewEncoder(&text, format)
	for _, family := range families {
		if err := encoder.Encode(family); err != nil {
			return nil, err
		}
	}
	return &logical.Response{Data: map[string]any{
		logical.HTTPStatusCode:  http.StatusOK,
		logical.HTTPContentType: string(format),
		logical.HTTPRawBody:     text.Bytes(),
	}}, nil
}
