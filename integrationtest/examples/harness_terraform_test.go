package examples

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hashicorp/vault/api"
	"github.com/stretchr/testify/require"

	"github.com/bcgov/vault-plugin-bcgov-jwt/integrationtest/harness"
)

// The exit codes of `plan -detailed-exitcode`.
const (
	planEmpty = iota
	planFailed
	planChanges
)

// requireIssuersMoved moves all keys to an issuer whose host the same apply adds to allowed_hosts.
func (tf *terraform) requireIssuersMoved(
	t *testing.T, m *harness.Mount, variables map[string]any,
) {
	t.Helper()
	config := variables["config"].(map[string]any)
	config["allowed_hosts"] = []any{"idp.example.com"}
	const issuer = "https://idp.example.com/realms/new"
	for _, environment := range variables["environments"].(map[string]any) {
		environment.(map[string]any)["issuer"] = issuer
	}
	tf.set(t, variables)
	tf.apply(t)
	require.Equal(t, planEmpty, tf.plan(t))
	require.Equal(t, issuer, m.Read(t, "keys/myapi-dev").Text(t, "issuer"))
}

// requireDriftReverted requires that a role's setting that was changed by hand is reverted, but not
// a key's rotation.
func (tf *terraform) requireDriftReverted(t *testing.T, m *harness.Mount) {
	t.Helper()
	m.Write(t, "keys/myapi-dev/rotate", nil)
	require.Equal(t, planEmpty, tf.plan(t))
	m.Write(t, "roles/myapi-dev", map[string]any{"scopes": "admin"})
	require.Equal(t, planChanges, tf.plan(t))
	tf.apply(t)
	require.Empty(t, m.Read(t, "roles/myapi-dev").Data["scopes"])
}

// requireDeliberateDestroy requires that keys are destroyed only once both the file and Vault allow
// it.
func (tf *terraform) requireDeliberateDestroy(
	t *testing.T, m *harness.Mount, variables map[string]any,
) {
	t.Helper()
	m.RecordPrivateKeys(t)
	tf.requireNoSecretInState(t)
	keys := allKeys(t, m)
	const prevented = "cannot be destroyed"
	require.Contains(t, tf.mustFail(t, "destroy", "-auto-approve"), prevented)
	require.Contains(t, tf.mustFail(t, "plan", "-var", `environments={dev={}}`), prevented,
		"environments are missing")

	tf.run(t, "destroy", "-auto-approve", "-target=vault_generic_endpoint.role")
	require.Equal(t, 404, m.Do(t, "GET", "roles/myapi-dev", nil, nil).Status)
	require.Equal(t, keys, allKeys(t, m))

	tf.edit(t, "prevent_destroy = true", "prevent_destroy = false")
	require.Contains(t, tf.mustFail(t, "destroy", "-auto-approve"), "deletion_allowed=true")
	require.Equal(t, keys, allKeys(t, m))

	environments := variables["environments"].(map[string]any)
	for _, environment := range environments {
		environment.(map[string]any)["deletion_allowed"] = true
	}
	tf.set(t, variables)
	tf.apply(t)
	delete(environments, "new")
	delete(keys, "myapi-new")
	tf.set(t, variables)
	tf.apply(t)
	require.Equal(t, keys, allKeys(t, m))
	tf.run(t, "destroy", "-auto-approve")
	require.NotContains(t, m.MustRun(t, "secrets", "list"), m.Path)
}

// allKeys returns the JWKS of each key of the mount.
func allKeys(t *testing.T, m *harness.Mount) map[string]string {
	t.Helper()
	names, _ := m.Do(t, "LIST", "keys", nil, nil).Data["keys"].([]any)
	require.NotEmpty(t, names)
	keys := map[string]string{}
	for _, name := range names {
		keys[name.(string)] = m.Read(t, "keys/"+name.(string)+"/jwks").Text(t, "jwks")
	}
	return keys
}

// terraform is the example in a folder of its own, which also has its state.
type terraform struct {
	server                              *harness.VaultServer
	command, cliConfig, dir, vaultToken string
}

