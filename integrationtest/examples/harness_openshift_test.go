package examples

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bcgov/vault-plugin-bcgov-jwt/integrationtest/harness"
)

// openShiftProject is the project that the examples are for.
const openShiftProject = "abc123-dev"

// resource holds what the tests need of the objects of the OpenShift templates.
type resource struct {
	Kind     string
	Metadata struct {
		Name        string
		Annotations map[string]string
	}
	Data map[string]string
	Spec struct {
		JobTemplate struct {
			Spec struct{ Template podTemplate }
		}
		Template             podTemplate
		VolumeClaimTemplates []struct{ Metadata struct{ Name string } }
		Selector             map[string]any
		PodSelector          struct{ MatchLabels map[string]string }
		Ingress              []struct {
			From []struct {
				PodSelector struct{ MatchLabels map[string]string }
			}
		}
		Path string
		To   struct{ Name string }
	}
}

// pod returns the pod of a workload.
func (r resource) pod() podTemplate {
	if r.Kind == "CronJob" {
		return r.Spec.JobTemplate.Spec.Template
	}
	return r.Spec.Template
}

// processTemplate returns the valid objects of a template by kind and name.
func processTemplate(
	t *testing.T, file string, parameters map[string]string,
) map[string]resource {
	t.Helper()
	var args []string
	for name, value := range parameters {
		args = append(args, "-p", name+"="+value)
	}
	documents, err := buildManifestCheck(t).run(t, append(args, example("openshift/"+file))...)
	require.NoError(t, err)
	all := map[string]resource{}
	for line := range bytes.Lines(documents) {
		var next resource
		require.NoError(t, json.Unmarshal(line, &next))
		all[next.Kind+" "+next.Metadata.Name] = next
	}
	return all
}

// parameterFile returns the values of a file for oc process --param-file.
func parameterFile(t *testing.T, file string) map[string]string {
	t.Helper()
	content, err := os.ReadFile(example("openshift/" + file))
	require.NoError(t, err)
	values := map[string]string{}
	for line := range strings.Lines(string(content)) {
		name, value, found := strings.Cut(strings.TrimSpace(line), "=")
		require.True(t, found, line)
		values[name] = value
	}
	return values
}

// registry serves an image, and counts the requests.
type registry struct {
	image    string // its name
	requests atomic.Int64
	content  sync.Map // by path
}

func newRegistry(t *testing.T) *registry {
	t.Helper()
	r := &registry{}
	r.content.Store("/v2/", []byte{})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		r.requests.Add(1)
		body, exists := r.content.Load(req.URL.Path)
		if !exists {
			http.NotFound(w, req)
			return
		}
		w.Header().Set("Content-Type", imageType+"manifest.v1+json") // only a manifest's counts
		_, _ = w.Write(body.([]byte))
	}))
	t.Cleanup(server.Close)
	r.image = strings.TrimPrefix(server.URL, "http://") + "/bcgov/" + harness.PluginName
	return r
}

// imageType is where the media types of an image's parts begin.
const imageType = "application/vnd.oci.image."

// push adds a version of the plugin, as a release does, and returns the binary's SHA-256.
func (r *registry) push(t *testing.T, command, version string) (sum string) {
	t.Helper()
	binary, err := os.ReadFile(filepath.Join(harness.Vault().PluginDirectory(), command))
	require.NoError(t, err)
	type object = map[string]any
	layer := tarOf(t, harness.PluginName, binary)
	config := encode(t, object{
		"os": runtime.GOOS, "architecture": runtime.GOARCH,
		"config": object{"Entrypoint": []string{"/" + harness.PluginName}},
		"rootfs": object{"type": "layers", "diff_ids": []string{digest(layer)}},
	})
	manifest := encode(t, object{
		"schemaVersion": 2, "mediaType": imageType + "manifest.v1+json",
		"config": describe("config.v1+json", config),
		"layers": []object{describe("layer.v1.tar", layer)},
	})
	_, repository, _ := strings.Cut(r.image, "/")
	r.content.Store("/v2/"+repository+"/manifests/"+version, manifest)
	for _, blob := range [][]byte{config, layer} {
		r.content.Store("/v2/"+repository+"/blobs/"+digest(blob), blob)
	}
	return fmt.Sprintf("%x", sha256.Sum256(binary))
}

