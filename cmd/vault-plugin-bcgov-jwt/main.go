// Command vault-plugin-bcgov-jwt is the plugin process that Vault runs for the bcgov-jwt
// secrets engine.
package main

import (
	"os"
	"time"

	"github.com/bcgov/vault-plugin-bcgov-jwt/backend"
	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/vault/api"
	"github.com/hashicorp/vault/sdk/plugin"
)

// Set at build time. Vault registers the plugin under this version only.
var (
	version = "v0.1.0-dev"
	commit  = "unknown"
)

func main() {
	go exitWithVault(os.Getppid())
	// Vault applies its own log level.
	logger := hclog.New(&hclog.LoggerOptions{Level: hclog.Trace, JSONFormat: true})
	if err := forbidCoreDumps(); err != nil {
		logger.Warn("a core dump could contain private keys", "error", err)
	}
	meta := &api.PluginAPIClientMeta{}
	if err := meta.FlagSet().Parse(os.Args[1:]); err != nil {
		logger.Error("invalid flags", "error", err)
		os.Exit(2)
	}
	err := plugin.ServeMultiplex(&plugin.ServeOpts{
		BackendFactoryFunc: backend.Factory(backend.Build{Version: version, Commit: commit}),
		// Vault 1.12 and later use AutoMTLS and ignore this.
		TLSProviderFunc: api.VaultPluginTLSProvider(meta.GetTLSConfig()),
		Logger:          logger,
	})
	if err != nil {
		logger.Error("plugin exited", "error", err)
		os.Exit(1)
	}
}

// exitWithVault ends the process when its parent is no longer Vault, which has died: an orphan
// would keep its keys in memory. In a container, where Vault or the plugin is process 1, they die
// together. PR_SET_PDEATHSIG is no alternative: it watches the thread of Vault that started the
// plugin, and Go may end that one at any time.
func exitWithVault(vault int) {
	if vault <= 1 {
		return
	}
	for range time.Tick(time.Second) {
		if os.Getppid() != vault {
			os.Exit(1)
		}
	}
}
