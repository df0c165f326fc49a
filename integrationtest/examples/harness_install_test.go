package examples

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"
	"github.com/stretchr/testify/require"

	"github.com/bcgov/vault-plugin-bcgov-jwt/integrationtest/harness"
)

// nextVersion is the version after harness.PluginVersion. Its command has its name.
const nextVersion = "v1.0.1-test"

// builtNextVersion builds it once for all tests, into the plugin directory of the shared server.
var builtNextVersion = sync.OnceValue(func() error {
	return harness.Vault().BuildPlugin(context.Background(), nextVersion, nextVersion)
})

// pluginBinary returns the binary of a version.
func pluginBinary(t *testing.T, version string) []byte {
	t.Helper()
	command := harness.PluginName
	if version == nextVersion {
		require.NoError(t, builtNextVersion())
		command = nextVersion
	}
	binary, err := os.ReadFile(filepath.Join(harness.Vault().PluginDirectory(), command))
	require.NoError(t, err)
	return binary
}

func sumOf(content []byte) string { return fmt.Sprintf("%x", sha256.Sum256(content)) }

// releaseFile returns the name of this platform's binary in a release.
func releaseFile(version string) string {
	return strings.Join([]string{
		harness.PluginName, strings.TrimPrefix(version, "v"), runtime.GOOS, runtime.GOARCH,
	}, "_")
}

// newRelease creates a folder with the files of a release that install.sh needs.
func newRelease(t *testing.T, parent, version string) (folder string) {
	t.Helper()
	folder = filepath.Join(parent, version)
	require.NoError(t, os.MkdirAll(folder, 0o755))
	binary := pluginBinary(t, version)
	sums := fmt.Sprintf("%064d  another\n%s  %s\n", 0, sumOf(binary), releaseFile(version))
	write(t, filepath.Join(folder, "SHA256SUMS"), sums)
	write(t, filepath.Join(folder, releaseFile(version)), string(binary))
	return folder
}

func write(t *testing.T, file, content string) {
	t.Helper()
	require.NoError(t, os.WriteFile(file, []byte(content), 0o600))
}

// installation is a server without the plugin, and who may install it.
type installation struct {
	server   *harness.RaftVault
	m        *harness.Mount
	token    string // with the examples' policy
	provider *harness.Provider
	api      *harness.API
}

func newInstallation(t *testing.T) *installation {
	t.Helper()
	return newInstallationOn(t, harness.StartRaftVault(t))
}

func newInstallationOn(t *testing.T, server *harness.RaftVault) *installation {
	t.Helper()
	i := &installation{server: server, provider: harness.EmbeddedProvider(t)}
	i.m = &harness.Mount{Path: "bcgov-jwt", Client: i.server.NewClient(t)}
	i.api = i.provider.NewAPI(t)
	policy, err := os.ReadFile(example("install/policy.hcl"))
	require.NoError(t, err)
	sys := i.m.Client.Sys()
	require.NoError(t, sys.PutPolicyWithContext(t.Context(), "install", string(policy)))
	request := api.TokenCreateRequest{Policies: []string{"install"}}
	i.token = i.m.AsNewToken(t, request).Client.Token()
	return i
}

// environment returns the variables of install.sh.
func (i *installation) environment() []string {
	return append(i.server.ClientEnvironment(i.token),
		"PLUGIN_DIRECTORY="+i.server.PluginDirectory())
}

// script runs install.sh.
func (i *installation) script(
	t *testing.T, variables []string, args ...string,
) harness.CommandResult {
	t.Helper()
	result := runScript(t, append(i.environment(), variables...),
		append([]string{example("install/install.sh")}, args...)...)
	harness.Detector().Record("the output of install.sh", result.Stdout+result.Stderr)
	return result
}

// mustScript runs install.sh, which must succeed, and returns what it printed.
func (i *installation) mustScript(t *testing.T, variables []string, args ...string) string {
	t.Helper()
	result := i.script(t, variables, args...)
	require.Zero(t, result.Code, "%s%s", result.Stdout, result.Stderr)
	return result.Stdout
}

// createKey creates the key and the role myapi on a new mount.
func (i *installation) createKey(t *testing.T) {
	t.Helper()
	i.m.UnmountAfterTest(t)
	i.m.Write(t, "config", i.provider.Config)
	i.m.NewClient(t, i.provider, "myapi", nil)
}

// requireServing requires that the mount runs a version, and that the API accepts its tokens.
func (i *installation) requireServing(t *testing.T, version string) {
	t.Helper()
	require.Equal(t, version, i.m.Read(t, "info").Text(t, "version"))
	token := i.m.Read(t, "creds/myapi").Text(t, "access_token")
	require.Equal(t, http.StatusOK, i.api.Call(t, token))
}

