package integrationtest

import (
	"crypto/rand"
	"encoding/json"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"
	"github.com/stretchr/testify/require"
)

const terraformExample = "../docs/examples/terraform"

// What `plan -detailed-exitcode` ends with.
const (
	planEmpty = iota
	planFailed
	planChanges
)

// TestTerraformExample takes the example through the life of its resources, with HashiCorp's own Vault provider.
func TestTerraformExample(t *testing.T) {
	t.Parallel()
	p := embeddedProvider(t)
	m := unmounted(t, "terraform-"+strings.ToLower(rand.Text()))
	tf := newTerraform(t, m)

	config := map[string]any{"allowed_hosts": []any{p.config["allowed_hosts"]}, "ca_cert": p.config["ca_cert"]}
	variables := map[string]any{"mount": m.path, "config": config}
	tf.set(t, variables)
	tf.apply(t)
	m.adopt(t)
	require.Equal(t, planEmpty, tf.plan(t))

	environments := map[string]any{}
	for name, publicKey := range tf.publicKeys(t) {
		require.Equal(t, publicKey, m.read(t, "keys/myapi-"+name).text(t, "public_key"))
		clientID := newClientID()
		p.register(t, clientID, publicKey)
		environments[name] = map[string]any{"client_id": clientID, "issuer": p.issuer}
	}
	require.Equal(t, []string{"dev", "prod", "test"}, slices.Sorted(maps.Keys(environments)))
	variables["environments"] = environments
	tf.set(t, variables)
	tf.apply(t)
	require.Equal(t, planEmpty, tf.plan(t))
	for name := range environments {
		m.read(t, "creds/myapi-"+name)
	}

	p.close() // what follows works without the provider
	config["request_timeout"] = 20
	environments["new"] = map[string]any{"client_id": "new", "issuer": p.issuer, "scopes": []string{"read", "write"}, "delivery": "shared"}
	tf.set(t, variables)
	require.Equal(t, planChanges, tf.plan(t))
	tf.apply(t)
	require.Equal(t, planEmpty, tf.plan(t))
	require.Equal(t, 20, m.read(t, "config").number(t, "request_timeout"))
	role := m.read(t, "roles/myapi-new")
	require.Equal(t, []any{"read", "write"}, role.data["scopes"])
	require.Equal(t, "shared", role.text(t, "delivery"))

	tf.putsBackWhatWasChangedByHand(t, m)
	tf.destroysKeysOnPurposeOnly(t, m, variables)
}

// TestTerraformTakesOverAMount that somebody made by hand, with the key in it.
func TestTerraformTakesOverAMount(t *testing.T) {
	t.Parallel()
	m := newMount(t, nil)
	made := m.write(t, "keys/myapi-dev", map[string]any{"deletion_allowed": true})
	tf := newTerraform(t, m)
	tf.set(t, map[string]any{"mount": m.path})
	tf.run(t, "import", "vault_mount.engine", m.path)
	tf.apply(t)
	require.Equal(t, planEmpty, tf.plan(t))
	require.Equal(t, made.text(t, "public_key"), tf.publicKeys(t)["dev"])
	require.Equal(t, false, m.read(t, "keys/myapi-dev").data["deletion_allowed"])
}

// putsBackWhatWasChangedByHand: a role's setting, but not a key's rotation.
func (tf *terraform) putsBackWhatWasChangedByHand(t *testing.T, m *mount) {
	t.Helper()
	m.write(t, "keys/myapi-dev/rotate", nil)
	require.Equal(t, planEmpty, tf.plan(t))
	m.write(t, "roles/myapi-dev", map[string]any{"scopes": "admin"})
	require.Equal(t, planChanges, tf.plan(t))
	tf.apply(t)
	require.Empty(t, m.read(t, "roles/myapi-dev").data["scopes"])
}

// destroysKeysOnPurposeOnly: the file and Vault each have a lock on them.
func (tf *terraform) destroysKeysOnPurposeOnly(t *testing.T, m *mount, variables map[string]any) {
	t.Helper()
	m.showKeysNow(t)
	tf.requireNoSecretInState(t)
	keys := m.allKeys(t)
	require.Contains(t, tf.fails(t, "destroy", "-auto-approve"), "Instance cannot be destroyed")
	require.Contains(t, tf.fails(t, "plan", "-var", `environments={dev={}}`), "Instance cannot be destroyed", "an environment was left out")

	tf.run(t, "destroy", "-auto-approve", "-target=vault_generic_endpoint.role", "-target=vault_generic_endpoint.config")
	require.Equal(t, 404, m.do(t, "GET", "roles/myapi-dev", nil, nil).status)
	require.Equal(t, 10, m.read(t, "config").number(t, "request_timeout"))
	require.Equal(t, keys, m.allKeys(t))

	tf.edit(t, "prevent_destroy = true", "prevent_destroy = false")
	require.Contains(t, tf.fails(t, "destroy", "-auto-approve"), "deletion_allowed=true")
	require.Equal(t, keys, m.allKeys(t))

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
	require.Equal(t, keys, m.allKeys(t))
	tf.run(t, "destroy", "-auto-approve")
	require.NotContains(t, m.succeeds(t, "secrets", "list"), m.path)
}

// allKeys tells each key pair of the mount.
func (m *mount) allKeys(t *testing.T) map[string]string {
	t.Helper()
	names, _ := m.do(t, "LIST", "keys", nil, nil).data["keys"].([]any)
	require.NotEmpty(t, names)
	keys := map[string]string{}
	for _, name := range names {
		keys[name.(string)] = m.read(t, "keys/"+name.(string)).text(t, "jwks")
	}
	return keys
}

