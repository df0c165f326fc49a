package examples

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
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
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	"github.com/hashicorp/vault/api"
	"github.com/stretchr/testify/require"

	"github.com/bcgov/vault-plugin-bcgov-jwt/integrationtest/harness"
)

// kubeletDelay is how long it may take until the content of a Secret is in a pod's volume: the
// kubelet syncs a pod every 60 to 90 s.
const kubeletDelay = 90 * time.Second

// The operators' groups of resources. Both have a VaultDynamicSecret.
const (
	vsoGroup          = "secrets.hashicorp.com"
	esoGroup          = "external-secrets.io"
	esoGeneratorGroup = "generators.external-secrets.io"
)

// manifest holds what the tests need of all kinds of resources in the examples.
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
			Server, Namespace string
			Auth              struct{ Kubernetes esoLogin }
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

// esoLogin is how the External Secrets Operator logs in.
type esoLogin struct {
	MountPath, Role   string
	ServiceAccountRef struct {
		Name      string
		Audiences []string
	}
}

// manifestCheck is the path of the built program of harness.ManifestsModule.
type manifestCheck string

// builtManifestCheck builds the program once for all tests.
var builtManifestCheck = sync.OnceValues(func() (manifestCheck, error) {
	binary := filepath.Join(harness.Vault().Dir, "manifests")
	build := exec.CommandContext(context.Background(),
		"go", "build", "-buildvcs=false", "-o", binary, ".")
	build.Dir = harness.InRepository(harness.ManifestsModule)
	if output, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%w: %s", err, output)
	}
	return manifestCheck(binary), nil
})

func buildManifestCheck(t *testing.T) manifestCheck {
	t.Helper()
	check, err := builtManifestCheck()
	require.NoError(t, err)
	return check
}

func (c manifestCheck) run(t *testing.T, files ...string) (documents []byte, err error) {
	t.Helper()
	documents, err = exec.CommandContext(t.Context(), string(c), files...).Output()
	if exit, exited := errors.AsType[*exec.ExitError](err); exited {
		err = errors.New(string(exit.Stderr))
	}
	return documents, err
}

// manifests returns the documents of valid files.
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

// findResource returns the resource of this kind.
func findResource(t *testing.T, all []manifest, group, kind string) manifest {
	t.Helper()
	i := slices.IndexFunc(all, func(m manifest) bool {
		return strings.HasPrefix(m.APIVersion, group+"/") && m.Kind == kind
	})
	require.GreaterOrEqual(t, i, 0, "%s of %s does not exist", kind, group)
	return all[i]
}

func testVSOLeased(t *testing.T, c *cluster, all []manifest) {
	secret := findResource(t, all, vsoGroup, "VaultDynamicSecret")
	vault := c.vsoLogin(t, all, secret)
	path := c.localPath(t, secret.Spec.Mount+"/"+secret.Spec.Path)
	creds := harness.ReadSecret(t, vault, path)
	require.NotEmpty(t, creds.LeaseID)
	require.False(t, creds.Renewable)
	requireSyncedFields(t, secret, creds.Data)

	// The operator adds up to 10 % of the lease to renewalPercent.
	lease := time.Duration(creds.LeaseDuration) * time.Second
	latest := lease * time.Duration(secret.Spec.RenewalPercent+10) / 100
	require.Less(t, latest, lease, "the next read must come before the lease ends")
	require.Greater(t, tokenLifetime(t, creds)-latest, kubeletDelay,
		"the remaining lifetime of the old token at the next read")

	// A read returns a new token, so the Secret changes.
	again := harness.ReadSecret(t, vault, path)
	require.NotEqual(t, creds.Data["token_jti"], again.Data["token_jti"])
	c.requireForbidden(t, vault, path+"-unleased")
}

