package examples

import (
	"crypto/rand"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bcgov/vault-plugin-bcgov-jwt/integrationtest/harness"
)

// TestMirror_RotationFailsNoRead rotates three times by the schedule while creds is read all the
// time. Keycloak knows the mirror's URL alone, and during the second rotation the mirror stands
// still for longer than prepublish_period.
func TestMirror_RotationFailsNoRead(t *testing.T) {
	t.Parallel()
	const (
		delay = 15 * time.Second
		// The next copy, two tries 11 s apart of which the first may come too early for Keycloak,
		// and what a busy machine adds.
		acceptTimeout = time.Minute
	)
	kc := harness.Keycloak(t)
	m := harness.NewMount(t, kc.Config)
	m.Write(t, "config", map[string]any{"request_timeout": "30s"}) // on a busy machine
	name, file := "mirrored-"+rand.Text(), filepath.Join(t.TempDir(), "jwks.json")
	var fetches atomic.Int64
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fetches.Add(1)
		http.ServeFile(w, r, file)
	}))
	t.Cleanup(server.Close)
	m.NewJWKSClient(t, kc, name, server.URL, map[string]any{"prepublish_period": delay.String()})
	source := harness.Vault().URL() + m.Read(t, "keys/"+name).Text(t, "jwks_path")
	requireCopied(t, source, file)
	mirror := startMirrorTimer(t, source, file)
	reads := m.StartLoad(t, name)
	m.EventuallyAccepted(t, name, 1, acceptTimeout)

	requireSigns := func(version int) {
		t.Helper()
		require.Equal(t, m.Versions(t, name).Version(t, version, "key_id"),
			m.Read(t, "creds/"+name).Text(t, "key_id"))
	}
	rotate := func(version int) {
		t.Helper()
		rotated := m.Write(t, "keys/"+name+"/rotate", nil)
		require.Equal(t, version, rotated.Number(t, "staged_version"))
		requireSigns(version - 1)
	}
	rotate(2)
	m.EventuallyAccepted(t, name, 2, delay+acceptTimeout)
	requireSigns(2)

	mirror.stopped.Store(true)
	rotate(3)
	before := fetches.Load()
	m.EventuallyActive(t, name, 3, delay+acceptTimeout)
	require.Eventually(t, func() bool { return fetches.Load() > before }, acceptTimeout,
		100*time.Millisecond, "Keycloak does not fetch")
	requireSigns(2)
	require.Empty(t, m.Versions(t, name).Version(t, 3, "accepted_time"))
	mirror.stopped.Store(false)
	m.EventuallyAccepted(t, name, 3, acceptTimeout)
	requireSigns(3)

	rotate(4)
	m.EventuallyAccepted(t, name, 4, delay+acceptTimeout)
	requireSigns(4)
	harness.Sleep(t, time.Second)
	reads.End(t)
	require.Empty(t, mirror.failures)
}

// TestMirror_CopiesEachKeyType copies key sets of two versions from Vault to each kind of target.
func TestMirror_CopiesEachKeyType(t *testing.T) {
	t.Parallel()
	m := harness.NewMount(t, nil)
	file := filepath.Join(t.TempDir(), "jwks.json")
	store, api := newObjectStore(t), newKubernetesAPI(t)
	for i, keyType := range []string{
		"rsa-2048", "rsa-4096", "ecdsa-p256", "ecdsa-p384", "ecdsa-p521", "ed25519",
	} {
		m.Write(t, "keys/"+keyType, map[string]any{"type": keyType, "registration": "jwks"})
		key := m.Write(t, "keys/"+keyType+"/rotate", nil)
		source := harness.Vault().URL() + key.Text(t, "jwks_path")
		keySet := m.Read(t, "keys/"+keyType+"/jwks").Text(t, "jwks")

		requireCopied(t, source, file)
		requireFile(t, file, keySet+"\n")

		requireCopied(t, source, store.target, store.environment...)
		sent := store.received()
		require.Len(t, sent, i+1)
		require.Equal(t, "PUT /bucket/jwks.json", sent[i].method+" "+sent[i].path)
		require.Equal(t, "Bearer "+uploadToken, sent[i].header.Get("Authorization"))
		require.Equal(t, "application/jwk-set+json", sent[i].header.Get("Content-Type"))
		require.Equal(t, keySet, sent[i].body)

		requireCopied(t, source, api.target, api.environment...)
		sent = api.received()
		require.Len(t, sent, i+1)
		requirePatch(t, sent[i], keySet)
	}
}