// newTerraform prepares the example for a mount.
func newTerraform(t *testing.T, m *harness.Mount) *terraform {
	t.Helper()
	return newTerraformOn(t, harness.Vault(), m, "policy.hcl")
}

// newTerraformOn prepares the example for a mount of a server, under some of its policies.
func newTerraformOn(
	t *testing.T, server *harness.VaultServer, m *harness.Mount, policies ...string,
) *terraform {
	t.Helper()
	tf := newTerraformIn(t, server, m, "terraform", policies...)
	tf.cliConfig = scriptOutput(t, harness.TerraformProviderScript)
	tf.run(t, "init")
	return tf
}

// newTerraformWithPlugin prepares the example for a server that has the binaries of versions, and
// the plugin in no catalog.
func newTerraformWithPlugin(t *testing.T, i *installation, versions ...string) *terraform {
	t.Helper()
	registered := &api.DeregisterPluginInput{
		Name: harness.PluginName, Type: api.PluginTypeSecrets, Version: harness.PluginVersion,
	}
	require.NoError(t, i.m.Client.Sys().DeregisterPluginWithContext(t.Context(), registered))
	for _, version := range versions {
		i.server.AddPlugin(t, harness.PluginName+"-"+version, pluginBinary(t, version))
	}
	return newTerraformOn(t, i.server.VaultServer, i.m, "policy.hcl", "plugin-policy.hcl")
}

// choose sets the variables of the example, with or without a plugin.
func (tf *terraform) choose(t *testing.T, i *installation, plugin map[string]any) {
	t.Helper()
	tf.set(t, map[string]any{
		"plugin": plugin, "environments": map[string]any{}, "config": terraformConfig(i.provider),
	})
}

// terraformConfig returns the example's variable config for a provider.
func terraformConfig(p *harness.Provider) map[string]any {
	return map[string]any{
		"allowed_hosts": []any{p.Config["allowed_hosts"]}, "ca_cert": p.Config["ca_cert"],
	}
}

// use applies a version of the plugin.
func (tf *terraform) use(t *testing.T, i *installation, version string) {
	t.Helper()
	tf.choose(t, i, map[string]any{
		"version": version, "sha256": sumOf(pluginBinary(t, version)),
	})
	tf.apply(t)
	require.Equal(t, planEmpty, tf.plan(t))
}

// newTerraformWithEphemeral prepares the example of an ephemeral resource. HashiCorp's own provider
// that has them cannot be built here, so another one stands in for it.
func newTerraformWithEphemeral(t *testing.T, m *harness.Mount) *terraform {
	t.Helper()
	tf := newTerraformIn(t, harness.Vault(), m, "terraform/token", "policy.hcl")
	build := exec.CommandContext(t.Context(), "go", "build", "-buildvcs=false",
		"-o", filepath.Join(tf.dir, "terraform-provider-vault"), ".")
	build.Dir = harness.InRepository(harness.EphemeralProviderModule)
	output, err := build.CombinedOutput()
	require.NoError(t, err, string(output))
	tf.cliConfig = filepath.Join(t.TempDir(), "override.tfrc")
	override := fmt.Sprintf(`provider_installation {
  dev_overrides { "hashicorp/vault" = %q }
}`, tf.dir)
	require.NoError(t, os.WriteFile(tf.cliConfig, []byte(override), 0o600))
	return tf
}

// newTerraformIn copies an example of Terraform for a mount of a server, under its own policies.
func newTerraformIn(
	t *testing.T, server *harness.VaultServer, m *harness.Mount, folder string, policies ...string,
) *terraform {
	t.Helper()
	tf := &terraform{
		server: server, command: scriptOutput(t, harness.OpenTofuScript), dir: t.TempDir(),
	}
	require.NoError(t, os.CopyFS(tf.dir, os.DirFS(example(folder))))
	var rules strings.Builder
	for _, policy := range policies {
		content, err := os.ReadFile(filepath.Join(tf.dir, policy))
		require.NoError(t, err)
		rules.Write(content)
	}
	m.WritePolicy(t, m.Path, strings.ReplaceAll(rules.String(), "bcgov-jwt", m.Path))
	as := m.AsNewToken(t, api.TokenCreateRequest{Policies: []string{m.Path}})
	tf.vaultToken = as.Client.Token()
	return tf
}