func testVSOShared(t *testing.T, c *cluster, all []manifest) {
	secret := findResource(t, all, vsoGroup, "VaultDynamicSecret")
	require.True(t, secret.Spec.AllowStaticCreds)
	vault := c.vsoLogin(t, all, secret)
	path := c.localPath(t, secret.Spec.Mount+"/"+secret.Spec.Path)
	first := harness.ReadSecret(t, vault, path)
	require.Empty(t, first.LeaseID)
	require.False(t, first.Renewable, "the operator would renew it instead")
	requireSyncedFields(t, secret, first.Data)
	require.Positive(t, harness.SecondsField(t, first, "ttl"))
	require.Positive(t, harness.SecondsField(t, first, "rotation_period"))
	require.False(t, harness.TimeField(t, first, "last_vault_rotation").IsZero())

	// Until the token is replaced only ttl changes, which the operator omits from its hash: no pod
	// is restarted for nothing.
	require.Eventually(t, func() bool {
		later := harness.ReadSecret(t, vault, path)
		for field := range first.Data {
			unchanged := first.Data[field] == later.Data[field]
			require.True(t, field == "ttl" || unchanged, "%s has changed", field)
		}
		require.Len(t, later.Data, len(first.Data))
		return harness.SecondsField(t, later, "ttl") < harness.SecondsField(t, first, "ttl")
	}, time.Minute, 100*time.Millisecond)

	// The operator reads again half a second after ttl. Then it reads until last_vault_rotation is
	// new, for 10 s at most.
	role := "roles/" + strings.TrimPrefix(secret.Spec.Path, "creds/")
	margin := tokenLifetime(t, first) - 10*time.Second
	c.m.Write(t, role, map[string]any{"refresh_margin": margin.String()})
	old := harness.ReadSecret(t, vault, path)
	harness.Sleep(t, harness.SecondsField(t, old, "ttl")+500*time.Millisecond)
	require.Eventually(t, func() bool {
		later := harness.ReadSecret(t, vault, path)
		rotated := harness.TimeField(t, later, "last_vault_rotation")
		return rotated.After(harness.TimeField(t, old, "last_vault_rotation"))
	}, 10*time.Second, 500*time.Millisecond)
	require.True(t, time.Now().Before(harness.TimeField(t, old, "expires_at")))
}

func testESO(t *testing.T, c *cluster, all []manifest) {
	secret := findResource(t, all, esoGroup, "ExternalSecret")
	generator := findResource(t, all, esoGeneratorGroup, "VaultDynamicSecret")
	require.Len(t, secret.Spec.DataFrom, 1)
	ref := secret.Spec.DataFrom[0].SourceRef.GeneratorRef
	require.Equal(t, []string{generator.APIVersion, generator.Kind, generator.Metadata.Name},
		[]string{ref.APIVersion, ref.Kind, ref.Name})

	auth := generator.Spec.Provider.Auth.Kubernetes
	vault := c.login(t, auth.Role, auth.ServiceAccountRef.Name, auth.ServiceAccountRef.Audiences)
	path := c.localPath(t, generator.Spec.Path)
	creds := harness.ReadSecret(t, vault, path)
	require.Empty(t, creds.LeaseID, "the operator ignores a lease")
	for field, template := range secret.Spec.Target.Template.Data {
		require.Equal(t, "{{ ."+field+" }}", template)
		require.IsType(t, "", creds.Data[field], field)
	}
	refresh, err := time.ParseDuration(secret.Spec.RefreshInterval)
	require.NoError(t, err)
	require.Greater(t, tokenLifetime(t, creds), refresh+kubeletDelay,
		"a token must live until the next one is in the pods")

	// It does not matter when the Vault token ends. With a lease, and revoke_tokens, it would.
	require.Equal(t, true, c.active(t, c.readAndRevoke(t, path)))
	c.m.Write(t, "roles/leased", map[string]any{"key": c.key, "revoke_tokens": true})
	revoked := c.readAndRevoke(t, c.m.Path+"/creds/leased")
	require.Eventually(t, func() bool { return c.active(t, revoked) == false },
		30*time.Second, 100*time.Millisecond)
	c.requireForbidden(t, vault, strings.TrimSuffix(path, "-unleased"))
}

// requireSyncedFields requires that only the token and its expiry are copied to the Kubernetes
// Secret.
func requireSyncedFields(t *testing.T, secret manifest, data map[string]any) {
	t.Helper()
	transformation := secret.Spec.Destination.Transformation
	require.True(t, transformation.ExcludeRaw)
	var synced []string
	for field := range data {
		if slices.ContainsFunc(transformation.Includes, func(include string) bool {
			return regexp.MustCompile(include).MatchString(field)
		}) {
			synced = append(synced, field)
		}
	}
	require.ElementsMatch(t, []string{"access_token", "expires_at"}, synced)
}

