package examples

import (
	"crypto/rand"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/bcgov/vault-plugin-bcgov-jwt/integrationtest/harness"
)

// TestTerraform_ManagesWholeLife takes the example through the life of its resources, with
// HashiCorp's own Vault provider.
func TestTerraform_ManagesWholeLife(t *testing.T) {
	t.Parallel()
	p := harness.EmbeddedProvider(t)
	m := harness.Unmounted(t, "terraform-"+strings.ToLower(rand.Text()))
	tf := newTerraform(t, m)

	config := terraformConfig(p)
	variables := map[string]any{"mount": m.Path, "config": config}
	tf.set(t, variables)
	tf.apply(t)
	m.UnmountAfterTest(t)
	require.Equal(t, planEmpty, tf.plan(t))

	environments := map[string]any{}
	for name, publicKey := range tf.publicKeys(t) {
		require.Equal(t, publicKey, m.Read(t, "keys/myapi-"+name).Text(t, "public_key"))
		clientID := harness.NewClientID()
		p.Register(t, clientID, publicKey)
		environments[name] = map[string]any{"client_id": clientID, "issuer": p.Issuer}
	}
	require.Equal(t, []string{"dev", "prod", "test"}, slices.Sorted(maps.Keys(environments)))
	variables["environments"] = environments
	tf.set(t, variables)
	tf.apply(t)
	require.Equal(t, planEmpty, tf.plan(t))
	for name := range environments {
		m.Read(t, "creds/myapi-"+name)
	}

	p.Close() // the rest works without the provider
	config["request_timeout"] = 20
	environments["new"] = map[string]any{
		"client_id": "new", "issuer": p.Issuer, "scopes": []string{"read", "write"}, "delivery": "shared",
	}
	tf.set(t, variables)
	require.Equal(t, planChanges, tf.plan(t))
	tf.apply(t)
	require.Equal(t, planEmpty, tf.plan(t))
	require.Equal(t, 20, m.Read(t, "config").Number(t, "request_timeout"))
	role := m.Read(t, "roles/myapi-new")
	require.Equal(t, []any{"read", "write"}, role.Data["scopes"])
	require.Equal(t, "shared", role.Text(t, "delivery"))

	tf.requireIssuersMoved(t, m, variables)
	tf.requireDriftReverted(t, m)
	tf.requireDeliberateDestroy(t, m, variables)
}

// TestTerraform_ImportsMount imports a mount that was created by hand, with its key.
func TestTerraform_ImportsMount(t *testing.T) {
	t.Parallel()
	m := harness.NewMount(t, nil)
	created := m.Write(t, "keys/myapi-dev", map[string]any{"deletion_allowed": true})
	tf := newTerraform(t, m)
	tf.set(t, map[string]any{"mount": m.Path})
	tf.run(t, "import", "vault_mount.engine", m.Path)
	tf.apply(t)
	require.Equal(t, planEmpty, tf.plan(t))
	require.Equal(t, created.Text(t, "public_key"), tf.publicKeys(t)["dev"])
	require.Equal(t, false, m.Read(t, "keys/myapi-dev").Data["deletion_allowed"])
}

// TestTerraform_RegistersUpgradesAndRollsBack begins on a server whose catalog lacks the plugin.
func TestTerraform_RegistersUpgradesAndRollsBack(t *testing.T) {
	t.Parallel()
	i := newInstallation(t)
	first, next := harness.PluginVersion, nextVersion
	tf := newTerraformWithPlugin(t, i, first, next)

	tf.use(t, i, first)
	i.createKey(t)
	i.requireServing(t, first)
	keys := allKeys(t, i.m)

	tf.choose(t, i, map[string]any{"version": next, "sha256": strings.Repeat("0", 64)})
	require.Contains(t, tf.mustFail(t, "apply", "-auto-approve"), "checksums did not match")
	i.requireServing(t, first)
	tf.use(t, i, next)
	i.requireServing(t, next)

	i.server.MustRun(t, "secrets", "tune", "-plugin-version="+first, "bcgov-jwt/")
	i.server.MustRun(t, "plugin", "reload", "-plugin", harness.PluginName)
	require.Equal(t, planChanges, tf.plan(t))
	tf.use(t, i, next)
	i.requireServing(t, next)

	tf.use(t, i, first)
	i.requireServing(t, first)
	require.Equal(t, keys, allKeys(t, i.m))

	tf.choose(t, i, nil)
	tf.apply(t)
	require.Equal(t, planEmpty, tf.plan(t))
	tf.use(t, i, next)
	i.requireServing(t, next)
	require.Equal(t, keys, allKeys(t, i.m))

	i.m.RecordPrivateKeys(t)
	tf.edit(t, "prevent_destroy = true", "prevent_destroy = false")
	tf.run(t, "destroy", "-auto-approve")
	require.Equal(t, 404, i.m.Do(t, "GET", "info", nil, nil).Status)
}

// TestTerraform_EphemeralTokenIsNotStored runs the example that calls an API during an apply.
func TestTerraform_EphemeralTokenIsNotStored(t *testing.T) {
	t.Parallel()
	needTools(t, "curl")
	p := harness.EmbeddedProvider(t)
	m := harness.NewMount(t, p.Config)
	m.NewClient(t, p, "myapi", nil)
	accepting := p.NewAPI(t)
	tf := newTerraformWithEphemeral(t, m)
	tf.set(t, map[string]any{"mount": m.Path, "api_url": accepting.URL})
	tf.run(t, "plan", "-out=plan")
	tf.run(t, "apply", "plan")
	require.Equal(t, 1, accepting.Calls())
	require.Empty(t, accepting.Rejections())
	require.Equal(t, planEmpty, tf.plan(t))

	require.Contains(t, tf.requireNoSecretIn(t, filepath.Join(tf.dir, "terraform.tfstate")),
		accepting.URL)
	// execute has recorded this for the leak detector.
	require.Contains(t, tf.run(t, "show", "-json", "plan"), accepting.URL)
}
