// Command vault-plugin-bcgov-jwt is the plugin process that Vault starts for the bcgov-jwt secrets engine.
package main

import (
	"os"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/vault/api"
	"github.com/hashicorp/vault/sdk/plugin"

	"github.com/bcgov/vault-plugin-bcgov-jwt/backend"
)

// Stamped by the build. Vault refuses to register the plugin under another version than this one.
var (
	version = "v0.1.0-dev"
	commit  = "unknown"
)

func main() {
	// Vault filters by its own log level.
	logger := hclog.New(&hclog.LoggerOptions{Level: hclog.Trace, JSONFormat: true})
	meta := &api.PluginAPIClientMeta{}
	if err := meta.FlagSet().Parse(os.Args[1:]); err != nil {
		logger.Error("the flags are wrong", "error", err)
		os.Exit(2)
	}
	err := plugin.ServeMultiplex(&plugin.ServeOpts{
		BackendFactoryFunc: backend.Factory(backend.Build{Version: version, Commit: commit}),
		// Vault 1.12 and later do TLS themselves (AutoMTLS) and ignore this provider.
		TLSProviderFunc: api.VaultPluginTLSProvider(meta.GetTLSConfig()),
		Logger:          logger,
	})
	if err != nil {
		logger.Error("the plugin ended", "error", err)
		os.Exit(1)
	}
}
