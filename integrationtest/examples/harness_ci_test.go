package examples

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"encoding/pem"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"
	"github.com/stretchr/testify/require"

	"github.com/bcgov/vault-plugin-bcgov-jwt/integrationtest/harness"
	"github.com/bcgov/vault-plugin-bcgov-jwt/integrationtest/idp"
)

// Further kinds of secrets, which a CI job has.
const (
	kindIDToken    = "a CI job's ID token"
	kindVaultToken = "a Vault token"
)

// ciSystem is a CI system as Vault sees it: an issuer of ID tokens.
type ciSystem struct {
	name    string // of the example files, and of the auth method that they use
	ownerID string // of the repository or project that may log in
	run     string // the claim that identifies a run
	claims  map[string]any
}

// gitHub returns the claims of https://docs.github.com/en/actions/reference/security/oidc, for a
// push to the main branch.
func gitHub() ciSystem {
	return ciSystem{name: "github", ownerID: "123456789", run: "run_id", claims: map[string]any{
		"sub": "repo:my-org@4567/my-repo@123456789:ref:refs/heads/main", "repository": "my-org/my-repo", "repository_id": "123456789",
		"repository_owner": "my-org", "repository_owner_id": "4567", "repository_visibility": "private",
		"ref": "refs/heads/main", "ref_type": "branch", "ref_protected": "true", "base_ref": "", "head_ref": "", "event_name": "push",
		"sha": "8fe1b322a576d59fe6257052a4107df7dc1b8c78", "actor": "octocat", "actor_id": "12", "run_number": "10", "run_attempt": "1",
		"workflow": "Call the API", "workflow_ref": "my-org/my-repo/.github/workflows/call-api.yml@refs/heads/main",
		"job_workflow_ref":   "my-org/my-repo/.github/workflows/call-api.yml@refs/heads/main",
		"runner_environment": "github-hosted", "check_run_id": "987",
	}}
}

// gitLab returns the claims of https://docs.gitlab.com/ci/secrets/id_token_authentication, for a
// push to the main branch.
func gitLab() ciSystem {
	return ciSystem{name: "gitlab", ownerID: "12345678", run: "job_id", claims: map[string]any{
		"sub": "project_path:my-group/my-project:ref_type:branch:ref:main", "project_path": "my-group/my-project", "project_id": "12345678",
		"namespace_path": "my-group", "namespace_id": "72", "project_visibility": "private", "user_id": "1", "user_login": "octocat",
		"user_email": "octocat@example.com", "user_access_level": "developer", "pipeline_id": "574", "pipeline_source": "push",
		"ref": "main", "ref_type": "branch", "ref_path": "refs/heads/main", "ref_protected": "true", "groups_direct": []string{"my-group"},
		"runner_id": 1, "runner_environment": "self-hosted", "sha": "714a629c0b401fdce83e847fc9589983fc6f46bc",
		"ci_config_ref_uri": "gitlab.example.com/my-group/my-project//.gitlab-ci.yml@refs/heads/main",
	}}
}

// ciFixture holds everything that a job of one CI system needs, set up by the example script as it
// stands.
type ciFixture struct {
	ciSystem
	m      *harness.Mount
	vault  *vaultProxy
	server *idp.Server // the CI system's issuer is the realm "ci" of it
	issuer string
	ca     string // the file of its certificate authority
	auth   string // the auth method's path
	api    *harness.API
}

// newFixture creates two roles, and allows the jobs of the right repository and branch to read one.
func (ci ciSystem) newFixture(t *testing.T) *ciFixture {
	t.Helper()
	p := harness.EmbeddedProvider(t)
	m := harness.NewMount(t, p.Config)
	m.NewClient(t, p, "myapi", nil)
	m.NewClient(t, p, "other", nil)

	server := idp.New(idp.Options{})
	t.Cleanup(server.Close)
	require.NoError(t, server.AddRealm("ci"))
	require.NoError(t, server.AddRealm("stranger"))
	host := httptest.NewTLSServer(server)
	t.Cleanup(host.Close)

	auth := ci.name + "-" + strings.ToLower(rand.Text())
	f := &ciFixture{
		ciSystem: ci, m: m, server: server, auth: auth, api: p.NewAPI(t),
		issuer: host.URL + "/realms/ci", ca: filepath.Join(t.TempDir(), "ca.pem"),
		vault: newVaultProxy(t, map[string]string{
			"/auth/" + ci.name + "/": "/auth/" + auth + "/", "/bcgov-jwt/": "/" + m.Path + "/",
		}),
	}
	certificate := &pem.Block{Type: "CERTIFICATE", Bytes: host.Certificate().Raw}
	require.NoError(t, os.WriteFile(f.ca, pem.EncodeToMemory(certificate), 0o600))
	f.setUp(t, "myapi")
	f.setUp(t, "myapi") // a second run changes nothing
	return f
}

