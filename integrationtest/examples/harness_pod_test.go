package examples

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bcgov/vault-plugin-bcgov-jwt/integrationtest/harness"
)

// podTemplate is the pod of a workload.
type podTemplate struct {
	Metadata struct{ Labels, Annotations map[string]string }
	Spec     podSpec
}

type podSpec struct {
	ServiceAccountName           string
	AutomountServiceAccountToken bool
	SecurityContext              struct {
		RunAsNonRoot   bool
		SeccompProfile struct{ Type string }
	}
	InitContainers, Containers []container
	Volumes                    []volume
}

type container struct {
	Name            string
	Command, Args   []string
	Env             []variable
	VolumeMounts    []volumeMount
	Resources       struct{ Limits map[string]string }
	SecurityContext struct {
		AllowPrivilegeEscalation *bool
		ReadOnlyRootFilesystem   bool
		Capabilities             struct{ Drop []string }
	}
}

type variable struct{ Name, Value string }

type volumeMount struct{ Name, MountPath string }

type volume struct {
	Name      string
	ConfigMap struct{ Name string }
	Secret    struct{ SecretName string }
	Projected struct {
		Sources []struct {
			ServiceAccountToken struct{ Path, Audience string }
		}
	}
	PersistentVolumeClaim struct{ ClaimName string }
	EmptyDir              *struct{ Medium string }
	Image                 struct{ Reference string }
}

// serviceAccountFolder is where a pod finds the token of its service account.
const serviceAccountFolder = "/var/run/secrets/kubernetes.io/serviceaccount"

// enterContainer replaces the shell by a command that sees the folder $1 as its root, with folders
// mounted there (pairs of source and target, until --), in a mount namespace of its own.
const enterContainer = `root=$1; shift
while [ "$1" != -- ]; do mount --rbind "$1" "$root$2"; shift 2; done; shift
exec chroot "$root" "$@"`

// projectUser is what OpenShift's restricted-v2 runs a container as: a user of the project's range,
// of the group root, with the project's group for its volumes.
const projectUser = 1000640000

// pod runs the containers of a pod's specification as they stand: their commands find the volumes,
// the environment and the service account's token where the kubelet would put them. Instead of the
// container's image they see this machine's programs.
type pod struct {
	cluster *cluster
	spec    podSpec
	host    string            // the only name that resolves, to this machine
	volumes map[string]string // folders by the volume's name
	// environment is what else a container has.
	environment []string
}

// volumeSources holds the contents of what a pod's volumes refer to, by name.
type volumeSources struct {
	configMaps, secrets map[string]map[string]string
	claims, images      map[string]string // folders
}

// newPod creates the volumes of a pod.
func newPod(t *testing.T, c *cluster, spec podSpec, sources volumeSources) *pod {
	t.Helper()
	if runtime.GOOS != "linux" {
		t.Skip("containers need Linux")
	}
	p := &pod{cluster: c, spec: spec, volumes: map[string]string{}}
	for _, v := range spec.Volumes {
		p.volumes[v.Name] = p.newVolume(t, v, sources)
	}
	if spec.AutomountServiceAccountToken {
		p.mountAll(serviceAccountFolder, newVolume(t, map[string]string{
			"token":          c.token(t, spec.ServiceAccountName, []string{clusterIssuer}),
			"ca.crt":         c.certificate,
			"service-ca.crt": sources.configMaps[serviceCA][serviceCAFile],
			"namespace":      c.namespace,
		}))
	}
	return p
}

// serviceCA is a ConfigMap that OpenShift creates in each project, with one file.
const (
	serviceCA     = "openshift-service-ca.crt"
	serviceCAFile = "service-ca.crt"
)

// mountAll mounts a folder in all containers.
func (p *pod) mountAll(path, folder string) {
	p.volumes[path] = folder
	for i := range p.spec.Containers {
		mounts := &p.spec.Containers[i].VolumeMounts
		*mounts = append(*mounts, volumeMount{Name: path, MountPath: path})
	}
}

