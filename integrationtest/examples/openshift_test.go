package examples

import (
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/bcgov/vault-plugin-bcgov-jwt/integrationtest/harness"
)

// TestOpenShift_OpenBaoInProject runs openbao.yaml as it stands: OpenBao, which initializes itself
// and fetches the plugin; an application that reads a token; a restart, which needs no registry;
// the backup; and the restore into an empty OpenBao.
func TestOpenShift_OpenBaoInProject(t *testing.T) {
	t.Parallel()
	provider := harness.AnyProvider(t)
	p := newProject(t, provider)
	api := provider.NewAPI(t)
	requireToken := func() {
		t.Helper()
		require.Equal(t, http.StatusOK, api.Call(t, p.tokenOfApp(t, api.URL)))
	}
	t.Logf("ready %s after the first start", p.start(t))
	p.createKey(t, provider)
	p.permitApp(t)
	requireToken()

	p.stop(t)
	downloads := p.registry.requests.Load()
	t.Logf("ready %s after the restart", p.start(t))
	requireToken()
	require.Equal(t, downloads, p.registry.requests.Load())

	p.runJob(t, "openbao-backup", "backup")
	p.stop(t)
	p.clearData(t)
	p.start(t)
	p.requireNoKeys(t)
	p.runJob(t, "openbao-restore", "restore")
	p.waitReady(t)
	requireToken()
	p.stop(t)
	p.start(t)
	requireToken()
}