// TestMirror_UnchangedKeySetIsNotCopied copies twice.
func TestMirror_UnchangedKeySetIsNotCopied(t *testing.T) {
	t.Parallel()
	source := serveKeySet(t, respondWith(http.StatusOK, goodKeySet))
	file := filepath.Join(t.TempDir(), "jwks.json")
	requireCopied(t, source, file)
	first, err := os.Stat(file)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o644), first.Mode(), "the web server is another user")
	requireCopied(t, source, file)
	second, err := os.Stat(file)
	require.NoError(t, err)
	require.True(t, os.SameFile(first, second))

	store := newObjectStore(t)
	public := httptest.NewServer(store)
	t.Cleanup(public.Close)
	environment := append(store.environment, "PUBLIC_URL="+public.URL)
	for range 2 {
		requireCopied(t, source, store.target, environment...)
		require.Len(t, store.received(), 1)
	}
	requireCopied(t, source, store.target, store.environment...)
	require.Len(t, store.received(), 2, "what the store has is not known")
}

// TestMirror_FileIsReplaced requires that a web server never sees part of a copy: who has opened
// the old one reads the old one.
func TestMirror_FileIsReplaced(t *testing.T) {
	t.Parallel()
	source := serveKeySet(t, respondWith(http.StatusOK, goodKeySet))
	file := filepath.Join(t.TempDir(), "jwks.json")
	require.NoError(t, os.WriteFile(file, []byte("the old copy"), 0o600))
	opened, err := os.Open(file)
	require.NoError(t, err)
	defer opened.Close()
	requireCopied(t, source, file)
	content, err := io.ReadAll(opened)
	require.NoError(t, err)
	require.Equal(t, "the old copy", string(content))
	requireFile(t, file, goodKeySet+"\n")
}

// TestMirror_PrivateAuthority copies from a server with a certificate of a private authority.
func TestMirror_PrivateAuthority(t *testing.T) {
	t.Parallel()
	server := httptest.NewUnstartedServer(respondWith(http.StatusOK, goodKeySet))
	server.Config.ErrorLog = log.New(io.Discard, "", 0) // the script refuses the certificate
	server.StartTLS()
	t.Cleanup(server.Close)
	file := filepath.Join(t.TempDir(), "jwks.json")
	requireNotCopied(t, "SSL certificate problem", server.URL, file)
	requireCopied(t, server.URL, file, "VAULT_CACERT="+certificateOf(t, server))
	requireFile(t, file, goodKeySet+"\n")
}

// TestMirror_KeepsCopy requires of whatever may stand in place of a key set that it replaces no
// copy.
func TestMirror_KeepsCopy(t *testing.T) {
	t.Parallel()
	ok := func(body string) http.HandlerFunc { return respondWith(http.StatusOK, body) }
	member := func(old, replaced string) http.HandlerFunc {
		require.Contains(t, goodKeySet, old)
		return ok(strings.Replace(goodKeySet, old, replaced, 1))
	}
	const noKeySet = "the response is not a key set"
	for response, c := range map[string]struct {
		handler http.HandlerFunc
		want    string
	}{
		"404 of a deleted key":     {respondWith(http.StatusNotFound, `{"errors":[]}`), "error: 404"},
		"503 of a sealed Vault":    {respondWith(http.StatusServiceUnavailable, `{"errors":["Vault is sealed"]}`), "error: 503"},
		"503 with a key set":       {respondWith(http.StatusServiceUnavailable, goodKeySet), "error: 503"},
		"203 of a proxy":           {respondWith(http.StatusNonAuthoritativeInfo, goodKeySet), "HTTP 203"},
		"a page":                   {ok("<html>\n<body>Log in</body>\n</html>\n"), noKeySet},
		"nothing":                  {ok(""), noKeySet},
		"an empty key set":         {ok(`{"keys":[]}`), noKeySet},
		"no key set":               {ok(`{"errors":["permission denied"]}`), noKeySet},
		"a key without members":    {ok(`{"keys":[{}]}`), noKeySet},
		"a key without a type":     {member(`"kty":"OKP",`, ""), noKeySet},
		"a list":                   {ok("[" + goodKeySet + "]"), noKeySet},
		"a key set of one key":     {ok(strings.TrimSuffix(strings.TrimPrefix(goodKeySet, `{"keys":[`), "]}")), noKeySet},
		"two key sets":             {ok(goodKeySet + "\n" + goodKeySet), noKeySet},
		"more after the key set":   {ok(goodKeySet + "\n<!-- proxy -->"), noKeySet},
		"a byte 0 in the key set":  {member(`"kty"`, "\x00\"kty\""), noKeySet},
		"a comma too many":         {member(`,"x"`, `,,"x"`), noKeySet},
		"a private key":            {member(`"x":`, `"d":"nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A","x":`), "holds a private key"},
		"a symmetric key":          {ok(`{"keys":[{"kty":"oct","k":"AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T"}]}`), noKeySet},
		"half of a key set":        {ok(goodKeySet[:len(goodKeySet)/2]), noKeySet},
		"a connection that breaks": {breakOff, "transfer closed"},
		"more than a key set":      {ok(`{"keys":[{"kty":"` + strings.Repeat("A", 1<<20) + `"}]}`), "larger than"},
		"a redirect to a key set":  {redirectToKeySet, "HTTP 302"},
		"no response":              {func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, "Empty reply"},
		"no end":                   {stall, "timed out"},
	} {
		t.Run(response, func(t *testing.T) {
			t.Parallel()
			source := serveKeySet(t, c.handler)
			t.Run("file", func(t *testing.T) {
				t.Parallel()
				folder := t.TempDir()
				file := filepath.Join(folder, "jwks.json")
				require.NoError(t, os.WriteFile(file, []byte("the old copy"), 0o600))
				requireNotCopied(t, c.want, source, file)
				requireFile(t, file, "the old copy")
				entries, err := os.ReadDir(folder)
				require.NoError(t, err)
				require.Len(t, entries, 1)
			})
			for target, newServer := range map[string]func(*testing.T) *uploadServer{
				"object store": newObjectStore, "ConfigMap": newKubernetesAPI,
			} {
				t.Run(target, func(t *testing.T) {
					t.Parallel()
					s := newServer(t)
					requireNotCopied(t, c.want, source, s.target, s.environment...)
					require.Empty(t, s.received())
				})
			}
		})
	}
}