// describe returns the descriptor of a part of an image.
func describe(mediaType string, blob []byte) map[string]any {
	return map[string]any{
		"mediaType": imageType + mediaType, "digest": digest(blob), "size": len(blob),
	}
}

func tarOf(t *testing.T, name string, content []byte) []byte {
	t.Helper()
	var archive bytes.Buffer
	w := tar.NewWriter(&archive)
	header := &tar.Header{Name: name, Mode: 0o555, Size: int64(len(content))}
	require.NoError(t, w.WriteHeader(header))
	_, err := w.Write(content)
	require.NoError(t, err)
	require.NoError(t, w.Close())
	return archive.Bytes()
}

func encode(t *testing.T, value any) []byte {
	t.Helper()
	encoded, err := json.Marshal(value)
	require.NoError(t, err)
	return encoded
}

func digest(content []byte) string { return fmt.Sprintf("sha256:%x", sha256.Sum256(content)) }

// project is an OpenShift project with what openbao.yaml creates in it. Only ports differ, so that
// several can be on one machine.
type project struct {
	cluster    *cluster
	parameters map[string]string // of openbao.yaml
	resources  map[string]resource
	sources    volumeSources
	host       string // of the Service
	ports      *strings.Replacer
	registry   *registry

	server *process
	pod    *pod
	token  string // of an administrator
}

// newProject creates a project as README.md says.
func newProject(t *testing.T, provider *harness.Provider) *project {
	t.Helper()
	p := &project{
		cluster: newEmptyCluster(t, openShiftProject), registry: newRegistry(t),
		host: "openbao." + openShiftProject + ".svc", ports: newPorts(t, ":8200", ":8201"),
		sources: volumeSources{configMaps: map[string]map[string]string{}},
	}
	p.parameters = map[string]string{
		"NAMESPACE": openShiftProject, "PLUGIN_IMAGE": p.registry.image,
		"ALLOWED_HOSTS": hostsOf(t, provider),
	}
	p.apply(t, harness.PluginName, harness.PluginVersion)
	certificate, key := newServingCertificate(t, p.host)
	service := p.resources["Service openbao"]
	tls := service.Metadata.Annotations["service.beta.openshift.io/serving-cert-secret-name"]
	p.sources.configMaps[serviceCA] = map[string]string{serviceCAFile: certificate}
	p.sources.secrets = map[string]map[string]string{
		tls: {"tls.crt": certificate, "tls.key": key}, "openbao-seal": newSealKey(t),
	}
	require.Contains(t, p.resources, "PersistentVolumeClaim openbao-backup")
	p.sources.claims = map[string]string{"openbao-backup": newVolume(t, nil)}
	p.clearData(t)
	return p
}

// apply creates or changes the objects, for a version of the plugin.
func (p *project) apply(t *testing.T, command, version string) {
	t.Helper()
	p.parameters["PLUGIN_VERSION"] = version
	p.parameters["PLUGIN_SHA256"] = p.registry.push(t, command, version)
	p.resources = processTemplate(t, "openbao.yaml", p.parameters)
	for _, r := range p.resources {
		for name := range r.Data {
			r.Data[name] = p.ports.Replace(r.Data[name])
		}
		for _, c := range r.pod().Spec.Containers {
			for i := range c.Env {
				c.Env[i].Value = p.ports.Replace(c.Env[i].Value)
			}
		}
	}
	p.sources.configMaps["openbao"] = p.resources["ConfigMap openbao"].Data
}