func (p *pod) newVolume(t *testing.T, v volume, sources volumeSources) (folder string) {
	t.Helper()
	switch {
	case v.ConfigMap.Name != "":
		require.Contains(t, sources.configMaps, v.ConfigMap.Name)
		return newVolume(t, sources.configMaps[v.ConfigMap.Name])
	case v.Secret.SecretName != "":
		require.Contains(t, sources.secrets, v.Secret.SecretName)
		return newVolume(t, sources.secrets[v.Secret.SecretName])
	case v.PersistentVolumeClaim.ClaimName != "":
		require.Contains(t, sources.claims, v.PersistentVolumeClaim.ClaimName)
		return sources.claims[v.PersistentVolumeClaim.ClaimName]
	case v.Image.Reference != "":
		require.Contains(t, sources.images, v.Image.Reference)
		return sources.images[v.Image.Reference]
	case len(v.Projected.Sources) > 0:
		files := map[string]string{}
		for _, source := range v.Projected.Sources {
			token := source.ServiceAccountToken
			files[token.Path] = p.cluster.token(t, p.spec.ServiceAccountName,
				[]string{token.Audience})
		}
		return newVolume(t, files)
	default:
		require.NotNil(t, v.EmptyDir, "volume %s", v.Name)
		return newVolume(t, nil)
	}
}

// newVolume creates a folder that the project's user may write to, with read-only files.
func newVolume(t *testing.T, files map[string]string) (folder string) {
	t.Helper()
	folder = t.TempDir()
	for name, content := range files {
		require.NoError(t, os.WriteFile(filepath.Join(folder, name), []byte(content), 0o600))
		giveToProject(t, filepath.Join(folder, name), 0o440)
	}
	giveToProject(t, folder, 0o770|os.ModeSetgid)
	return folder
}

// giveToProject makes a file one of the project's group, if this user may.
func giveToProject(t *testing.T, path string, mode os.FileMode) {
	t.Helper()
	if os.Geteuid() == 0 {
		require.NoError(t, os.Chown(path, 0, projectUser))
	}
	require.NoError(t, os.Chmod(path, mode))
}

// command returns a container's command.
func (p *pod) command(t *testing.T, containerName string) *exec.Cmd {
	t.Helper()
	all := slices.Concat(p.spec.InitContainers, p.spec.Containers)
	i := slices.IndexFunc(all, func(c container) bool { return c.Name == containerName })
	require.GreaterOrEqual(t, i, 0, "container %s does not exist", containerName)
	c := all[i]
	return p.run(t, c, append(slices.Clone(c.Command), c.Args...)...)
}

// exec returns a command in a container of its own that is like the first one, as that of oc exec.
func (p *pod) exec(t *testing.T, command ...string) *exec.Cmd {
	t.Helper()
	return p.run(t, p.spec.Containers[0], command...)
}

// run returns a command in a container. Like restricted-v2, it refuses what may gain privileges.
func (p *pod) run(t *testing.T, c container, command ...string) *exec.Cmd {
	t.Helper()
	root := t.TempDir()
	mounts := p.mountSystem(t, root)
	for _, m := range c.VolumeMounts {
		folder, exists := p.volumes[m.Name]
		require.True(t, exists, "volume %s does not exist", m.Name)
		mounts = append(mounts, mountPoint(t, root, folder, m.MountPath)...)
	}
	flags, privileges := []string{"--mount"}, []string{"--no-new-privs", "--pdeathsig=KILL"}
	if os.Geteuid() == 0 {
		user := strconv.Itoa(projectUser)
		privileges = append(privileges, "--reuid="+user, "--regid=0", "--groups="+user,
			"--bounding-set=-all", "--inh-caps=-all")
	} else {
		flags = append(flags, "--user", "--map-root-user")
	}
	args := slices.Concat(flags, []string{"sh", "-euc", enterContainer, "sh", root}, mounts,
		[]string{"--", "setpriv"}, privileges, []string{"--"}, command)
	cmd := harness.Vault().Command(t.Context(), "unshare", args...)
	cmd.Env = append([]string{"PATH=/opt/bin:" + os.Getenv("PATH"), "HOME=/home"},
		p.environment...)
	for _, variable := range c.Env {
		cmd.Env = append(cmd.Env, variable.Name+"="+variable.Value)
	}
	cmd.SysProcAttr.Setpgid = true // so that all of it can be stopped
	return cmd
}