func tokenLifetime(t *testing.T, creds *api.Secret) time.Duration {
	t.Helper()
	return harness.TimeField(t, creds, "expires_at").Sub(harness.TimeField(t, creds, "issued_at"))
}

// provideKubernetesAuth adds the Kubernetes auth method to the catalog of a Vault that was built
// without it, at the version that belongs to the pinned Vault.
func provideKubernetesAuth(t *testing.T, vault *harness.VaultServer) {
	t.Helper()
	sys := vault.NewClient(t).Sys()
	builtIn := &api.GetPluginInput{Name: "kubernetes", Type: api.PluginTypeCredential}
	if _, err := sys.GetPluginWithContext(t.Context(), builtIn); err == nil {
		return
	}
	const command = "vault-plugin-auth-kubernetes"
	file := filepath.Join(vault.PluginDirectory(), command)
	build := exec.CommandContext(t.Context(), "go", "build", "-buildvcs=false", "-o", file,
		"github.com/hashicorp/vault-plugin-auth-kubernetes/cmd/"+command)
	build.Dir = harness.InRepository(harness.VaultModule)
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	output, err := build.CombinedOutput()
	require.NoError(t, err, string(output))
	binary, err := os.ReadFile(file)
	require.NoError(t, err)
	require.NoError(t, sys.RegisterPluginWithContext(t.Context(), &api.RegisterPluginInput{
		Name: "kubernetes", Type: api.PluginTypeCredential, Command: command,
		SHA256: fmt.Sprintf("%x", sha256.Sum256(binary)),
	}))
}

// cluster stands for a Kubernetes cluster whose service accounts may log in to Vault; a real
// Kubernetes auth method trusts it.
type cluster struct {
	m         *harness.Mount
	provider  *harness.Provider
	key       string
	auth      string // where the auth method is mounted
	namespace string
	private   *ecdsa.PrivateKey

	url, certificate string // of its API
}

// newCluster creates a cluster and a mount with a key, and gives the one access to the other with
// the examples' script.
func newCluster(t *testing.T, p *harness.Provider, namespace string) *cluster {
	t.Helper()
	c := newEmptyCluster(t, namespace)
	c.m, c.provider, c.key = harness.NewMount(t, p.Config), p, "myapi"
	c.m.NewClient(t, p, c.key, nil)
	c.enableAuth(t)
	runExample(t, c.m, "kubernetes/setup.sh", nil, c.key, c.auth, c.namespace, "myapi")
	return c
}

// newEmptyCluster creates a cluster that no Vault knows.
func newEmptyCluster(t *testing.T, namespace string) *cluster {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	c := &cluster{namespace: namespace, private: private}
	c.serve(t)
	return c
}

// enableAuth lets service accounts of the cluster log in to the mount's Vault.
func (c *cluster) enableAuth(t *testing.T) {
	t.Helper()
	c.auth = enableKubernetesAuth(t, c.m)
	config := map[string]any{
		"kubernetes_host":      c.url,
		"kubernetes_ca_cert":   c.certificate,
		"disable_local_ca_jwt": true,
		"pem_keys":             harness.PublicPEM(t, c.private),
	}
	_, err := c.m.Client.Logical().WriteWithContext(t.Context(), "auth/"+c.auth+"/config", config)
	require.NoError(t, err)
}

// enableKubernetesAuth enables the auth method at a path of its own.
func enableKubernetesAuth(t *testing.T, m *harness.Mount) (path string) {
	t.Helper()
	sys, path := m.Client.Sys(), m.Path // which is unique
	auth := &api.EnableAuthOptions{Type: "kubernetes"}
	require.NoError(t, sys.EnableAuthWithOptionsWithContext(t.Context(), path, auth))
	t.Cleanup(func() {
		ctx := context.WithoutCancel(t.Context())
		if err := sys.DisableAuthWithContext(ctx, path); err != nil {
			t.Error(err)
		}
	})
	return path
}