// upgrade changes the plugin's version as README.md says.
func (p *project) upgrade(t *testing.T, version string) {
	t.Helper()
	require.NoError(t, builtNextVersion())
	p.apply(t, version, version)
	p.stop(t)
	p.start(t)
	p.runReadme(t, "bao secrets tune", "v0.1.1", version)
	require.Equal(t, version, p.bao(t, "read", "-field=version", "bcgov-jwt/info"))
}

// hostsOf returns the allowed_hosts for a provider.
func hostsOf(t *testing.T, provider *harness.Provider) string {
	t.Helper()
	if hosts, ok := provider.Config["allowed_hosts"].(string); ok {
		return hosts
	}
	issuer, err := url.Parse(provider.Issuer)
	require.NoError(t, err)
	return issuer.Host
}

// clearData replaces OpenBao's volume by an empty one.
func (p *project) clearData(t *testing.T) {
	t.Helper()
	templates := p.resources["StatefulSet openbao"].Spec.VolumeClaimTemplates
	require.Len(t, templates, 1)
	p.sources.claims[templates[0].Metadata.Name] = newVolume(t, nil)
}

// newSealKey runs the command of README.md.
func newSealKey(t *testing.T) map[string]string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "seal.key")
	runReadme(t, "openssl rand -out seal.key 32", filepath.Dir(file))
	key, err := os.ReadFile(file)
	require.NoError(t, err)
	return map[string]string{"key": string(key)}
}

// runReadme runs a command of README.md in a folder, with texts of it replaced (pairs of old and
// new).
func runReadme(t *testing.T, command, folder string, replaced ...string) {
	t.Helper()
	require.Contains(t, readREADME(t), "$ "+command+"\n")
	command = strings.NewReplacer(replaced...).Replace(command)
	cmd := harness.Vault().Command(t.Context(), "sh", "-euc", command)
	cmd.Dir = folder
	output, err := cmd.CombinedOutput()
	require.NoError(t, err, string(output))
}

// newPorts replaces ports by free ones.
func newPorts(t *testing.T, ports ...string) *strings.Replacer {
	t.Helper()
	var replaced []string
	for _, port := range ports {
		_, free, err := net.SplitHostPort(closedAddress(t))
		require.NoError(t, err)
		replaced = append(replaced, port, ":"+free)
	}
	return strings.NewReplacer(replaced...)
}

// newPod creates the pod of a workload, in which the Service's name resolves.
func (p *project) newPod(t *testing.T, name string) *pod {
	t.Helper()
	r, exists := p.resources[name]
	require.True(t, exists, name)
	created := newPod(t, p.cluster, r.pod().Spec, p.sources)
	created.host = p.host
	address, err := url.Parse(p.cluster.url)
	require.NoError(t, err)
	created.environment = kubernetesEnvironment(t, address.Host)
	return created
}

// start starts OpenBao, logs in, and returns how long it took until it was ready.
func (p *project) start(t *testing.T) time.Duration {
	t.Helper()
	begun := time.Now()
	p.pod = p.newPod(t, "StatefulSet openbao")
	for _, template := range p.resources["StatefulSet openbao"].Spec.VolumeClaimTemplates {
		p.pod.volumes[template.Metadata.Name] = p.sources.claims[template.Metadata.Name]
	}
	p.server = p.pod.start(t, "openbao")
	p.waitReady(t)
	p.loginAsAdmin(t)
	return time.Since(begun)
}

// waitReady waits until OpenBao is unsealed and active, as its readinessProbe does.
func (p *project) waitReady(t *testing.T) {
	t.Helper()
	require.Eventually(t, func() bool {
		result, err := harness.Run(p.pod.exec(t, "bao", "read", "sys/health"))
		return err == nil && result.Code == 0 && !strings.Contains(result.Stdout, "true  standby")
	}, time.Minute, 100*time.Millisecond, "%s", p.server)
}