// setUp runs the example's script for Vault's side, as it stands.
func (f *ciFixture) setUp(t *testing.T, role string) {
	t.Helper()
	environment := append(harness.Vault().ClientEnvironment(f.m.Client.Token()),
		"AUTH_PATH="+f.auth, "AUDIENCE="+f.vault.URL, "ISSUER="+f.issuer, "ISSUER_CA="+f.ca)
	script := example("ci/" + f.name + "-setup.sh")
	result := runScript(t, environment, script, f.m.Path, role, f.ownerID, "main")
	require.Zero(t, result.Code, result.Stdout+result.Stderr)
	t.Cleanup(func() {
		policy := "sys/policies/acl/" + f.auth + "-" + role
		for _, path := range []string{"sys/auth/" + f.auth, policy} {
			if _, err := f.m.Client.Logical().Delete(path); err != nil {
				t.Error(err)
			}
		}
	})
}

// idToken returns the ID token that the CI system issues to a job, with these changes; a nil claim
// is omitted.
func (f *ciFixture) idToken(t *testing.T, changes map[string]any) string {
	t.Helper()
	return f.signed(t, "ci", f.claimsOf(changes))
}

func (f *ciFixture) claimsOf(changes map[string]any) map[string]any {
	now := time.Now()
	claims := map[string]any{
		"iss": f.issuer, "aud": f.vault.URL, "jti": rand.Text(), f.run: "1",
		"iat": now.Unix(), "nbf": now.Add(-5 * time.Second).Unix(), "exp": now.Add(5 * time.Minute).Unix(),
	}
	maps.Copy(claims, f.claims)
	maps.Copy(claims, changes)
	maps.DeleteFunc(claims, func(_ string, value any) bool { return value == nil })
	return claims
}

func (f *ciFixture) signed(t *testing.T, realm string, claims map[string]any) string {
	t.Helper()
	token, err := f.server.SignJWT(realm, claims)
	require.NoError(t, err)
	harness.Detector().AddToken(kindIDToken, token)
	return token
}

func (f *ciFixture) login(t *testing.T, role, idToken string) (*api.Secret, error) {
	t.Helper()
	return f.m.Client.Logical().WriteWithContext(t.Context(), "auth/"+f.auth+"/login",
		map[string]any{"role": role, "jwt": idToken})
}

// acceptedClaims returns the changes to the claims with which a job is still the right one.
func (ci ciSystem) acceptedClaims() map[string]map[string]any {
	if ci.name == "github" {
		return map[string]map[string]any{
			"a push":                        nil,
			"started by hand":               {"event_name": "workflow_dispatch"},
			"a repository that was renamed": {"repository": "my-org/our-repo", "sub": "repo:my-org@4567/our-repo@123456789:ref:refs/heads/main"},
			"an older repository":           {"sub": "repo:my-org/my-repo:ref:refs/heads/main"},
			"a job with an environment":     {"environment": "production", "sub": "repo:my-org/my-repo:environment:production"},
		}
	}
	return map[string]map[string]any{
		"a push":                   nil,
		"on a schedule":            {"pipeline_source": "schedule"},
		"a project that was moved": {"project_path": "other-group/my-project", "namespace_path": "other-group"},
	}
}

// rejectedJob is a job that may not log in.
type rejectedJob struct {
	name   string
	claims map[string]any
	reason string
}

func rejectedAnywhere() []rejectedJob {
	past := time.Now().Add(-10 * time.Minute)
	return []rejectedJob{
		{"another audience", map[string]any{"aud": "https://github.com/my-org"}, "audience"},
		{"no audience", map[string]any{"aud": nil}, "audience"},
		{"expired", map[string]any{"iat": past.Unix(), "nbf": past.Unix(), "exp": past.Add(5 * time.Minute).Unix()}, "expired"},
		{"not yet valid", map[string]any{"nbf": time.Now().Add(10 * time.Minute).Unix()}, "not before"},
		{"another issuer", map[string]any{"iss": "https://token.actions.example.com"}, "issuer"},
	}
}