// mountSystem prepares a root with this machine's programs, the host's as vault and bao, where
// nothing can be written.
func (p *pod) mountSystem(t *testing.T, root string) (mounts []string) {
	t.Helper()
	require.NoError(t, os.Chmod(root, 0o755))
	system := []string{"/usr", "/bin", "/sbin", "/lib", "/lib64", "/etc", "/proc", "/dev"}
	for _, folder := range system {
		info, err := os.Lstat(folder)
		switch {
		case os.IsNotExist(err):
		case err == nil && info.Mode()&os.ModeSymlink != 0:
			target, err := os.Readlink(folder)
			require.NoError(t, err)
			require.NoError(t, os.Symlink(target, root+folder))
		default:
			require.NoError(t, err)
			mounts = append(mounts, mountPoint(t, root, folder, folder)...)
		}
	}
	hosts := filepath.Join(t.TempDir(), "hosts")
	content := "127.0.0.1 localhost " + p.host + "\n"
	require.NoError(t, os.WriteFile(hosts, []byte(content), 0o600))
	require.NoError(t, os.Chmod(hosts, 0o644))
	mounts = append(mounts, hosts, "/etc/hosts")
	for name, binary := range p.programs(t) {
		resolved, err := filepath.EvalSymlinks(binary)
		require.NoError(t, err)
		require.NoError(t, os.MkdirAll(root+"/opt/bin", 0o755))
		require.NoError(t, os.WriteFile(root+"/opt/bin/"+name, nil, 0o755))
		mounts = append(mounts, resolved, "/opt/bin/"+name)
	}
	return mounts
}

// programs returns what the images of Vault and OpenBao have.
func (*pod) programs(t *testing.T) map[string]string {
	t.Helper()
	return map[string]string{"vault": harness.Vault().Binary, "bao": openBao(t)}
}

// mountPoint creates a folder in a root, and returns what enterContainer mounts there.
func mountPoint(t *testing.T, root, folder, path string) (mount []string) {
	t.Helper()
	require.NoError(t, os.MkdirAll(root+path, 0o755))
	return []string{folder, path}
}

// openBao returns the path of a real bao, whichever host the tests run on.
func openBao(t *testing.T) string {
	t.Helper()
	script := exec.CommandContext(t.Context(), harness.InRepository("scripts/openbao.sh"))
	script.Stderr = os.Stderr // it says if that takes minutes
	path, err := script.Output()
	require.NoError(t, err)
	return strings.TrimSpace(string(path))
}

// newServingCertificate creates what OpenShift creates for a Service. The certificate is its own
// authority.
func newServingCertificate(t *testing.T, host string) (certificate, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: host}, DNSNames: []string{host},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	require.NoError(t, err)
	pkcs8, err := x509.MarshalPKCS8PrivateKey(private)
	require.NoError(t, err)
	certificate = string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	key = string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8}))
	return certificate, key
}

// kubernetesEnvironment returns the variables with which a pod finds the API server.
func kubernetesEnvironment(t *testing.T, address string) []string {
	t.Helper()
	host, port, err := net.SplitHostPort(address)
	require.NoError(t, err)
	return []string{
		fmt.Sprint("KUBERNETES_SERVICE_HOST=", host), fmt.Sprint("KUBERNETES_SERVICE_PORT=", port),
	}
}