// terraform is the example in a folder of its own, where a state belongs to it.
type terraform struct {
	command, cliConfig, dir, vaultToken string
}

// newTerraform prepares the example for a mount, under its own policy.
func newTerraform(t *testing.T, m *mount) *terraform {
	t.Helper()
	tf := &terraform{command: scriptAnswer(t, "opentofu.sh"), cliConfig: scriptAnswer(t, "terraform-provider-vault.sh"), dir: t.TempDir()}
	require.NoError(t, os.CopyFS(tf.dir, os.DirFS(terraformExample)))
	policy, err := os.ReadFile(filepath.Join(tf.dir, "policy.hcl"))
	require.NoError(t, err)
	require.NoError(t, m.client.Sys().PutPolicyWithContext(t.Context(), m.path, strings.ReplaceAll(string(policy), "bcgov-jwt", m.path)))
	token, err := m.client.Auth().Token().CreateWithContext(t.Context(), &api.TokenCreateRequest{Policies: []string{m.path}})
	require.NoError(t, err)
	tf.vaultToken = token.Auth.ClientToken
	tf.run(t, "init")
	return tf
}

// scriptAnswer is the path that a script prints. Where it fails the test is skipped, but not where CI=true.
func scriptAnswer(t *testing.T, script string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "../scripts/"+script)
	cmd.Stderr = os.Stderr // it says when it has to build, which takes minutes
	output, err := cmd.Output()
	if err != nil && os.Getenv("CI") != "true" {
		t.Skipf("skipped: the Terraform example: scripts/%s: %v", script, err)
	}
	require.NoError(t, err, script)
	return strings.TrimSpace(string(output))
}

// set gives the example the values of its variables.
func (tf *terraform) set(t *testing.T, variables map[string]any) {
	t.Helper()
	encoded, err := json.Marshal(variables)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(tf.dir, "terraform.tfvars.json"), encoded, 0o600))
}

// edit changes main.tf as its user would.
func (tf *terraform) edit(t *testing.T, from, to string) {
	t.Helper()
	file := filepath.Join(tf.dir, "main.tf")
	text, err := os.ReadFile(file)
	require.NoError(t, err)
	require.Contains(t, string(text), from)
	require.NoError(t, os.WriteFile(file, []byte(strings.ReplaceAll(string(text), from, to)), 0o600))
}

func (tf *terraform) apply(t *testing.T) {
	t.Helper()
	tf.run(t, "apply", "-auto-approve")
}

// plan returns planEmpty or planChanges.
func (tf *terraform) plan(t *testing.T) int {
	t.Helper()
	result := tf.execute(t, "plan", "-detailed-exitcode")
	require.NotEqual(t, planFailed, result.code, "%s\n%s", result.stdout, result.stderr)
	return result.code
}

func (tf *terraform) publicKeys(t *testing.T) map[string]string {
	t.Helper()
	var keys map[string]string
	require.NoError(t, json.Unmarshal([]byte(tf.run(t, "output", "-json", "public_keys")), &keys))
	return keys
}

// run runs a command that must succeed, and returns what it printed on standard output.
func (tf *terraform) run(t *testing.T, args ...string) string {
	t.Helper()
	result := tf.execute(t, args...)
	require.Zero(t, result.code, "%s\n%s\n%s", args, result.stdout, result.stderr)
	return result.stdout
}

// fails runs a command that must fail, and returns its errors, each on one line.
func (tf *terraform) fails(t *testing.T, args ...string) string {
	t.Helper()
	result := tf.execute(t, args...)
	require.NotZero(t, result.code, "%s\n%s", args, result.stdout)
	return strings.Join(strings.Fields(result.stderr), " ")
}

func (tf *terraform) execute(t *testing.T, args ...string) commandResult {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), tf.command, args...)
	cmd.Dir = tf.dir
	cmd.Env = append(shared.Vault.environment(), "VAULT_ADDR=http://"+shared.Vault.Address, "VAULT_TOKEN="+tf.vaultToken,
		"TF_CLI_CONFIG_FILE="+tf.cliConfig, "TF_CLI_ARGS=-no-color", "TF_INPUT=0", "CHECKPOINT_DISABLE=1")
	cmd.SysProcAttr = dieWithParent()
	cmd.WaitDelay = time.Second
	var stdout, stderr strings.Builder
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	require.NotNil(t, cmd.ProcessState, "%v", err)
	shared.witness.saw("what terraform "+args[0]+" printed", stdout.String()+stderr.String())
	return commandResult{stdout: stdout.String(), stderr: stderr.String(), code: cmd.ProcessState.ExitCode()}
}

// requireNoSecretInState wants the keys and tokens so far known to the witness.
func (tf *terraform) requireNoSecretInState(t *testing.T) {
	t.Helper()
	states, err := filepath.Glob(tf.dir + "/terraform.tfstate*")
	require.NoError(t, err)
	require.Len(t, states, 2, "the state and the one before")
	for _, state := range states {
		text, err := os.ReadFile(state)
		require.NoError(t, err)
		require.Contains(t, string(text), "BEGIN PUBLIC KEY")
		require.Empty(t, shared.witness.find(sight{where: filepath.Base(state), text: text}))
		require.False(t, strings.Contains(string(text), tf.vaultToken), "the state holds the Vault token") //nolint:testifylint // Contains would print it
	}
}
