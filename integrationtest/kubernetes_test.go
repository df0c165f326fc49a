package integrationtest

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	"github.com/hashicorp/vault/api"
	"github.com/stretchr/testify/require"
)

const exampleManifests = "../docs/examples/kubernetes"

// kubeletDelay is how long it may take until what is in a Secret is in a pod's volume: the kubelet syncs a pod every 60 to 90 s.
const kubeletDelay = 90 * time.Second

// The operators' groups of resources. Both have a VaultDynamicSecret.
const (
	vsoGroup          = "secrets.hashicorp.com"
	esoGroup          = "external-secrets.io"
	esoGeneratorGroup = "generators.external-secrets.io"
)

// manifest has, of all kinds of resources in the examples, what the tests need.
type manifest struct {
	APIVersion string
	Kind       string
	Metadata   struct{ Name, Namespace string }
	Spec       struct {
		// VaultAuth
		VaultConnectionRef string
		Method             string
		Kubernetes         struct {
			Role, ServiceAccount string
			Audiences            []string
		}
		// VaultDynamicSecret of the Vault Secrets Operator
		VaultAuthRef     string
		Mount            string
		Path             string
		AllowStaticCreds bool
		RenewalPercent   int
		Destination      struct {
			Transformation struct {
				ExcludeRaw bool
				Includes   []string
			}
		}
		// VaultDynamicSecret of the External Secrets Operator; Path too
		Provider struct {
			Auth struct{ Kubernetes esoSignIn }
		}
		// ExternalSecret
		RefreshInterval string
		Target          struct {
			Template struct{ Data map[string]string }
		}
		DataFrom []struct {
			SourceRef struct {
				GeneratorRef struct{ APIVersion, Kind, Name string }
			}
		}
	}
}

type esoSignIn struct {
	Role              string
	ServiceAccountRef struct {
		Name      string
		Audiences []string
	}
}

// TestKubernetesManifestsFitTheOperators checks the examples against the operators' own definitions of their resources.
func TestKubernetesManifestsFitTheOperators(t *testing.T) {
	t.Parallel()
	check := buildManifestCheck(t)
	files, err := filepath.Glob(exampleManifests + "/*.yaml")
	require.NoError(t, err)
	require.Len(t, check.manifests(t, files...), 6)

	for fault, c := range map[string]struct{ file, old, new, want string }{
		"a field that no version has": {"vso-leased.yaml", "renewalPercent:", "renewPercent:", "unknown field spec.renewPercent"},
		"a field in the wrong place":  {"vso-leased.yaml", "  renewalPercent: 67", "  excludeRaw: true", "unknown field spec.excludeRaw"},
		"a value out of range":        {"vso-leased.yaml", "renewalPercent: 67", "renewalPercent: 91", "less than or equal to 90"},
		"a value of another type":     {"vso-shared.yaml", "allowStaticCreds: true", `allowStaticCreds: "true"`, "must be of type boolean"},
		"a value that is not listed":  {"vso-connection.yaml", "method: kubernetes", "method: k8s", "spec.method"},
		"a required field left out":   {"vso-shared.yaml", "  mount: bcgov-jwt\n", "", "spec.mount in body is required"},
		"a version that is not there": {"eso.yaml", "apiVersion: external-secrets.io/v1\n", "apiVersion: external-secrets.io/v2\n", "no definition of external-secrets.io/v2"},
		"an unknown field far inside": {"eso.yaml", "generatorRef:\n", "generatorRef:\n          namespace: x\n", "generatorRef.namespace"},
		"an unknown field outside":    {"eso.yaml", "spec:\n", "specs: {}\nspec:\n", `unknown field "specs"`},
		"a field twice":               {"eso.yaml", "  refreshInterval: 2m\n", "  refreshInterval: 2m\n  refreshInterval: 3m\n", "already set"},
	} {
		t.Run(fault, func(t *testing.T) {
			t.Parallel()
			content, err := os.ReadFile(filepath.Join(exampleManifests, c.file))
			require.NoError(t, err)
			require.Contains(t, string(content), c.old)
			file := filepath.Join(t.TempDir(), c.file)
			require.NoError(t, os.WriteFile(file, []byte(strings.Replace(string(content), c.old, c.new, 1)), 0o600))
			_, err = check.run(t, file)
			require.ErrorContains(t, err, c.want)
		})
	}
}

// manifestCheck is the built program of scripts/modules/crds.
type manifestCheck string

