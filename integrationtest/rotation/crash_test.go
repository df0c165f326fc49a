package rotation

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bcgov/vault-plugin-bcgov-jwt/integrationtest/harness"
)

// TestCrash_KeysSurviveKill kills the plugin and the whole Vault, with its data on disk, while keys
// are rotated, activated, destroyed, imported and switched, and creds is read all the time. The
// provider knows one version at each moment, and that one must continue to work: nothing is
// registered again after a kill.
func TestCrash_KeysSurviveKill(t *testing.T) {
	t.Parallel()
	kills := 10
	if harness.Slow() {
		kills = 50
	}
	vault := harness.StartRaftVault(t)
	p, _ := twoNodes(t, func() int { return 0 })
	m := vault.NewMount(t, "killed")
	m.Write(t, "config", p.Config)
	c := &churn{m: m, p: p}
	for i := range 2 {
		name := fmt.Sprintf("churned-%d", i)
		c.add(t, name, m.NewClient(t, p, name, map[string]any{"type": "ecdsa-p256"}))
		m.Read(t, "creds/"+name)
	}
	for i := range kills {
		done := c.start(t)
		harness.Sleep(t, 100*time.Millisecond+randomDuration(t, 700*time.Millisecond))
		c.killing.Store(true)
		if i%2 == 0 {
			m.KillPlugin(t, vault.VaultServer, harness.PluginName)
			c.stopped.Store(true)
			<-done
		} else {
			vault.Kill(t)
			c.stopped.Store(true)
			<-done
			vault.Restart(t)
		}
		c.killing.Store(false)
		c.stopped.Store(false)
		c.requireIntact(t)
	}
	require.Greater(t, c.operations, kills, "operations between kills")
	require.Empty(t, c.failures)
	m.RecordPrivateKeys(t)
}