// set sets the variables of the example.
func (tf *terraform) set(t *testing.T, variables map[string]any) {
	t.Helper()
	encoded, err := json.Marshal(variables)
	require.NoError(t, err)
	file := filepath.Join(tf.dir, "terraform.tfvars.json")
	require.NoError(t, os.WriteFile(file, encoded, 0o600))
}

// edit changes main.tf as its user would.
func (tf *terraform) edit(t *testing.T, from, to string) {
	t.Helper()
	file := filepath.Join(tf.dir, "main.tf")
	text, err := os.ReadFile(file)
	require.NoError(t, err)
	require.Contains(t, string(text), from)
	text = bytes.ReplaceAll(text, []byte(from), []byte(to))
	require.NoError(t, os.WriteFile(file, text, 0o600))
}

func (tf *terraform) apply(t *testing.T) {
	t.Helper()
	tf.run(t, "apply", "-auto-approve")
}

// plan returns planEmpty or planChanges.
func (tf *terraform) plan(t *testing.T) int {
	t.Helper()
	result := tf.execute(t, "plan", "-detailed-exitcode")
	require.NotEqual(t, planFailed, result.Code, "%s\n%s", result.Stdout, result.Stderr)
	return result.Code
}

func (tf *terraform) publicKeys(t *testing.T) map[string]string {
	t.Helper()
	var keys map[string]string
	require.NoError(t, json.Unmarshal([]byte(tf.run(t, "output", "-json", "public_keys")), &keys))
	return keys
}

// run runs a command that must succeed, and returns its standard output.
func (tf *terraform) run(t *testing.T, args ...string) string {
	t.Helper()
	result := tf.execute(t, args...)
	require.Zero(t, result.Code, "%s\n%s\n%s", args, result.Stdout, result.Stderr)
	return result.Stdout
}

// mustFail runs a command that must fail, and returns its errors as one line.
func (tf *terraform) mustFail(t *testing.T, args ...string) string {
	t.Helper()
	result := tf.execute(t, args...)
	require.NotZero(t, result.Code, "%s\n%s", args, result.Stdout)
	return strings.Join(strings.Fields(result.Stderr), " ")
}

func (tf *terraform) execute(t *testing.T, args ...string) harness.CommandResult {
	t.Helper()
	cmd := tf.server.Command(t.Context(), tf.command, args...)
	cmd.Dir = tf.dir
	cmd.Env = append(cmd.Env, tf.server.ClientEnvironment(tf.vaultToken)...)
	cmd.Env = append(cmd.Env, "TF_CLI_CONFIG_FILE="+tf.cliConfig, "TF_CLI_ARGS=-no-color",
		"TF_INPUT=0", "CHECKPOINT_DISABLE=1")
	result, err := harness.Run(cmd)
	require.NoError(t, err)
	harness.Detector().Record("the output of terraform "+args[0], result.Stdout+result.Stderr)
	return result
}

// requireNoSecretInState expects that the keys and tokens so far are recorded.
func (tf *terraform) requireNoSecretInState(t *testing.T) {
	t.Helper()
	states, err := filepath.Glob(tf.dir + "/terraform.tfstate*")
	require.NoError(t, err)
	require.Len(t, states, 2, "the state and the previous one")
	for _, state := range states {
		require.Contains(t, tf.requireNoSecretIn(t, state), "BEGIN PUBLIC KEY")
	}
}

func (tf *terraform) requireNoSecretIn(t *testing.T, file string) (content string) {
	t.Helper()
	text, err := os.ReadFile(file)
	require.NoError(t, err)
	require.Empty(t, harness.Detector().Find(filepath.Base(file), text))
	leaked := bytes.Contains(text, []byte(tf.vaultToken))
	require.False(t, leaked, "%s holds the Vault token", filepath.Base(file))
	return string(text)
}