func buildManifestCheck(t *testing.T) manifestCheck {
	t.Helper()
	binary := filepath.Join(t.TempDir(), "crds")
	build := exec.CommandContext(t.Context(), "go", "build", "-buildvcs=false", "-o", binary, ".")
	build.Dir = "../scripts/modules/crds"
	output, err := build.CombinedOutput()
	require.NoError(t, err, string(output))
	return manifestCheck(binary)
}

func (c manifestCheck) run(t *testing.T, files ...string) (documents []byte, err error) {
	t.Helper()
	documents, err = exec.CommandContext(t.Context(), string(c), files...).Output()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		err = errors.New(string(exit.Stderr))
	}
	return documents, err
}

// manifests reads the documents of good files.
func (c manifestCheck) manifests(t *testing.T, files ...string) (all []manifest) {
	t.Helper()
	documents, err := c.run(t, files...)
	require.NoError(t, err)
	for decoder := json.NewDecoder(bytes.NewReader(documents)); ; {
		var next manifest
		err := decoder.Decode(&next)
		if errors.Is(err, io.EOF) {
			return all
		}
		require.NoError(t, err)
		all = append(all, next)
	}
}

// one returns the resource of this kind.
func one(t *testing.T, all []manifest, group, kind string) manifest {
	t.Helper()
	i := slices.IndexFunc(all, func(m manifest) bool { return strings.HasPrefix(m.APIVersion, group+"/") && m.Kind == kind })
	require.GreaterOrEqual(t, i, 0, "there is no %s of %s", kind, group)
	return all[i]
}

// TestKubernetesManifestsWork reads tokens as the operators do to whom the examples are given. Who signs in, for which role, and what is read is taken from the
// examples, and the Vault side is made by their script.
func TestKubernetesManifestsWork(t *testing.T) {
	t.Parallel()
	check := buildManifestCheck(t)
	provideKubernetesAuth(t)
	for name, c := range map[string]struct {
		files []string
		test  func(*testing.T, *cluster, []manifest)
	}{
		"vso leased": {[]string{"vso-connection.yaml", "vso-leased.yaml"}, testVSOLeased},
		"vso shared": {[]string{"vso-connection.yaml", "vso-shared.yaml"}, testVSOShared},
		"eso":        {[]string{"eso.yaml"}, testESO},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			provider := realKeycloak(t)
			var files []string
			for _, file := range c.files {
				files = append(files, filepath.Join(exampleManifests, file))
			}
			all := check.manifests(t, files...)
			for _, resource := range all {
				require.Equal(t, all[0].Metadata.Namespace, resource.Metadata.Namespace)
			}
			c.test(t, newCluster(t, provider, all[0].Metadata.Namespace), all)
		})
	}
}

func testVSOLeased(t *testing.T, c *cluster, all []manifest) {
	secret := one(t, all, vsoGroup, "VaultDynamicSecret")
	vault := c.vsoSignsIn(t, all, secret)
	path := c.here(t, secret.Spec.Mount+"/"+secret.Spec.Path)
	answer := readAs(t, vault, path)
	require.NotEmpty(t, answer.LeaseID)
	require.False(t, answer.Renewable)
	requireSynced(t, secret, answer.Data)

	// The operator adds up to 10 % of the lease to renewalPercent.
	lease := time.Duration(answer.LeaseDuration) * time.Second
	latest := lease * time.Duration(secret.Spec.RenewalPercent+10) / 100
	require.Less(t, latest, lease, "the next read must come before the lease ends")
	require.Greater(t, life(t, answer)-latest, kubeletDelay, "what the old token has left at the next read")

	// A read is a new token, so the Secret changes and the pods are restarted.
	require.NotEqual(t, answer.Data["token_jti"], readAs(t, vault, path).Data["token_jti"])
	c.requireForbidden(t, vault, path+"-unleased")
}

