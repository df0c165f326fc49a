package examples

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/bcgov/vault-plugin-bcgov-jwt/integrationtest/harness"
)

const (
	injectorPrefix = "vault.hashicorp.com/"
	agentHome      = "/home/vault"
	secretsFolder  = "/vault/secrets"
)

// injector turns a pod's annotations into what the Vault Agent Injector (hashicorp/vault-k8s 1.7.6)
// adds to the pod, with the injector's defaults. It refuses what it does not know: a misspelled
// annotation would have no effect.
type injector struct {
	annotations map[string]string
	used        map[string]bool
}

func newInjector(annotations map[string]string) *injector {
	return &injector{annotations: annotations, used: map[string]bool{}}
}

func (i *injector) text(name, byDefault string) string {
	value, exists := i.annotations[injectorPrefix+name]
	i.used[injectorPrefix+name] = true
	if !exists {
		return byDefault
	}
	return value
}

func (i *injector) bool(t *testing.T, name string, byDefault bool) bool {
	t.Helper()
	value, err := strconv.ParseBool(i.text(name, strconv.FormatBool(byDefault)))
	require.NoError(t, err, name)
	return value
}

// withPrefix returns the annotations that begin so, by the rest of their name.
func (i *injector) withPrefix(prefix string) map[string]string {
	found := map[string]string{}
	for name, value := range i.annotations {
		if rest, matches := strings.CutPrefix(name, injectorPrefix+prefix); matches {
			found[rest] = value
			i.used[name] = true
		}
	}
	return found
}

// config returns the Agent's configuration, for the init container or for the sidecar.
func (i *injector) config(t *testing.T, isInit bool) []byte {
	t.Helper()
	type object = map[string]any
	require.False(t, i.bool(t, "agent-inject-token", false), "the sink for the application")
	config := object{
		"pid_file":        agentHome + "/.pid",
		"exit_after_auth": isInit,
		"vault": object{
			"address": i.text("service", ""), "ca_cert": i.text("ca-cert", ""),
		},
		"auto_auth": object{
			"method": i.method(t),
			"sink":   []object{{"type": "file", "config": object{"path": agentHome + "/.vault-token"}}},
		},
		"template": i.templates(t),
		"template_config": object{
			"exit_on_retry_failure": i.bool(t, "template-config-exit-on-retry-failure", true),
		},
	}
	return encode(t, config)
}

func (i *injector) method(t *testing.T) map[string]any {
	t.Helper()
	settings := map[string]string{"token_path": serviceAccountFolder + "/token"}
	for name, value := range i.withPrefix("auth-config-") {
		settings[strings.ReplaceAll(name, "-", "_")] = value
	}
	settings["role"] = i.text("role", "")
	method := map[string]any{
		"type":       i.text("auth-type", "kubernetes"),
		"mount_path": i.text("auth-path", "auth/kubernetes"),
		"config":     settings,
	}
	for setting, annotation := range map[string]string{
		"namespace": "namespace", "min_backoff": "auth-min-backoff",
		"max_backoff": "auth-max-backoff",
	} {
		if value := i.text(annotation, ""); value != "" {
			method[setting] = value
		}
	}
	return method
}

// templates returns a template for each secret.
func (i *injector) templates(t *testing.T) (all []map[string]any) {
	t.Helper()
	for name := range i.withPrefix("agent-inject-secret-") {
		require.Equal(t, strings.ToLower(name), name, "the injector would change it")
		all = append(all, map[string]any{
			"destination":          secretsFolder + "/" + name,
			"contents":             i.text("agent-inject-template-"+name, ""),
			"left_delimiter":       "{{",
			"right_delimiter":      "}}",
			"perms":                i.text("agent-inject-perms-"+name, ""),
			"error_on_missing_key": i.bool(t, "error-on-missing-key-"+name, false),
		})
	}
	return all
}

// environment returns what is not in the configuration.
func (i *injector) environment() (all []variable) {
	if retries := i.text("client-max-retries", ""); retries != "" {
		all = append(all, variable{"VAULT_MAX_RETRIES", retries})
	}
	return all
}

// The names of the injected containers.
const (
	agentInitContainer = "vault-agent-init"
	agentContainer     = "vault-agent"
)

// inject adds to a pod what the injector does: an init container, a sidecar unless only the former
// is wanted, and the folder for secrets.
func inject(t *testing.T, p *pod, annotations map[string]string) {
	t.Helper()
	i := newInjector(annotations)
	require.True(t, i.bool(t, "agent-inject", false))
	// OpenShift has assigned a user by then, which is the application's.
	require.True(t, i.bool(t, "agent-run-as-same-user", false), "the file is the Agent's user's")
	names := []string{agentInitContainer}
	if !i.bool(t, "agent-pre-populate-only", false) {
		names = append(names, agentContainer)
	}
	app := p.spec.Containers[0]
	for _, name := range names {
		home := "home of " + name
		config := i.config(t, name == agentInitContainer)
		p.volumes[home] = newVolume(t, map[string]string{"config.json": string(config)})
		p.spec.Containers = append(p.spec.Containers, container{
			Name: name, Command: []string{"vault", "agent", "-config=" + agentHome + "/config.json"},
			VolumeMounts: append(serviceAccountMounts(app), volumeMount{home, agentHome}),
			Env:          i.environment(),
		})
	}
	p.mountAll(secretsFolder, newVolume(t, nil))
	for _, resource := range []string{"limits-cpu", "limits-mem", "requests-cpu", "requests-mem"} {
		require.NotEmpty(t, i.text("agent-"+resource, ""), "the default is for a bigger quota")
	}
	for name := range annotations {
		require.True(t, i.used[name], "the injector has no annotation %s", name)
	}
}

// serviceAccountMounts returns what the injector copies from the application's container.
func serviceAccountMounts(app container) (mounts []volumeMount) {
	for _, m := range app.VolumeMounts {
		if m.MountPath == serviceAccountFolder {
			mounts = append(mounts, m)
		}
	}
	return mounts
}

// newInjectedPod creates the pod of app.yaml.
func newInjectedPod(
	t *testing.T, c *cluster, host string, sources volumeSources, parameters map[string]string,
) *pod {
	t.Helper()
	deployment := processTemplate(t, "app.yaml", parameters)["Deployment myapp"]
	template := deployment.Spec.Template
	template.requireRestricted(t)
	p := newPod(t, c, template.Spec, sources)
	p.host = host
	inject(t, p, template.Metadata.Annotations)
	return p
}

// runAgentInit runs the init container to its end.
func (p *pod) runAgentInit(t *testing.T) {
	t.Helper()
	result, err := harness.Run(p.command(t, agentInitContainer))
	require.NoError(t, err)
	harness.Detector().Record("the output of "+agentInitContainer, result.Stdout+result.Stderr)
	require.Zero(t, result.Code, "%s%s", result.Stdout, result.Stderr)
}

// start starts a container, until the test ends.
func (p *pod) start(t *testing.T, name string) *process {
	t.Helper()
	running := startProcess(t, p.command(t, name))
	t.Cleanup(func() {
		running.kill()
		harness.Detector().Record("the output of "+name, running.String())
	})
	return running
}

// accessToken returns the content of the application's file.
func (p *pod) accessToken(t *testing.T) string {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(p.volumes[secretsFolder], "access_token"))
	require.NoError(t, err)
	return string(content)
}