// setUpWithout runs the examples' script as the owner of a Vault token that has only these
// capabilities on one path.
func setUpWithout(
	t *testing.T, m *harness.Mount, auth, path, capabilities string,
) harness.CommandResult {
	t.Helper()
	name := "setup-" + strings.ToLower(rand.Text())
	m.WritePolicy(t, name, `path "*" { capabilities = ["create", "read", "update", "delete"] }
		path "`+path+`" { capabilities = [`+capabilities+`] }`)
	as := m.AsNewToken(t, api.TokenCreateRequest{Policies: []string{name}})
	return runScript(t, harness.Vault().ClientEnvironment(as.Client.Token()),
		example("kubernetes/setup.sh"), m.Path, "myapi", auth, "myapp", "myapi")
}

// setUpEntries returns the names of the roles, policies and login roles that the script writes.
func setUpEntries(t *testing.T, m *harness.Mount, auth string) (names []string) {
	t.Helper()
	for _, path := range []string{m.Path + "/roles", "sys/policies/acl", "auth/" + auth + "/role"} {
		listed, err := m.Client.Logical().ListWithContext(t.Context(), path)
		require.NoError(t, err)
		if listed == nil {
			continue
		}
		for _, name := range listed.Data["keys"].([]any) {
			if path != "sys/policies/acl" || strings.HasPrefix(name.(string), m.Path+"-myapi") {
				names = append(names, name.(string))
			}
		}
	}
	return names
}

// serve starts the APIs of the cluster that Vault and OpenBao call: whether a service account's
// token is valid, and with which public keys that can be verified.
func (c *cluster) serve(t *testing.T) {
	t.Helper()
	mux := http.NewServeMux()
	server := httptest.NewTLSServer(mux)
	t.Cleanup(server.Close)
	block := &pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}
	c.url, c.certificate = server.URL, string(pem.EncodeToMemory(block))
	mux.HandleFunc("/", c.reviewToken)
	mux.HandleFunc("GET /.well-known/openid-configuration", c.publish(map[string]any{
		"issuer": clusterIssuer, "jwks_uri": c.url + "/openid/v1/jwks",
	}))
	mux.HandleFunc("GET /openid/v1/jwks", c.publish(jose.JSONWebKeySet{
		Keys: []jose.JSONWebKey{{Key: c.private.Public(), Algorithm: "ES256", Use: "sig"}},
	}))
}

// clusterIssuer is the issuer of a cluster's tokens, and their audience unless another is requested.
const clusterIssuer = "https://kubernetes.default.svc"

// publish returns a handler that sends a document to service accounts alone, as OpenShift does.
func (c *cluster) publish(document any) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		token := strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
		if _, valid := c.verify(token); !valid {
			http.Error(w, "", http.StatusForbidden)
			return
		}
		_ = json.NewEncoder(w).Encode(document)
	}
}

// verify returns the claims of a token of the cluster. It does not check expiry.
func (c *cluster) verify(token string) (claims serviceAccountClaims, valid bool) {
	parsed, err := jwt.ParseSigned(token, []jose.SignatureAlgorithm{jose.ES256})
	if err != nil || parsed.Claims(c.private.Public(), &claims) != nil {
		return claims, false
	}
	return claims, true
}

func (c *cluster) reviewToken(w http.ResponseWriter, r *http.Request) {
	var review struct {
		Spec struct{ Token string }
	}
	isReview := r.URL.Path == "/apis/authentication.k8s.io/v1/tokenreviews"
	if json.NewDecoder(r.Body).Decode(&review) != nil || !isReview {
		http.NotFound(w, r)
		return
	}
	claims, valid := c.verify(review.Spec.Token)
	if !valid {
		http.Error(w, "", http.StatusUnauthorized)
		return
	}
	namespace, account := claims.Kubernetes.Namespace, claims.Kubernetes.ServiceAccount
	user := map[string]string{
		"username": "system:serviceaccount:" + namespace + ":" + account.Name, "uid": account.UID,
	}
	status := map[string]any{"authenticated": true, "user": user, "audiences": claims.Audience}
	_ = json.NewEncoder(w).Encode(map[string]any{"status": status})
}

