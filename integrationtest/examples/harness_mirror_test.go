package examples

import (
	"bytes"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bcgov/vault-plugin-bcgov-jwt/integrationtest/harness"
)

// goodKeySet is a key set as Vault publishes it, of an Ed25519 key.
const goodKeySet = `{"keys":[{"use":"sig","kty":"OKP",` +
	`"kid":"kYeX7RIv_Jl-2Qv8zJmHFFwEkUuHvhbb1Eh7JRTVRi0","crv":"Ed25519","alg":"EdDSA",` +
	`"x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}`

// runMirror runs mirror.sh once, and records what it printed.
func runMirror(t *testing.T, url, target string, environment ...string) harness.CommandResult {
	t.Helper()
	result := runScript(t, environment, example("jwks-mirror/mirror.sh"), url, target)
	harness.Detector().Record("the output of mirror.sh", result.Stdout+result.Stderr)
	return result
}

// requireCopied requires that mirror.sh succeeds, and prints nothing.
func requireCopied(t *testing.T, url, target string, environment ...string) {
	t.Helper()
	require.Equal(t, harness.CommandResult{}, runMirror(t, url, target, environment...))
}

// requireNotCopied requires that mirror.sh fails with one line that contains a text.
func requireNotCopied(t *testing.T, want, url, target string, environment ...string) {
	t.Helper()
	result := runMirror(t, url, target, environment...)
	require.Equal(t, 1, result.Code, result.Stderr)
	require.Empty(t, result.Stdout)
	require.Equal(t, 1, strings.Count(result.Stderr, "\n"), result.Stderr)
	require.Contains(t, result.Stderr, "mirror.sh: nothing copied: ")
	require.Contains(t, result.Stderr, want)
}

// upload is a request that a mirror sent.
type upload struct {
	method, path string
	header       http.Header
	body         string
}

// uploadServer stands for an object store, which serves what it was sent, or for the Kubernetes
// API.
type uploadServer struct {
	url         string
	target      string   // what mirror.sh may write to
	environment []string // with which it may

	mu      sync.Mutex
	uploads []upload
	status  int // of the response to an upload; 0 for 200
}

func (s *uploadServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case err != nil:
		w.WriteHeader(http.StatusBadRequest)
	case r.Method == http.MethodGet && len(s.uploads) == 0:
		w.WriteHeader(http.StatusNotFound)
	case r.Method == http.MethodGet:
		_, _ = io.WriteString(w, s.uploads[len(s.uploads)-1].body)
	case s.status != 0:
		w.WriteHeader(s.status)
	default:
		s.uploads = append(s.uploads, upload{r.Method, r.URL.Path, r.Header, string(body)})
	}
}

// received returns the uploads so far.
func (s *uploadServer) received() []upload {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.uploads
}

func (s *uploadServer) fail(status int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.status = status
}

func (s *uploadServer) serve(t *testing.T) (certificateFile string) {
	t.Helper()
	server := httptest.NewTLSServer(s)
	t.Cleanup(server.Close)
	s.url = server.URL
	return certificateOf(t, server)
}

// certificateOf writes a server's certificate to a file.
func certificateOf(t *testing.T, server *httptest.Server) (file string) {
	t.Helper()
	file = filepath.Join(t.TempDir(), "ca.crt")
	block := &pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}
	require.NoError(t, os.WriteFile(file, pem.EncodeToMemory(block), 0o600))
	return file
}

const uploadToken = "token-of-the-mirror"

func newObjectStore(t *testing.T) *uploadServer {
	t.Helper()
	s := &uploadServer{}
	config := fmt.Sprintf("cacert = %q\nheader = %q\n", s.serve(t),
		"Authorization: Bearer "+uploadToken)
	file := filepath.Join(t.TempDir(), "put.conf")
	require.NoError(t, os.WriteFile(file, []byte(config), 0o600))
	s.target, s.environment = s.url+"/bucket/jwks.json", []string{"PUT_CONFIG=" + file}
	return s
}

// configMapPath is where the Kubernetes API has the ConfigMap jwks of a namespace myapp.
const configMapPath = "/api/v1/namespaces/myapp/configmaps/jwks"

func newKubernetesAPI(t *testing.T) *uploadServer {
	t.Helper()
	s := &uploadServer{}
	account := filepath.Dir(s.serve(t))
	require.NoError(t, os.WriteFile(filepath.Join(account, "token"), []byte(uploadToken), 0o600))
	s.target, s.environment = s.url+configMapPath, []string{"SERVICE_ACCOUNT=" + account}
	return s
}

// requirePatch requires that a mirror merges only the key set into the data of a ConfigMap.
func requirePatch(t *testing.T, sent upload, keySet string) {
	t.Helper()
	require.Equal(t, http.MethodPatch, sent.method)
	require.Equal(t, configMapPath, sent.path)
	require.Equal(t, "application/merge-patch+json", sent.header.Get("Content-Type"))
	require.Equal(t, "Bearer "+uploadToken, sent.header.Get("Authorization"))
	want, err := json.Marshal(map[string]any{"data": map[string]string{"jwks.json": keySet}})
	require.NoError(t, err)
	require.JSONEq(t, string(want), sent.body)
}