// TestMirror_TargetFails requires that a target that cannot be written to is named, without what a
// presigned URL would reveal.
func TestMirror_TargetFails(t *testing.T) {
	t.Parallel()
	source := serveKeySet(t, respondWith(http.StatusOK, goodKeySet))
	folder := t.TempDir()
	requireNotCopied(t, folder+" is a folder", source, folder)
	missing := filepath.Join(folder, "missing", "jwks.json")
	requireNotCopied(t, missing+" could not be written", source, missing)
	requireNotCopied(t, "https:// is required", source, "http://127.0.0.1/jwks.json")
	requireNotCopied(t, "https:// is required", "http://vault.example.com/", folder+"/jwks.json")
	requireNotCopied(t, "https:// is required", "file:///etc/passwd", folder+"/jwks.json")
	for status, want := range map[int]string{
		http.StatusForbidden: "error: 403", http.StatusTemporaryRedirect: "HTTP 307",
	} {
		for _, s := range []*uploadServer{newObjectStore(t), newKubernetesAPI(t)} {
			s.fail(status)
			result := runMirror(t, source, s.target+"?signature=secret", s.environment...)
			require.Equal(t, 1, result.Code)
			require.Contains(t, result.Stderr, "mirror.sh: nothing copied: "+s.target+": ")
			require.Contains(t, result.Stderr, want)
			require.NotContains(t, result.Stderr, "secret")
			require.NotContains(t, result.Stderr, uploadToken)
		}
	}
	requireNotCopied(t, folder+"/token could not be read", source, "https://127.0.0.1"+configMapPath,
		"SERVICE_ACCOUNT="+folder)
	refused := "https://" + closedAddress(t)
	requireNotCopied(t, "Failed to connect", source, refused)
	requireNotCopied(t, "Failed to connect", refused, filepath.Join(folder, "jwks.json"))
}