func (ci ciSystem) rejectedClaims() []rejectedJob {
	if ci.name == "github" {
		return []rejectedJob{
			{"another repository", map[string]any{"repository_id": "1", "repository": "my-org/my-repo-2"}, `"repository_id"`},
			{"another repository of the same name", map[string]any{"repository_id": "1"}, `"repository_id"`},
			{"a repository without an id", map[string]any{"repository_id": nil}, `"repository_id"`},
			{"another branch", map[string]any{"ref": "refs/heads/feature"}, `"ref"`},
			{"a branch that begins like it", map[string]any{"ref": "refs/heads/main-2"}, `"ref"`},
			{"a tag of that name", map[string]any{"ref": "refs/tags/main", "ref_type": "tag"}, `"ref"`},
			{"a pull request", map[string]any{
				"sub": "repo:my-org/my-repo:pull_request", "ref": "refs/pull/7/merge", "event_name": "pull_request", "head_ref": "main", "base_ref": "main",
			}, "does not match"},
			{"a pull request that was closed", map[string]any{"event_name": "pull_request", "head_ref": "feature", "base_ref": "main"}, `"event_name"`},
			{"the target of a pull request", map[string]any{"event_name": "pull_request_target", "head_ref": "feature", "base_ref": "main"}, `"event_name"`},
		}
	}
	return []rejectedJob{
		{"another project", map[string]any{"project_id": "1", "project_path": "my-group/other"}, `"project_id"`},
		{"another project of the same path", map[string]any{"project_id": "1"}, `"project_id"`},
		{"another branch", map[string]any{"ref": "feature", "ref_path": "refs/heads/feature"}, `"ref"`},
		{"a tag of that name", map[string]any{"ref_type": "tag", "ref_path": "refs/tags/main"}, `"ref_type"`},
		{"a branch that is not protected", map[string]any{"ref_protected": "false"}, `"ref_protected"`},
		{"a merge request", map[string]any{"pipeline_source": "merge_request_event"}, `"pipeline_source"`},
	}
}

func (f *ciFixture) requireRejected(t *testing.T, idToken, reason string) {
	t.Helper()
	_, err := f.login(t, "myapi", idToken)
	var rejection *api.ResponseError
	require.ErrorAs(t, err, &rejection, "logged in")
	require.Equal(t, http.StatusBadRequest, rejection.StatusCode)
	require.Contains(t, strings.Join(rejection.Errors, "\n"), reason)
}

// requireReader logs in, and requires a Vault token that can read one role's creds and nothing
// else.
func (f *ciFixture) requireReader(t *testing.T, idToken string) {
	t.Helper()
	secret, err := f.login(t, "myapi", idToken)
	require.NoError(t, err)
	require.Equal(t, []string{f.auth + "-myapi"}, secret.Auth.TokenPolicies)
	require.Equal(t, 300, secret.Auth.LeaseDuration)
	job := f.m.As(t, secret.Auth.ClientToken)
	token := job.Read(t, "creds/myapi").Text(t, "access_token")
	require.Equal(t, http.StatusOK, f.api.Call(t, token), "the API")
	for _, path := range []string{
		"creds/other", "assertion/myapi", "check/myapi", "keys/myapi", "roles/myapi", "config", "info",
		"wrapping_key",
	} {
		job.RequireForbidden(t, http.MethodGet, path, nil)
	}
	for _, path := range []string{"auth/token/lookup-self", "sys/mounts", "cubbyhole/x"} {
		got := job.DoOutside(t, http.MethodGet, path)
		require.Equal(t, http.StatusForbidden, got.Status, path)
	}
}

// needTools skips the test if a program is missing that the CI systems' machines have, or fails it
// with CI=true.
func needTools(t *testing.T, names ...string) {
	t.Helper()
	for _, name := range names {
		if _, err := exec.LookPath(name); err != nil {
			if os.Getenv("CI") == "true" {
				t.Fatal("the example jobs need ", name)
			}
			t.Skip("skipped, as the example jobs need ", name)
		}
	}
}

// requireAudited requires a read in Vault's audit log that names the run that made it.
func requireAudited(t *testing.T, path, claim, value string) {
	t.Helper()
	log, err := os.ReadFile(harness.Vault().AuditFile())
	require.NoError(t, err)
	for line := range bytes.Lines(log) {
		if !bytes.Contains(line, []byte(value)) || !bytes.HasSuffix(line, []byte("\n")) {
			continue // the last line may be half written
		}
		var entry struct {
			Type string `json:"type"`
			Auth struct {
				Metadata map[string]string `json:"metadata"`
			} `json:"auth"`
			Request struct {
				Path string `json:"path"`
			} `json:"request"`
		}
		require.NoError(t, json.Unmarshal(line, &entry))
		isRead := entry.Type == "response" && entry.Request.Path == path
		if isRead && entry.Auth.Metadata[claim] == value {
			return
		}
	}
	t.Errorf("no read of %s in the audit log has the job's %s", path, claim)
}