// serveKeySet serves what stands at the URL of a key set.
func serveKeySet(t *testing.T, handler http.HandlerFunc) (url string) {
	t.Helper()
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	return server.URL
}

// respondWith returns a handler that responds with a status and a body.
func respondWith(status int, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}
}

// breakOff closes the connection in the middle of a key set.
func breakOff(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Length", strconv.Itoa(len(goodKeySet)))
	_, _ = io.WriteString(w, goodKeySet[:len(goodKeySet)/2])
	_ = http.NewResponseController(w).Flush()
	panic(http.ErrAbortHandler)
}

// stall sends a key set and does not end the response.
func stall(w http.ResponseWriter, r *http.Request) {
	_, _ = io.WriteString(w, goodKeySet)
	_ = http.NewResponseController(w).Flush()
	<-r.Context().Done()
}

func redirectToKeySet(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/" {
		http.Redirect(w, r, "/jwks.json", http.StatusFound)
		return
	}
	_, _ = io.WriteString(w, goodKeySet)
}

// closedAddress returns an address at which nothing listens.
func closedAddress(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	require.NoError(t, listener.Close())
	return listener.Addr().String()
}

func requireFile(t *testing.T, file, want string) {
	t.Helper()
	content, err := os.ReadFile(file)
	require.NoError(t, err)
	require.Equal(t, want, string(content))
}

// mirrorTimer runs mirror.sh every two seconds, as a systemd timer does every minute.
type mirrorTimer struct {
	stopped  atomic.Bool
	failures chan string
}

func startMirrorTimer(t *testing.T, url, target string) *mirrorTimer {
	t.Helper()
	timer := &mirrorTimer{failures: make(chan string, 100)}
	script := example("jwks-mirror/mirror.sh")
	done := make(chan struct{})
	go func() {
		defer close(done)
		for tick := time.NewTicker(2 * time.Second); ; {
			select {
			case <-t.Context().Done():
				tick.Stop()
				return
			case <-tick.C:
				if !timer.stopped.Load() {
					timer.run(harness.Run(harness.Vault().Command(t.Context(), script, url, target)))
				}
			}
		}
	}()
	t.Cleanup(func() { <-done })
	return timer
}

func (m *mirrorTimer) run(result harness.CommandResult, err error) {
	output := result.Stdout + result.Stderr
	harness.Detector().Record("the output of mirror.sh", output)
	if err != nil || result.Code != 0 {
		m.failures <- errors.Join(err, errors.New(output)).Error()
	}
}

// mirrorManifest holds what the tests need of the resources that publish a key set at a Route.
type mirrorManifest struct {
	Kind     string
	Metadata struct{ Name string }
	Data     map[string]string
	Rules    []struct{ Resources, ResourceNames, Verbs []string }
	Spec     struct {
		JobTemplate struct {
			Spec struct{ Template podTemplate }
		}
		Template podTemplate
		To       struct{ Name string }
	}
}

// folderOf returns where the one container sees a ConfigMap.
func (p podTemplate) folderOf(t *testing.T, configMap string) string {
	t.Helper()
	for _, volume := range p.Spec.Volumes {
		for _, mount := range p.Spec.Containers[0].VolumeMounts {
			if volume.ConfigMap.Name == configMap && volume.Name == mount.Name {
				return mount.MountPath
			}
		}
	}
	require.Fail(t, "no volume of the ConfigMap", configMap)
	return ""
}

// requireRestricted requires what OpenShift's restricted-v2 demands without filling it in itself,
// and what it would fill in.
func (p podTemplate) requireRestricted(t *testing.T) {
	t.Helper()
	require.True(t, p.Spec.SecurityContext.RunAsNonRoot)
	require.Equal(t, "RuntimeDefault", p.Spec.SecurityContext.SeccompProfile.Type)
	require.Len(t, p.Spec.Containers, 1)
	p.Spec.Containers[0].requireRestricted(t)
}

func (c container) requireRestricted(t *testing.T) {
	t.Helper()
	require.Equal(t, []string{"ALL"}, c.SecurityContext.Capabilities.Drop)
	require.Equal(t, new(bool), c.SecurityContext.AllowPrivilegeEscalation)
	require.True(t, c.SecurityContext.ReadOnlyRootFilesystem)
	require.Contains(t, c.Resources.Limits, "memory")
}

// mirrorManifests returns the valid resources of openshift.yaml by kind and name.
func mirrorManifests(t *testing.T, check manifestCheck) map[string]mirrorManifest {
	t.Helper()
	documents, err := check.run(t, example("jwks-mirror/openshift.yaml"))
	require.NoError(t, err)
	all := map[string]mirrorManifest{}
	for line := range bytes.Lines(documents) {
		var next mirrorManifest
		require.NoError(t, json.Unmarshal(line, &next))
		all[next.Kind+" "+next.Metadata.Name] = next
	}
	return all
}