// installed returns the commands in the plugin directory, without the one that the harness needs.
func (i *installation) installed(t *testing.T) (commands []string) {
	t.Helper()
	entries, err := os.ReadDir(i.server.PluginDirectory())
	require.NoError(t, err)
	for _, entry := range entries {
		if strings.HasPrefix(strings.TrimPrefix(entry.Name(), "."), harness.PluginName+"-") ||
			strings.HasPrefix(entry.Name(), ".install") {
			commands = append(commands, entry.Name())
		}
	}
	return commands
}

// requireInstallReadme requires that README.md has lines.
func requireInstallReadme(t *testing.T, lines ...string) {
	t.Helper()
	content, err := os.ReadFile(example("install/README.md"))
	require.NoError(t, err)
	for _, line := range lines {
		require.Contains(t, string(content), line+"\n")
	}
}

// helmCluster is a Kubernetes cluster with Vault, of which the server of an installation is a pod.
type helmCluster struct {
	*installation
	cluster *cluster
}

func newHelmCluster(t *testing.T) *helmCluster {
	t.Helper()
	h := &helmCluster{newInstallation(t), newEmptyCluster(t, "vault")}
	provideKubernetesAuth(t, h.server.VaultServer)
	h.cluster.m = &harness.Mount{Path: "kubernetes", Client: h.m.Client}
	h.cluster.enableAuth(t)
	role := map[string]any{
		"bound_service_account_names": "bcgov-jwt-install", "audience": "vault",
		"bound_service_account_namespaces": "vault", "token_policies": "install",
	}
	path := "auth/kubernetes/role/bcgov-jwt-install"
	_, err := h.m.Client.Logical().WriteWithContext(t.Context(), path, role)
	require.NoError(t, err)
	giveToProject(t, h.server.Dir, 0o770)
	giveToProject(t, h.server.PluginDirectory(), 0o770)
	return h
}

// installManifest returns the objects of a manifest after README.md's change of it.
func installManifest(t *testing.T, file, version, sum string) map[string]resource {
	t.Helper()
	const change = `sed "s/v0.1.0/$VERSION/; s/value: SHA256/value: '$SHA256'/" `
	content, err := os.ReadFile(example("install/README.md"))
	require.NoError(t, err)
	require.Contains(t, string(content), "$ "+change+file+" |\n")
	edited := filepath.Join(t.TempDir(), file)
	result := runScript(t,
		[]string{"PATH=" + os.Getenv("PATH"), "VERSION=" + version, "SHA256=" + sum},
		"sh", "-euc", "cd "+example("install")+"; "+change+file+" >"+edited)
	require.Zero(t, result.Code, result.Stderr)
	documents, err := buildManifestCheck(t).run(t, edited)
	require.NoError(t, err)
	all := map[string]resource{}
	for line := range bytes.Lines(documents) {
		var next resource
		require.NoError(t, json.Unmarshal(line, &next))
		all[next.Kind+" "+next.Metadata.Name] = next
	}
	return all
}

// copyPlugin runs the init container of kubernetes.yaml.
func (h *helmCluster) copyPlugin(t *testing.T, version, sum string) harness.CommandResult {
	t.Helper()
	spec := installManifest(t, "kubernetes.yaml", version, sum)["StatefulSet vault"].pod().Spec
	require.Len(t, spec.InitContainers, 1)
	spec.InitContainers[0].requireRestricted(t)
	image := newVolume(t, map[string]string{
		harness.PluginName: string(pluginBinary(t, version)),
	})
	created := newPod(t, h.cluster, spec, volumeSources{
		images: map[string]string{"ghcr.io/bcgov/" + harness.PluginName + ":" + version: image},
	})
	created.volumes["data"] = h.server.Dir
	return runContainer(t, created, "bcgov-jwt")
}

// register runs the Job of register.yaml.
func (h *helmCluster) register(t *testing.T, version, sum string) harness.CommandResult {
	t.Helper()
	template := installManifest(t, "register.yaml", version, sum)["Job bcgov-jwt-install"].pod()
	template.requireRestricted(t)
	script, err := os.ReadFile(example("install/install.sh"))
	require.NoError(t, err)
	created := newPod(t, h.cluster, template.Spec, volumeSources{
		configMaps: map[string]map[string]string{
			"bcgov-jwt-install": {"install.sh": string(script)},
		},
	})
	created.host = "vault-active"
	_, port, err := net.SplitHostPort(h.server.Address)
	require.NoError(t, err)
	for i, variable := range created.spec.Containers[0].Env {
		created.spec.Containers[0].Env[i].Value = strings.Replace(variable.Value, "8200", port, 1)
	}
	return runContainer(t, created, "install")
}

func runContainer(t *testing.T, p *pod, name string) harness.CommandResult {
	t.Helper()
	result, err := harness.Run(p.command(t, name))
	require.NoError(t, err)
	harness.Detector().Record("the output of "+name, result.Stdout+result.Stderr)
	return result
}