// TestMirror_ManifestsPublishKeySet runs the container of the CronJob as it stands, and requires
// that the other resources serve what it writes.
func TestMirror_ManifestsPublishKeySet(t *testing.T) {
	t.Parallel()
	check := buildManifestCheck(t)
	all := mirrorManifests(t, check)
	require.Len(t, all, 12)

	job := all["CronJob jwks-mirror"].Spec.JobTemplate.Spec.Template
	server := all["Deployment jwks-server"].Spec.Template
	job.requireRestricted(t)
	server.requireRestricted(t)
	require.True(t, job.Spec.AutomountServiceAccountToken)
	require.False(t, server.Spec.AutomountServiceAccountToken)
	role := all["Role "+job.Spec.ServiceAccountName]
	require.Len(t, role.Rules, 1)
	require.Equal(t, []string{"patch"}, role.Rules[0].Verbs)
	require.Equal(t, []string{"configmaps"}, role.Rules[0].Resources)
	require.Len(t, role.Rules[0].ResourceNames, 1)
	copied := role.Rules[0].ResourceNames[0]
	require.Equal(t, path.Base(configMapPath), copied)
	require.Contains(t, all, "ConfigMap "+copied)
	require.Contains(t, all["ConfigMap jwks-server"].Data["nginx.conf"],
		"alias "+server.folderOf(t, copied)+"/jwks.json;")
	require.Contains(t, all, "Service "+all["Route jwks"].Spec.To.Name)

	// README.md creates the ConfigMap from the script that the tests run.
	readme, err := os.ReadFile(example("jwks-mirror/README.md"))
	require.NoError(t, err)
	require.Contains(t, string(readme), "create configmap jwks-mirror --from-file=mirror.sh\n")
	command := job.Spec.Containers[0].Command
	require.Equal(t, []string{"sh", job.folderOf(t, "jwks-mirror") + "/mirror.sh"}, command[:2])

	api := newKubernetesAPI(t)
	variables := []string{
		"https://kubernetes.default.svc", api.url, "$(NAMESPACE)", "myapp",
		"$(JWKS_URL)", serveKeySet(t, respondWith(http.StatusOK, goodKeySet)),
	}
	expand := strings.NewReplacer(variables...).Replace
	require.Len(t, command, 4)
	requireCopied(t, expand(command[2]), expand(command[3]), api.environment...)
	sent := api.received()
	require.Len(t, sent, 1)
	requirePatch(t, sent[0], goodKeySet)
}

// TestMirror_ManifestCheckFindsMistakes changes the manifests.
func TestMirror_ManifestCheckFindsMistakes(t *testing.T) {
	t.Parallel()
	check := buildManifestCheck(t)
	content, err := os.ReadFile(example("jwks-mirror/openshift.yaml"))
	require.NoError(t, err)
	for mistake, c := range map[string]struct{ old, new, want string }{
		"a field that no version has": {"concurrencyPolicy:", "concurrency:", "at '/spec': additional properties 'concurrency'"},
		"a field in the wrong place":  {"  replicas: 2", "  replicas: 2\n  restartPolicy: Always", "at '/spec': additional properties 'restartPolicy'"},
		"other capitals":              {"readinessProbe:", "readinessprobe:", "additional properties 'readinessprobe'"},
		"a value of another type":     {"replicas: 2", "replicas: two", "/spec/replicas': got string, want integer"},
		"a required field left out":   {"    verbs: [patch]\n", "", "at '/rules/0': missing property 'verbs'"},
		"a kind with other capitals":  {"kind: CronJob", "kind: Cronjob", "value must be 'CronJob'"},
		"no quantity":                 {"memory: 64Mi", "memory: 64MB", "/limits/memory': '64MB' does not match"},
		"a field twice":               {"  minAvailable: 1", "  minAvailable: 1\n  minAvailable: 2", "already set"},
		"a version that is not there": {"apiVersion: batch/v1\n", "apiVersion: batch/v3\n", "could not find schema for CronJob"},
		"a value that is not listed":  {"termination: edge", "termination: egde", "/spec/tls/termination': value must be one of"},
		"an unknown field of a Route": {"  wildcardPolicy: None", "  wildcardPolicy: None\n  ports: []", "at '/spec': additional properties 'ports'"},
	} {
		t.Run(mistake, func(t *testing.T) {
			t.Parallel()
			require.Contains(t, string(content), c.old)
			file := filepath.Join(t.TempDir(), "openshift.yaml")
			changed := strings.Replace(string(content), c.old, c.new, 1)
			require.NoError(t, os.WriteFile(file, []byte(changed), 0o600))
			_, err := check.run(t, file)
			require.ErrorContains(t, err, c.want)
		})
	}
}

// TestMirror_UnitsRunScript requires that the timer starts the service, and that the service may
// write where the script is to.
func TestMirror_UnitsRunScript(t *testing.T) {
	t.Parallel()
	service, err := os.ReadFile(example("jwks-mirror/jwks-mirror.service"))
	require.NoError(t, err)
	require.FileExists(t, example("jwks-mirror/jwks-mirror.timer"))
	settings := map[string]string{}
	for line := range strings.Lines(string(service)) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		settings[name] = value
	}
	command := strings.Fields(settings["ExecStart"])
	require.Len(t, command, 3)
	require.Equal(t, "mirror.sh", path.Base(command[0]))
	require.Equal(t, settings["ReadWritePaths"], path.Dir(command[2]))
}