// stop ends OpenBao as the kubelet does.
func (p *project) stop(t *testing.T) {
	t.Helper()
	require.NoError(t, syscall.Kill(p.server.cmd.Process.Pid, syscall.SIGTERM))
	select {
	case <-p.server.ended:
	case <-time.After(30 * time.Second):
		t.Fatal("it does not end: " + p.server.lastOutput())
	}
}

// bao runs the bao command in OpenBao's pod, as oc exec does.
func (p *project) bao(t *testing.T, args ...string) string {
	t.Helper()
	return p.exec(t, "bao "+strings.Join(args, " "), "", append([]string{"bao"}, args...)...)
}

// exec runs a command in OpenBao's pod as the administrator.
func (p *project) exec(t *testing.T, shown, stdin string, command ...string) string {
	t.Helper()
	cmd := p.pod.exec(t, command...)
	cmd.Env = append(cmd.Env, "BAO_TOKEN="+p.token)
	cmd.Stdin = strings.NewReader(stdin)
	result, err := harness.Run(cmd)
	require.NoError(t, err)
	harness.Detector().Record("the output of `"+shown+"`", result.Stdout+result.Stderr)
	require.Zero(t, result.Code, "%s: %s\n%s", shown, result.Stderr, p.server.lastOutput())
	return strings.TrimSpace(result.Stdout)
}

// loginAsAdmin logs in as README.md says.
func (p *project) loginAsAdmin(t *testing.T) {
	t.Helper()
	const command = "bao write -field=token auth/jwt/login role=admin jwt=-"
	require.Contains(t, readREADME(t), "oc exec -i openbao-0 -- "+command+")\n")
	jwt := p.cluster.token(t, "openbao-admin", []string{"openbao"})
	p.token = ""
	p.token = p.exec(t, command, jwt, strings.Fields(command)...)
}

// createKey creates the key and the role myapi for a new client of a provider.
func (p *project) createKey(t *testing.T, provider *harness.Provider) {
	t.Helper()
	for setting, value := range provider.Config {
		p.bao(t, "write", "bcgov-jwt/config", fmt.Sprint(setting, "=", value))
	}
	clientID := harness.NewClientID()
	p.bao(t, "write", "bcgov-jwt/keys/myapi", "client_id="+clientID, "issuer="+provider.Issuer)
	provider.Register(t, clientID, p.bao(t, "read", "-field=public_key", "bcgov-jwt/keys/myapi"))
	p.bao(t, "write", "bcgov-jwt/roles/myapi", "key=myapi")
}

// requireRouted requires that the Route leads to the key set of a key, and to no other path.
func (p *project) requireRouted(t *testing.T) {
	t.Helper()
	path := p.bao(t, "write", "-field=jwks_path", "bcgov-jwt/keys/auto", "registration=jwks")
	folder := path[:strings.LastIndex(path, "/")]
	require.Equal(t, p.resources["Route openbao-jwks"].Spec.Path, folder)
}

func (p *project) requireNoKeys(t *testing.T) {
	t.Helper()
	cmd := p.pod.exec(t, "bao", "list", "bcgov-jwt/keys")
	cmd.Env = append(cmd.Env, "BAO_TOKEN="+p.token)
	result, err := harness.Run(cmd)
	require.NoError(t, err)
	require.Contains(t, result.Stdout+result.Stderr, "No value found at bcgov-jwt/keys")
}

// runReadme runs the commands of README.md that begin so in OpenBao's pod, with texts of them
// replaced (pairs of old and new).
func (p *project) runReadme(t *testing.T, beginning string, replaced ...string) {
	t.Helper()
	script := strings.NewReplacer(replaced...).Replace(readmeCommands(t, beginning))
	p.exec(t, script, "", "sh", "-euc", script)
}

func readREADME(t *testing.T) string {
	t.Helper()
	content, err := os.ReadFile(example("openshift/README.md"))
	require.NoError(t, err)
	return string(content)
}