func testVSOShared(t *testing.T, c *cluster, all []manifest) {
	secret := one(t, all, vsoGroup, "VaultDynamicSecret")
	require.True(t, secret.Spec.AllowStaticCreds)
	vault := c.vsoSignsIn(t, all, secret)
	path := c.here(t, secret.Spec.Mount+"/"+secret.Spec.Path)
	first := readAs(t, vault, path)
	require.Empty(t, first.LeaseID)
	require.False(t, first.Renewable, "the operator would renew it instead")
	requireSynced(t, secret, first.Data)
	require.Positive(t, wholeSeconds(t, first, "ttl"))
	require.Positive(t, wholeSeconds(t, first, "rotation_period"))
	require.False(t, instant(t, first, "last_vault_rotation").IsZero())

	// Until the token is replaced only ttl changes, which the operator leaves out of its hash: no pod is restarted for nothing.
	require.Eventually(t, func() bool {
		later := readAs(t, vault, path)
		for field := range first.Data {
			require.True(t, field == "ttl" || first.Data[field] == later.Data[field], "%s has changed", field)
		}
		require.Len(t, later.Data, len(first.Data))
		return wholeSeconds(t, later, "ttl") < wholeSeconds(t, first, "ttl")
	}, time.Minute, 100*time.Millisecond)

	// The operator comes again half a second after ttl. Then it reads until there is a new last_vault_rotation, for 10 s at most.
	c.m.write(t, "roles/"+strings.TrimPrefix(secret.Spec.Path, "creds/"), map[string]any{"refresh_margin": (life(t, first) - 10*time.Second).String()})
	old := readAs(t, vault, path)
	pass(t, wholeSeconds(t, old, "ttl")+500*time.Millisecond)
	require.Eventually(t, func() bool {
		return instant(t, readAs(t, vault, path), "last_vault_rotation").After(instant(t, old, "last_vault_rotation"))
	}, 10*time.Second, 500*time.Millisecond)
	require.True(t, time.Now().Before(instant(t, old, "expires_at")))
}

func testESO(t *testing.T, c *cluster, all []manifest) {
	secret, generator := one(t, all, esoGroup, "ExternalSecret"), one(t, all, esoGeneratorGroup, "VaultDynamicSecret")
	require.Len(t, secret.Spec.DataFrom, 1)
	ref := secret.Spec.DataFrom[0].SourceRef.GeneratorRef
	require.Equal(t, []string{generator.APIVersion, generator.Kind, generator.Metadata.Name}, []string{ref.APIVersion, ref.Kind, ref.Name})

	auth := generator.Spec.Provider.Auth.Kubernetes
	vault := c.signIn(t, auth.Role, auth.ServiceAccountRef.Name, auth.ServiceAccountRef.Audiences)
	path := c.here(t, generator.Spec.Path)
	answer := readAs(t, vault, path)
	require.Empty(t, answer.LeaseID, "the operator takes no notice of a lease")
	for field, template := range secret.Spec.Target.Template.Data {
		require.Equal(t, "{{ ."+field+" }}", template)
		require.IsType(t, "", answer.Data[field], field)
	}
	refresh, err := time.ParseDuration(secret.Spec.RefreshInterval)
	require.NoError(t, err)
	require.Greater(t, life(t, answer), refresh+kubeletDelay, "a token must live until the next one is in the pods")

	// What becomes of the Vault token does not matter. With a lease, and revoke_tokens, it would.
	require.Equal(t, true, c.active(t, c.readAndGoAway(t, path)))
	c.m.write(t, "roles/leased", map[string]any{"key": c.key, "revoke_tokens": true})
	dies := c.readAndGoAway(t, c.m.path+"/creds/leased")
	require.Eventually(t, func() bool { return c.active(t, dies) == false }, 30*time.Second, 100*time.Millisecond)
	c.requireForbidden(t, vault, strings.TrimSuffix(path, "-unleased"))
}

// readAs reads creds and takes in the answer as the operators do, which use Vault's own client.
func readAs(t *testing.T, vault *api.Client, path string) *api.Secret {
	t.Helper()
	answer, err := vault.Logical().ReadWithContext(t.Context(), path)
	require.NoError(t, err)
	require.NotNil(t, answer)
	return answer
}

// requireSynced wants just the token and its expiry to get into the Kubernetes Secret.
func requireSynced(t *testing.T, secret manifest, data map[string]any) {
	t.Helper()
	transformation := secret.Spec.Destination.Transformation
	require.True(t, transformation.ExcludeRaw)
	var synced []string
	for field := range data {
		if slices.ContainsFunc(transformation.Includes, func(include string) bool { return regexp.MustCompile(include).MatchString(field) }) {
			synced = append(synced, field)
		}
	}
	require.ElementsMatch(t, []string{"access_token", "expires_at"}, synced)
}

func instant(t *testing.T, answer *api.Secret, field string) time.Time {
	t.Helper()
	text, ok := answer.Data[field].(string)
	require.True(t, ok, "%s is no string", field)
	when, err := time.Parse(time.RFC3339Nano, text)
	require.NoError(t, err)
	return when
}