// serviceAccountClaims holds the claims of a token that the TokenRequest API issues.
type serviceAccountClaims struct {
	jwt.Claims
	Audience   []string `json:"aud"` // a list even of one
	Kubernetes struct {
		Namespace      string `json:"namespace"`
		ServiceAccount struct {
			Name string `json:"name"`
			UID  string `json:"uid"`
		} `json:"serviceaccount"`
	} `json:"kubernetes.io"`
}

// login logs a service account of the cluster in to Vault, for a role of the auth method.
func (c *cluster) login(t *testing.T, role, serviceAccount string, audiences []string) *api.Client {
	t.Helper()
	secret, err := c.client(t, "").Logical().WriteWithContext(t.Context(), "auth/"+c.auth+"/login",
		map[string]any{"role": role, "jwt": c.token(t, serviceAccount, audiences)})
	require.NoError(t, err)
	return c.client(t, secret.Auth.ClientToken)
}

// token returns a token of a service account.
func (c *cluster) token(t *testing.T, serviceAccount string, audiences []string) string {
	t.Helper()
	now := time.Now()
	claims := serviceAccountClaims{Audience: audiences, Claims: jwt.Claims{
		Issuer: clusterIssuer, Subject: "system:serviceaccount:" + c.namespace + ":" + serviceAccount,
		IssuedAt: jwt.NewNumericDate(now), NotBefore: jwt.NewNumericDate(now),
		Expiry: jwt.NewNumericDate(now.Add(time.Hour)),
	}}
	claims.Kubernetes.Namespace = c.namespace
	account := &claims.Kubernetes.ServiceAccount
	account.Name, account.UID = serviceAccount, "uid of "+serviceAccount
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: c.private}, nil)
	require.NoError(t, err)
	token, err := jwt.Signed(signer).Claims(claims).Serialize()
	require.NoError(t, err)
	return token
}

// vsoLogin logs in as the Vault Secrets Operator does, following the references of its resource.
func (c *cluster) vsoLogin(t *testing.T, all []manifest, secret manifest) *api.Client {
	t.Helper()
	auth := findResource(t, all, vsoGroup, "VaultAuth")
	require.Equal(t, secret.Spec.VaultAuthRef, auth.Metadata.Name)
	connection := findResource(t, all, vsoGroup, "VaultConnection")
	require.Equal(t, auth.Spec.VaultConnectionRef, connection.Metadata.Name)
	require.Equal(t, "kubernetes", auth.Spec.Method)
	account := auth.Spec.Kubernetes
	return c.login(t, account.Role, account.ServiceAccount, account.Audiences)
}

// localPath returns the path on the test's mount of a path of the examples.
func (c *cluster) localPath(t *testing.T, path string) string {
	t.Helper()
	below, found := strings.CutPrefix(path, "bcgov-jwt/")
	require.True(t, found, path)
	return c.m.Path + "/" + below
}

func (c *cluster) client(t *testing.T, vaultToken string) *api.Client {
	t.Helper()
	client, err := c.m.Client.Clone()
	require.NoError(t, err)
	client.SetToken(vaultToken)
	return client
}

// readAndRevoke reads a token with a Vault token of its own, and revokes the Vault token.
func (c *cluster) readAndRevoke(t *testing.T, path string) (token string) {
	t.Helper()
	request := &api.TokenCreateRequest{}
	own, err := c.m.Client.Auth().Token().CreateOrphanWithContext(t.Context(), request)
	require.NoError(t, err)
	client := c.client(t, own.Auth.ClientToken)
	token, _ = harness.ReadSecret(t, client, path).Data["access_token"].(string)
	require.Equal(t, true, c.active(t, token))
	require.NoError(t, client.Auth().Token().RevokeSelfWithContext(t.Context(), ""))
	return token
}

// active returns the claim active of the introspection of a token.
func (c *cluster) active(t *testing.T, token string) any {
	t.Helper()
	return c.provider.Introspect(t, token)["active"]
}

func (c *cluster) requireForbidden(t *testing.T, vault *api.Client, path string) {
	t.Helper()
	_, err := vault.Logical().ReadWithContext(t.Context(), path)
	rejection, rejected := errors.AsType[*api.ResponseError](err)
	require.True(t, rejected, "a read of %s was allowed", path)
	require.Equal(t, http.StatusForbidden, rejection.StatusCode)
}