// readmeCommands returns the commands of README.md from the one that begins so to the end of the
// block.
func readmeCommands(t *testing.T, beginning string) string {
	t.Helper()
	before, rest, found := strings.Cut(readREADME(t), "$ "+beginning)
	require.True(t, found, beginning)
	indent := before[strings.LastIndex(before, "\n")+1:]
	block, _, found := strings.Cut(beginning+rest, indent+"```\n")
	require.True(t, found, beginning)
	var script strings.Builder
	for line := range strings.Lines(block) {
		script.WriteString(strings.TrimPrefix(strings.TrimPrefix(line, indent), "$ "))
	}
	return script.String()
}

// tokenOfApp returns the access token that the Agent of a new pod of app.yaml reads.
func (p *project) tokenOfApp(t *testing.T, apiURL string) string {
	t.Helper()
	parameters := parameterFile(t, "openbao.env")
	parameters["API_URL"] = apiURL
	parameters["VAULT_ADDR"] = p.ports.Replace(parameters["VAULT_ADDR"])
	app := newInjectedPod(t, p.cluster, p.host, p.sources, parameters)
	app.runAgentInit(t)
	return app.accessToken(t)
}

// runJob runs the pod of a CronJob to its end.
func (p *project) runJob(t *testing.T, cronJob, container string) {
	t.Helper()
	result, err := harness.Run(p.newPod(t, "CronJob "+cronJob).command(t, container))
	require.NoError(t, err)
	harness.Detector().Record("the output of "+cronJob, result.Stdout+result.Stderr)
	require.Zero(t, result.Code, "%s%s", result.Stdout, result.Stderr)
}

// platform is a Vault that serves pods of many projects, by the names of BC Gov's.
type platform struct {
	cluster    *cluster
	provider   *endpointGate
	parameters map[string]string // of app.yaml
}

// newPlatform does what the platform's administrators do: a role of the plugin, and a login that
// may read it.
func newPlatform(t *testing.T, provider *harness.Provider) *platform {
	t.Helper()
	provideKubernetesAuth(t, harness.Vault())
	p := &platform{
		cluster: newEmptyCluster(t, openShiftProject), provider: newEndpointGate(t, provider),
		parameters: parameterFile(t, "platform.env"),
	}
	m := harness.NewMount(t, provider.Config)
	m.Write(t, "config", p.provider.config)
	m.Write(t, "config", map[string]any{"max_retries": 0}) // so that an outage need not be long
	m.NewClientWithTokenLifetime(t, provider, "myapi", agentTokenLifetime,
		map[string]any{"token_endpoint": p.provider.URL},
		map[string]any{"refresh_margin": (agentTokenLifetime - agentPeriod).String()})
	p.cluster.m = m
	p.cluster.enableAuth(t)
	m.Write(t, "roles/myapi-unleased", map[string]any{"key": "myapi", "delivery": "unleased"})
	m.WritePolicy(t, m.Path, `path "`+m.Path+`/creds/*" { capabilities = ["read"] }`)
	role := map[string]any{
		"bound_service_account_names":      p.parameters["SERVICE_ACCOUNT"],
		"bound_service_account_namespaces": openShiftProject,
		"token_policies":                   m.Path,
	}
	path := "auth/" + p.cluster.auth + "/role/" + p.parameters["ROLE"]
	_, err := m.Client.Logical().WriteWithContext(t.Context(), path, role)
	require.NoError(t, err)
	p.parameters["VAULT_ADDR"], p.parameters["VAULT_NAMESPACE"] = harness.Vault().URL(), ""
	p.parameters["AUTH_PATH"] = "auth/" + p.cluster.auth
	p.parameters["CREDS"] = m.Path + "/creds/myapi"
	return p
}

// newInjectedPod creates the pod of app.yaml for this platform.
func (p *platform) newInjectedPod(t *testing.T, apiURL string) *pod {
	t.Helper()
	p.parameters["API_URL"] = apiURL
	return newInjectedPod(t, p.cluster, "", volumeSources{}, p.parameters)
}