// install copies and registers a version.
func (h *helmCluster) install(t *testing.T, version string) {
	t.Helper()
	sum := sumOf(pluginBinary(t, version))
	for _, step := range []func(*testing.T, string, string) harness.CommandResult{
		h.copyPlugin, h.register,
	} {
		result := step(t, version, sum)
		require.Zero(t, result.Code, "%s%s", result.Stdout, result.Stderr)
	}
}

// releaseRegistry serves images that are made as those of releases.
type releaseRegistry struct{ tools, address string }

func newReleaseRegistry(t *testing.T) *releaseRegistry {
	t.Helper()
	r := &releaseRegistry{
		tools: scriptOutput(t, "scripts/release-tools.sh"), address: closedAddress(t),
	}
	serve := harness.Vault().Command(t.Context(), filepath.Join(r.tools, "crane"),
		"registry", "serve", "--address", r.address)
	serve.SysProcAttr.Setpgid = true // as kill needs it
	running := startProcess(t, serve)
	t.Cleanup(running.kill)
	require.Eventually(t, func() bool {
		connection, err := net.Dial("tcp", r.address)
		return err == nil && connection.Close() == nil
	}, 30*time.Second, 20*time.Millisecond, "%s", running)
	return r
}

// push pushes an image of a version for two architectures, and returns its name.
func (r *releaseRegistry) push(t *testing.T, version string) (image string) {
	t.Helper()
	folder := t.TempDir()
	args := []string{"image", filepath.Join(folder, "layout"), version, "commit"}
	for architecture, content := range map[string][]byte{
		runtime.GOARCH: pluginBinary(t, version), "riscv64": []byte("of another architecture"),
	} {
		file := filepath.Join(folder, architecture, harness.PluginName)
		require.NoError(t, os.Mkdir(filepath.Dir(file), 0o755))
		require.NoError(t, os.WriteFile(file, content, 0o755))
		args = append(args, "linux/"+architecture+"="+filepath.Dir(file))
	}
	image = r.address + "/bcgov/" + harness.PluginName
	r.run(t, "pack", args...)
	r.run(t, "crane", "push", filepath.Join(folder, "layout"), image+":"+version)
	return image
}

func (r *releaseRegistry) run(t *testing.T, tool string, args ...string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), filepath.Join(r.tools, tool), args...)
	cmd.Env = append(os.Environ(), "SOURCE_DATE_EPOCH=1")
	output, err := cmd.CombinedOutput()
	require.NoError(t, err, string(output))
}

// baoServer is an OpenBao with openbao.hcl.
type baoServer struct {
	*process
	binary, plugins, address, token string
}

// startBao starts it with versions of the plugin in an image, each with its SHA-256.
func startBao(t *testing.T, image string, versions map[string]string) *baoServer {
	t.Helper()
	dir := t.TempDir()
	b := &baoServer{
		binary: openBao(t), plugins: filepath.Join(dir, "plugins"), address: closedAddress(t),
		token: "root-" + rand.Text(),
	}
	require.NoError(t, os.Mkdir(b.plugins, 0o700))
	content, err := os.ReadFile(example("install/openbao.hcl"))
	require.NoError(t, err)
	const plugin = "\nplugin "
	settings, block, _ := strings.Cut(string(content), plugin)
	settings = strings.ReplaceAll(settings, "/var/lib/openbao/plugins", b.plugins)
	for version, sum := range versions {
		settings += plugin + strings.NewReplacer("ghcr.io/bcgov/"+harness.PluginName, image,
			"v0.1.0", version, strings.Repeat("0", 64), sum).Replace(block)
	}
	config := filepath.Join(dir, "openbao.hcl")
	write(t, config, settings)
	cmd := harness.Vault().Command(t.Context(), b.binary, "server", "-dev", "-dev-no-store-token",
		"-dev-root-token-id="+b.token, "-dev-listen-address="+b.address, "-config="+config)
	cmd.SysProcAttr.Setpgid = true // so that its plugins can be stopped with it
	b.process = startProcess(t, cmd)
	t.Cleanup(func() {
		b.kill()
		harness.Detector().Record("the log of OpenBao", b.String())
	})
	return b
}

// bao runs the bao command as root, and returns its output without a final line break.
func (b *baoServer) bao(t *testing.T, args ...string) (output string, err error) {
	t.Helper()
	cmd := harness.Vault().Command(t.Context(), b.binary, args...)
	cmd.Env = append(cmd.Env, "BAO_ADDR=http://"+b.address, "BAO_TOKEN="+b.token)
	printed, err := cmd.CombinedOutput()
	return strings.TrimSpace(string(printed)), err
}

func (b *baoServer) mustBao(t *testing.T, args ...string) (output string) {
	t.Helper()
	output, err := b.bao(t, args...)
	require.NoError(t, err, output)
	return output
}