func wholeSeconds(t *testing.T, answer *api.Secret, field string) time.Duration {
	t.Helper()
	number, ok := answer.Data[field].(json.Number)
	require.True(t, ok, "%s is no number", field)
	seconds, err := number.Int64()
	require.NoError(t, err)
	return time.Duration(seconds) * time.Second
}

func life(t *testing.T, answer *api.Secret) time.Duration {
	t.Helper()
	return instant(t, answer, "expires_at").Sub(instant(t, answer, "issued_at"))
}

// provideKubernetesAuth puts the Kubernetes auth method into the catalog of a Vault that was built without it, at the version that belongs to the pinned Vault.
func provideKubernetesAuth(t *testing.T) {
	t.Helper()
	client, err := shared.Vault.client(nil)
	require.NoError(t, err)
	if _, err := client.Sys().GetPluginWithContext(t.Context(), &api.GetPluginInput{Name: "kubernetes", Type: api.PluginTypeCredential}); err == nil {
		return
	}
	const command = "vault-plugin-auth-kubernetes"
	file := filepath.Join(shared.Vault.pluginDirectory(), command)
	build := exec.CommandContext(t.Context(), "go", "build", "-buildvcs=false", "-o", file, "github.com/hashicorp/vault-plugin-auth-kubernetes/cmd/"+command)
	build.Dir = "../scripts/modules/vault"
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	output, err := build.CombinedOutput()
	require.NoError(t, err, string(output))
	binary, err := os.ReadFile(file)
	require.NoError(t, err)
	require.NoError(t, client.Sys().RegisterPluginWithContext(t.Context(), &api.RegisterPluginInput{
		Name: "kubernetes", Type: api.PluginTypeCredential, Command: command, SHA256: fmt.Sprintf("%x", sha256.Sum256(binary)),
	}))
}

// cluster stands for a Kubernetes cluster whose service accounts may sign in to Vault; a real Kubernetes auth method trusts it.
type cluster struct {
	m         *mount
	provider  *provider
	key       string
	auth      string // where the auth method is mounted
	namespace string
	private   *ecdsa.PrivateKey
}

// newCluster makes a cluster, a mount with a key, and with the examples' script what lets the one into the other.
func newCluster(t *testing.T, p *provider, namespace string) *cluster {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	c := &cluster{m: newMount(t, p.config), provider: p, key: "myapi", namespace: namespace, private: private}
	c.auth = c.m.path // no other test has it
	c.m.newClient(t, p, c.key, nil)

	sys := c.m.client.Sys()
	require.NoError(t, sys.EnableAuthWithOptionsWithContext(t.Context(), c.auth, &api.EnableAuthOptions{Type: "kubernetes"}))
	t.Cleanup(func() {
		if err := sys.DisableAuthWithContext(context.WithoutCancel(t.Context()), c.auth); err != nil {
			t.Error(err)
		}
	})
	public, err := x509.MarshalPKIXPublicKey(private.Public())
	require.NoError(t, err)
	_, err = c.m.client.Logical().WriteWithContext(t.Context(), "auth/"+c.auth+"/config", map[string]any{
		"kubernetes_host":      c.serve(t),
		"disable_local_ca_jwt": true,
		"pem_keys":             string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: public})),
	})
	require.NoError(t, err)
	c.m.runExample(t, "../kubernetes/setup.sh", nil, c.key, c.auth, c.namespace, "myapi")
	return c
}

// serve starts the one API of the cluster that Vault asks: whether a service account's token is good. It takes each as it is, since Vault has verified it.
func (c *cluster) serve(t *testing.T) (url string) {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var review struct {
			Spec struct{ Token string }
		}
		var claims serviceAccountClaims
		if json.NewDecoder(r.Body).Decode(&review) != nil || r.URL.Path != "/apis/authentication.k8s.io/v1/tokenreviews" {
			http.NotFound(w, r)
			return
		}
		token, err := jwt.ParseSigned(review.Spec.Token, []jose.SignatureAlgorithm{jose.ES256})
		if err != nil || token.Claims(c.private.Public(), &claims) != nil {
			http.Error(w, "", http.StatusUnauthorized)
			return
		}
		account := claims.Kubernetes
		user := map[string]string{"username": "system:serviceaccount:" + account.Namespace + ":" + account.ServiceAccount.Name, "uid": account.ServiceAccount.UID}
		_ = json.NewEncoder(w).Encode(map[string]any{"status": map[string]any{"authenticated": true, "user": user, "audiences": claims.Audience}})
	}))
	t.Cleanup(server.Close)
	return server.URL
}

