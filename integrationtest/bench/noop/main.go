// Command noop is the plugin with which others are compared: it does nothing, and is written as the
// SDK's documentation shows it to authors of a first plugin. Its reads cost what Vault and the way
// to a plugin cost.
package main

import (
	"context"
	"os"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/vault/api"
	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"
	"github.com/hashicorp/vault/sdk/plugin"
)

func main() {
	meta := &api.PluginAPIClientMeta{}
	if err := meta.FlagSet().Parse(os.Args[1:]); err != nil {
		fail(err)
	}
	err := plugin.ServeMultiplex(&plugin.ServeOpts{
		BackendFactoryFunc: factory,
		TLSProviderFunc:    api.VaultPluginTLSProvider(meta.GetTLSConfig()),
	})
	if err != nil {
		fail(err)
	}
}

func fail(err error) {
	hclog.New(&hclog.LoggerOptions{}).Error("plugin shutting down", "error", err)
	os.Exit(1)
}

type backend struct {
	*framework.Backend
}

func factory(ctx context.Context, conf *logical.BackendConfig) (logical.Backend, error) {
	b := &backend{}
	b.Backend = &framework.Backend{
		BackendType: logical.TypeLogical,
		Paths: []*framework.Path{
			path("read", b.read),
			path("leased", b.readLeased),
		},
		Secrets: []*framework.Secret{{Type: "noop", Revoke: revoke}},
	}
	return b, b.Setup(ctx, conf)
}

func path(pattern string, read framework.OperationFunc) *framework.Path {
	return &framework.Path{
		Pattern: pattern,
		Operations: map[logical.Operation]framework.OperationHandler{
			logical.ReadOperation: &framework.PathOperation{Callback: read},
		},
	}
}

func (b *backend) read(
	context.Context, *logical.Request, *framework.FieldData,
) (*logical.Response, error) {
	return &logical.Response{Data: data()}, nil
}

func (b *backend) readLeased(
	context.Context, *logical.Request, *framework.FieldData,
) (*logical.Response, error) {
	return b.Secret("noop").Response(data(), nil), nil
}

func data() map[string]any { return map[string]any{"hello": "world"} }

func revoke(context.Context, *logical.Request, *framework.FieldData) (*logical.Response, error) {
	return nil, nil
}
