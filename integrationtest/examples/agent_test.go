package examples

import (
	"context"
	"testing"

	"github.com/bcgov/vault-plugin-bcgov-jwt/integrationtest/harness"
)

// TestAgent_RunsExamples runs a real Vault Agent with each configuration of the documentation, as
// it stands but for the path of the mount.
func TestAgent_RunsExamples(t *testing.T) {
	t.Parallel()
	t.Cleanup(func() {
		ctx, sys := context.WithoutCancel(t.Context()), harness.Vault().NewClient(t).Sys()
		if err := sys.DisableAuthWithContext(ctx, "approle"); err != nil {
			t.Error(err)
		}
	})
	testAgentSetup(t) // before the others, which find AppRole enabled
	for name, test := range map[string]func(*testing.T){
		"leased.hcl over ten periods": testAgentLeased,
		"leased.hcl and an outage":    testAgentOutage,
		"shared.hcl":                  testAgentShared,
		"exec.hcl":                    testAgentExec,
		"proxy.hcl":                   testAgentProxy,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t)
		})
	}
}