// serviceAccountClaims are those of a token that the TokenRequest API issues.
type serviceAccountClaims struct {
	jwt.Claims
	Audience   []string `json:"aud"` // a list also of one
	Kubernetes struct {
		Namespace      string `json:"namespace"`
		ServiceAccount struct {
			Name string `json:"name"`
			UID  string `json:"uid"`
		} `json:"serviceaccount"`
	} `json:"kubernetes.io"`
}

// signIn signs a service account of the cluster in to Vault, for a role of the auth method.
func (c *cluster) signIn(t *testing.T, role, serviceAccount string, audiences []string) *api.Client {
	t.Helper()
	now := time.Now()
	claims := serviceAccountClaims{Audience: audiences, Claims: jwt.Claims{
		IssuedAt: jwt.NewNumericDate(now), NotBefore: jwt.NewNumericDate(now), Expiry: jwt.NewNumericDate(now.Add(10 * time.Minute)),
	}}
	claims.Kubernetes.Namespace, claims.Kubernetes.ServiceAccount.Name, claims.Kubernetes.ServiceAccount.UID = c.namespace, serviceAccount, "uid of "+serviceAccount
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: c.private}, nil)
	require.NoError(t, err)
	token, err := jwt.Signed(signer).Claims(claims).Serialize()
	require.NoError(t, err)
	answer, err := c.client(t, "").Logical().WriteWithContext(t.Context(), "auth/"+c.auth+"/login", map[string]any{"role": role, "jwt": token})
	require.NoError(t, err)
	return c.client(t, answer.Auth.ClientToken)
}

// vsoSignsIn follows the references of a resource of the Vault Secrets Operator.
func (c *cluster) vsoSignsIn(t *testing.T, all []manifest, secret manifest) *api.Client {
	t.Helper()
	auth := one(t, all, vsoGroup, "VaultAuth")
	require.Equal(t, secret.Spec.VaultAuthRef, auth.Metadata.Name)
	require.Equal(t, auth.Spec.VaultConnectionRef, one(t, all, vsoGroup, "VaultConnection").Metadata.Name)
	require.Equal(t, "kubernetes", auth.Spec.Method)
	return c.signIn(t, auth.Spec.Kubernetes.Role, auth.Spec.Kubernetes.ServiceAccount, auth.Spec.Kubernetes.Audiences)
}

// here is where the test has what the examples have on the mount bcgov-jwt.
func (c *cluster) here(t *testing.T, path string) string {
	t.Helper()
	below, found := strings.CutPrefix(path, "bcgov-jwt/")
	require.True(t, found, path)
	return c.m.path + "/" + below
}

func (c *cluster) client(t *testing.T, vaultToken string) *api.Client {
	t.Helper()
	client, err := c.m.client.Clone()
	require.NoError(t, err)
	client.SetToken(vaultToken)
	return client
}

// readAndGoAway reads a token with a Vault token of its own, and revokes that.
func (c *cluster) readAndGoAway(t *testing.T, path string) (token string) {
	t.Helper()
	own, err := c.m.client.Auth().Token().CreateOrphanWithContext(t.Context(), &api.TokenCreateRequest{})
	require.NoError(t, err)
	client := c.client(t, own.Auth.ClientToken)
	token, _ = readAs(t, client, path).Data["access_token"].(string)
	require.Equal(t, true, c.active(t, token))
	require.NoError(t, client.Auth().Token().RevokeSelfWithContext(t.Context(), ""))
	return token
}

// active is what the provider's introspection says of a token.
func (c *cluster) active(t *testing.T, token string) any {
	t.Helper()
	claims, err := c.provider.admin.Introspect(t.Context(), testRealm, apiClientID, apiSecret, token)
	require.NoError(t, err)
	return claims["active"]
}

func (c *cluster) requireForbidden(t *testing.T, vault *api.Client, path string) {
	t.Helper()
	_, err := vault.Logical().ReadWithContext(t.Context(), path)
	refusal, ok := errors.AsType[*api.ResponseError](err)
	require.True(t, ok, "a read of %s was allowed", path)
	require.Equal(t, http.StatusForbidden, refusal.StatusCode)
}
