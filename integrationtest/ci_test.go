package integrationtest

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"
	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"

	"github.com/bcgov/vault-plugin-bcgov-jwt/integrationtest/idp"
)

const exampleCI = "../docs/examples/ci"

// Kinds of secrets that a CI job has besides.
const (
	idTokenPart    = "a CI job's ID token"
	vaultTokenPart = "a Vault token"
)

// ciSystem is a CI system as Vault sees it: an issuer of ID tokens.
type ciSystem struct {
	name    string // of the example files, and of the auth method that they use
	ownerID string // of the repository or project that may sign in
	run     string // the claim that tells one run from others
	claims  map[string]any
}

// gitHub has the claims of https://docs.github.com/en/actions/reference/security/oidc, for a push to the main branch.
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

// gitLab has the claims of https://docs.gitlab.com/ci/secrets/id_token_authentication, for a push to the main branch.
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

// ciBench has all that a job of one CI system needs, set up by the example script as it stands.
type ciBench struct {
	ciSystem
	m      *mount
	front  *vaultFront
	server *idp.Server // the CI system's issuer is the realm "ci" of it
	issuer string
	ca     string // the file of its certificate authority
	auth   string // the auth method's path
	api    *countingAPI
}

// newBench makes two roles, and lets the jobs of the right repository and branch read one.
func (ci ciSystem) newBench(t *testing.T) *ciBench {
	t.Helper()
	p := embeddedProvider(t)
	m := newMount(t, p.config)
	m.newClient(t, p, "myapi", nil)
	m.newClient(t, p, "other", nil)

	server := idp.New(idp.Options{})
	t.Cleanup(server.Close)
	require.NoError(t, server.AddRealm("ci"))
	require.NoError(t, server.AddRealm("stranger"))
	host := httptest.NewTLSServer(server)
	t.Cleanup(host.Close)

	auth := ci.name + "-" + strings.ToLower(rand.Text())
	b := &ciBench{
		ciSystem: ci, m: m, server: server, issuer: host.URL + "/realms/ci", ca: filepath.Join(t.TempDir(), "ca.pem"), auth: auth,
		front: newVaultFront(t, map[string]string{"/auth/" + ci.name + "/": "/auth/" + auth + "/", "/bcgov-jwt/": "/" + m.path + "/"}),
		api:   newCountingAPI(t, idp.NewGateway(p.issuer, p.httpClient(t), time.Now)),
	}
	require.NoError(t, os.WriteFile(b.ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: host.Certificate().Raw}), 0o600))
	b.setUp(t, "myapi")
	b.setUp(t, "myapi") // a second run changes nothing
	return b
}

// setUp runs the example's script for Vault's side, as it stands.
func (b *ciBench) setUp(t *testing.T, role string) {
	t.Helper()
	ran := runScript(t, []string{
		"PATH=" + filepath.Dir(shared.Vault.Command) + string(os.PathListSeparator) + os.Getenv("PATH"),
		"VAULT_ADDR=" + b.m.client.Address(), "VAULT_TOKEN=" + b.m.client.Token(),
		"AUTH_PATH=" + b.auth, "AUDIENCE=" + b.front.URL, "ISSUER=" + b.issuer, "ISSUER_CA=" + b.ca,
	}, filepath.Join(exampleCI, b.name+"-setup.sh"), b.m.path, role, b.ownerID, "main")
	require.Zero(t, ran.code, ran.stdout+ran.stderr)
	t.Cleanup(func() {
		for _, path := range []string{"sys/auth/" + b.auth, "sys/policies/acl/" + b.auth + "-" + role} {
			if _, err := b.m.client.Logical().Delete(path); err != nil {
				t.Error(err)
			}
		}
	})
}

// runScript runs a program with just this environment.
func runScript(t *testing.T, env []string, command ...string) commandResult {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), command[0], command[1:]...)
	cmd.Env = append(shared.Vault.environment(), env...)
	cmd.SysProcAttr = dieWithParent()
	cmd.WaitDelay = time.Second
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		require.ErrorAs(t, err, new(*exec.ExitError))
	}
	return commandResult{stdout: stdout.String(), stderr: stderr.String(), code: cmd.ProcessState.ExitCode()}
}

// idToken is what the CI system gives to a job, with these changes; a nil claim is left out.
func (b *ciBench) idToken(t *testing.T, changes map[string]any) string {
	t.Helper()
	return b.signed(t, "ci", b.claimsOf(changes))
}

func (b *ciBench) claimsOf(changes map[string]any) map[string]any {
	now := time.Now()
	claims := map[string]any{
		"iss": b.issuer, "aud": b.front.URL, "jti": rand.Text(), b.run: "1",
		"iat": now.Unix(), "nbf": now.Add(-5 * time.Second).Unix(), "exp": now.Add(5 * time.Minute).Unix(),
	}
	maps.Copy(claims, b.claims)
	maps.Copy(claims, changes)
	maps.DeleteFunc(claims, func(_ string, value any) bool { return value == nil })
	return claims
}

func (b *ciBench) signed(t *testing.T, realm string, claims map[string]any) string {
	t.Helper()
	token, err := b.server.SignJWT(realm, claims)
	require.NoError(t, err)
	shared.witness.addToken(idTokenPart, token)
	return token
}

func (b *ciBench) signIn(t *testing.T, role, idToken string) (*api.Secret, error) {
	t.Helper()
	return b.m.client.Logical().WriteWithContext(t.Context(), "auth/"+b.auth+"/login", map[string]any{"role": role, "jwt": idToken})
}

// TestCISignIn: the ID token of the right repository and branch gets a Vault token that reads one role's creds, and any other gets nothing.
func TestCISignIn(t *testing.T) {
	t.Parallel()
	for _, ci := range []ciSystem{gitHub(), gitLab()} {
		t.Run(ci.name, func(t *testing.T) {
			t.Parallel()
			b := ci.newBench(t)
			for name, claims := range ci.welcome() {
				t.Run(name, func(t *testing.T) {
					t.Parallel()
					b.requireReader(t, b.idToken(t, claims))
				})
			}
			t.Run("an ID token that has just expired", func(t *testing.T) { // clocks differ
				t.Parallel()
				b.requireReader(t, b.idToken(t, map[string]any{"exp": time.Now().Add(-5 * time.Second).Unix()}))
			})
			for _, row := range append(ci.unwelcome(), unwelcomeAnywhere()...) {
				t.Run(row.name, func(t *testing.T) {
					t.Parallel()
					b.requireRefused(t, b.idToken(t, row.claims), row.reason)
				})
			}
			t.Run("another issuer's key", func(t *testing.T) {
				t.Parallel()
				b.requireRefused(t, b.signed(t, "stranger", b.claimsOf(nil)), "failed to verify id token signature")
			})
			t.Run("no signature", func(t *testing.T) {
				t.Parallel()
				claims, err := json.Marshal(b.claimsOf(nil))
				require.NoError(t, err)
				encode := base64.RawURLEncoding.EncodeToString
				b.requireRefused(t, encode([]byte(`{"alg":"none","typ":"JWT"}`))+"."+encode(claims)+".", "token")
			})
		})
	}
}

// welcome has the changes to the claims with which a job is still the right one.
func (ci ciSystem) welcome() map[string]map[string]any {
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

// unwelcomeClaims is a job that is not the right one.
type unwelcomeClaims struct {
	name   string
	claims map[string]any
	reason string
}

func unwelcomeAnywhere() []unwelcomeClaims {
	past := time.Now().Add(-10 * time.Minute)
	return []unwelcomeClaims{
		{"another audience", map[string]any{"aud": "https://github.com/my-org"}, "audience"},
		{"no audience", map[string]any{"aud": nil}, "audience"},
		{"expired", map[string]any{"iat": past.Unix(), "nbf": past.Unix(), "exp": past.Add(5 * time.Minute).Unix()}, "expired"},
		{"not yet valid", map[string]any{"nbf": time.Now().Add(10 * time.Minute).Unix()}, "not before"},
		{"another issuer", map[string]any{"iss": "https://token.actions.example.com"}, "issuer"},
	}
}

func (ci ciSystem) unwelcome() []unwelcomeClaims {
	if ci.name == "github" {
		return []unwelcomeClaims{
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
	return []unwelcomeClaims{
		{"another project", map[string]any{"project_id": "1", "project_path": "my-group/other"}, `"project_id"`},
		{"another project of the same path", map[string]any{"project_id": "1"}, `"project_id"`},
		{"another branch", map[string]any{"ref": "feature", "ref_path": "refs/heads/feature"}, `"ref"`},
		{"a tag of that name", map[string]any{"ref_type": "tag", "ref_path": "refs/tags/main"}, `"ref_type"`},
		{"a branch that is not protected", map[string]any{"ref_protected": "false"}, `"ref_protected"`},
		{"a merge request", map[string]any{"pipeline_source": "merge_request_event"}, `"pipeline_source"`},
	}
}

func (b *ciBench) requireRefused(t *testing.T, idToken, reason string) {
	t.Helper()
	_, err := b.signIn(t, "myapi", idToken)
	var refusal *api.ResponseError
	require.ErrorAs(t, err, &refusal, "signed in")
	require.Equal(t, http.StatusBadRequest, refusal.StatusCode)
	require.Contains(t, strings.Join(refusal.Errors, "\n"), reason)
}

// requireReader signs in, and wants a Vault token that can read one role's creds and nothing else.
func (b *ciBench) requireReader(t *testing.T, idToken string) {
	t.Helper()
	secret, err := b.signIn(t, "myapi", idToken)
	require.NoError(t, err)
	require.Equal(t, []string{b.auth + "-myapi"}, secret.Auth.TokenPolicies)
	require.Equal(t, 300, secret.Auth.LeaseDuration)
	job := b.m.with(t, secret.Auth.ClientToken)
	require.Equal(t, http.StatusOK, callAPI(t, b.api.URL, job.read(t, "creds/myapi").text(t, "access_token")), "the API")
	for _, path := range []string{"creds/other", "assertion/myapi", "check/myapi", "keys/myapi", "roles/myapi", "config", "info", "wrapping_key"} {
		job.isRefused(t, http.MethodGet, path, nil)
	}
	for _, path := range []string{"auth/token/lookup-self", "sys/mounts", "cubbyhole/x"} {
		got, err := job.request(t.Context(), http.MethodGet, "/v1/"+path, nil, nil)
		require.NoError(t, err)
		require.Equal(t, http.StatusForbidden, got.status, path)
	}
}

// TestCIJobs runs the shell parts of the example jobs as they stand. vault-action cannot run here: the test makes the requests that it makes.
func TestCIJobs(t *testing.T) {
	t.Parallel()
	needTools(t, "curl", "jq")
	jobs := []struct {
		ciSystem
		file    string
		run     func(*ciBench, *testing.T, string, map[string]any) commandResult
		another map[string]any // the claims of a job that may not sign in
		revokes bool
	}{
		{gitHub(), "github-actions.yml", (*ciBench).runWorkflowFile, map[string]any{"event_name": "pull_request", "ref": "refs/pull/7/merge"}, true},
		{gitHub(), "github-vault-action.yml", (*ciBench).runWorkflowFile, map[string]any{"repository_id": "1"}, false},
		{gitLab(), "gitlab-ci.yml", (*ciBench).runPipelineFile, map[string]any{"project_id": "1"}, true},
	}
	files, err := filepath.Glob(exampleCI + "/*.yml")
	require.NoError(t, err)
	require.Len(t, files, len(jobs), "example jobs and their tests")
	for _, job := range jobs {
		t.Run(job.file, func(t *testing.T) {
			t.Parallel()
			b := job.newBench(t)
			run := rand.Text()
			ran := job.run(b, t, job.file, map[string]any{job.ciSystem.run: run})
			require.Zero(t, ran.code, ran.stderr)
			if !strings.Contains(ran.stdout, `"headers"`) {
				t.Error("the API's answer is not in the log")
			}
			require.Equal(t, 1, b.api.count())
			wanted := []string{"POST /v1/auth/" + b.name + "/login 200", "GET /v1/bcgov-jwt/creds/myapi 200"}
			if job.revokes {
				wanted = append(wanted, "POST /v1/auth/token/revoke-self 204")
				got, err := b.m.with(t, b.front.lastToken()).request(t.Context(), http.MethodGet, "/v1/auth/token/lookup-self", nil, nil)
				require.NoError(t, err)
				require.Equal(t, http.StatusForbidden, got.status, "the job's Vault token")
			}
			require.Equal(t, wanted, b.front.requests())
			requireAudited(t, b.m.path+"/creds/myapi", job.ciSystem.run, run)

			ran = job.run(b, t, job.file, job.another)
			require.NotZero(t, ran.code, "a job that may not sign in")
			require.Contains(t, ran.stderr, "does not match any associated bound claim values")
			require.Equal(t, 1, b.api.count())
		})
	}
}

// TestCITokenForOneUse: a Vault token for one request gets an unleased token, and no leased one.
func TestCITokenForOneUse(t *testing.T) {
	t.Parallel()
	b := gitHub().newBench(t)
	b.m.write(t, "roles/unleased", map[string]any{"key": "myapi", "delivery": "unleased"})
	b.setUp(t, "unleased")
	jobs := map[string]*mount{}
	for _, role := range []string{"myapi", "unleased"} {
		_, err := b.m.client.Logical().WriteWithContext(t.Context(), "auth/"+b.auth+"/role/"+role, map[string]any{"role_type": "jwt", "token_num_uses": 1})
		require.NoError(t, err)
		secret, err := b.signIn(t, role, b.idToken(t, nil))
		require.NoError(t, err)
		jobs[role] = b.m.with(t, secret.Auth.ClientToken)
	}
	b.requireRefused(t, b.idToken(t, map[string]any{"repository_id": "1"}), `"repository_id"`) // the rest of the role stays
	leased := jobs["myapi"].do(t, http.MethodGet, "creds/myapi", nil, nil)
	require.Contains(t, leased.errorText(), "token had one use left")

	token := jobs["unleased"].read(t, "creds/unleased").text(t, "access_token")
	require.Equal(t, http.StatusOK, callAPI(t, b.api.URL, token), "the API")
	jobs["unleased"].isRefused(t, http.MethodGet, "creds/unleased", nil)
}

// needTools skips the test where a program is missing that the CI systems' machines have, or fails it where none may be.
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

// requireAudited looks for a read in Vault's audit log that says by which run it was made.
func requireAudited(t *testing.T, path, claim, value string) {
	t.Helper()
	log, err := os.ReadFile(shared.Vault.auditFile())
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
		if entry.Type == "response" && entry.Request.Path == path && entry.Auth.Metadata[claim] == value {
			return
		}
	}
	t.Errorf("no read of %s in the audit log has the job's %s", path, claim)
}

// workflow is what counts of a GitHub Actions workflow file.
type workflow struct {
	On          map[string]any    `yaml:"on"`
	Permissions map[string]string `yaml:"permissions"`
	Jobs        map[string]struct {
		Permissions map[string]string `yaml:"permissions"`
		Env         map[string]string `yaml:"env"`
		Steps       []workflowStep    `yaml:"steps"`
	} `yaml:"jobs"`
}

type workflowStep struct {
	ID    string            `yaml:"id"`
	Uses  string            `yaml:"uses"`
	With  map[string]string `yaml:"with"`
	Shell string            `yaml:"shell"`
	Env   map[string]string `yaml:"env"`
	Run   string            `yaml:"run"`
}

func readYAML(t *testing.T, file string, into any) {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(exampleCI, file))
	require.NoError(t, err)
	require.NoError(t, yaml.Unmarshal(content, into))
}

// runWorkflowFile does what GitHub and its runner do with a workflow file that has one job.
func (b *ciBench) runWorkflowFile(t *testing.T, file string, claims map[string]any) commandResult {
	t.Helper()
	var w workflow
	readYAML(t, file, &w)
	require.Equal(t, map[string]any{"push": map[string]any{"branches": []any{"main"}}, "workflow_dispatch": nil}, w.On)
	require.Empty(t, w.Permissions)
	require.Len(t, w.Jobs, 1)
	expressions := map[string]string{"vars.VAULT_ADDR": b.front.URL, "vars.API_URL": b.api.URL}
	var all commandResult
	for _, job := range w.Jobs {
		require.Equal(t, map[string]string{"id-token": "write"}, job.Permissions)
		for _, step := range job.Steps {
			var ran commandResult
			if step.Uses != "" {
				ran = b.playVaultAction(t, step, claims, expressions)
			} else {
				ran = b.runStep(t, step, job.Env, claims, expressions)
			}
			all = commandResult{stdout: all.stdout + ran.stdout, stderr: all.stderr + ran.stderr, code: ran.code}
			if ran.code != 0 {
				break
			}
		}
	}
	return all
}

// runStep runs a step's script as GitHub's runner runs `shell: bash`, and shows the witness what is in the log.
func (b *ciBench) runStep(t *testing.T, step workflowStep, jobEnv map[string]string, claims map[string]any, expressions map[string]string) commandResult {
	t.Helper()
	require.Equal(t, "bash", step.Shell)
	requestToken := rand.Text()
	tokens := b.serveIDTokens(t, requestToken, claims)
	env := []string{"ACTIONS_ID_TOKEN_REQUEST_URL=" + tokens + "?api-version=2.0", "ACTIONS_ID_TOKEN_REQUEST_TOKEN=" + requestToken}
	for _, variables := range []map[string]string{jobEnv, step.Env} {
		for name, value := range variables {
			env = append(env, name+"="+evaluate(t, value, expressions))
		}
	}
	script := filepath.Join(t.TempDir(), "step.sh")
	require.NoError(t, os.WriteFile(script, []byte(evaluate(t, step.Run, expressions)), 0o600))
	ran := runScript(t, env, "bash", "--noprofile", "--norc", "-eo", "pipefail", script)
	// The runner takes these lines as orders. In the log there are stars in their place.
	ran.stdout = regexp.MustCompile(`(?m)^::add-mask::.*$`).ReplaceAllString(ran.stdout, "::add-mask::***")
	shared.witness.saw("the log of the step in "+b.m.path, ran.stdout+ran.stderr)
	return ran
}

// evaluate puts values in the place of ${{ expressions }}.
func evaluate(t *testing.T, text string, expressions map[string]string) string {
	t.Helper()
	return regexp.MustCompile(`\$\{\{ *(.*?) *\}\}`).ReplaceAllStringFunc(text, func(match string) string {
		name := strings.Trim(match, "${} ")
		value, known := expressions[name]
		require.True(t, known, "no value is known of %s", match)
		return value
	})
}

// serveIDTokens is where a job of GitHub Actions asks for its ID token.
func (b *ciBench) serveIDTokens(t *testing.T, requestToken string, claims map[string]any) string {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer "+requestToken || r.URL.Query().Get("api-version") != "2.0" {
			http.Error(w, "{}", http.StatusUnauthorized)
			return
		}
		audience := r.URL.Query().Get("audience")
		if audience == "" {
			audience = "https://github.com/my-org"
		}
		asked := maps.Clone(claims)
		asked["aud"] = audience
		token, err := b.server.SignJWT("ci", b.claimsOf(asked))
		if err != nil {
			http.Error(w, "{}", http.StatusInternalServerError)
			return
		}
		shared.witness.addToken(idTokenPart, token)
		_ = json.NewEncoder(w).Encode(map[string]any{"count": len(token), "value": token})
	}))
	t.Cleanup(server.Close)
	return server.URL
}

// playVaultAction makes the requests of hashicorp/vault-action v3.4.0 (src/auth.js and src/secrets.js), and sets the output that it sets.
func (b *ciBench) playVaultAction(t *testing.T, step workflowStep, claims map[string]any, expressions map[string]string) commandResult {
	t.Helper()
	require.Regexp(t, `^hashicorp/vault-action@[0-9a-f]{40}$`, step.Uses)
	with := map[string]string{}
	for name, value := range step.With {
		with[name] = evaluate(t, value, expressions)
	}
	require.Equal(t, "jwt", with["method"])
	require.Equal(t, "false", with["exportEnv"])
	path, field, found := strings.Cut(with["secrets"], " ")
	require.True(t, found)

	asked := maps.Clone(claims)
	asked["aud"] = with["jwtGithubAudience"]
	signIn, err := json.Marshal(map[string]string{"role": with["role"], "jwt": b.idToken(t, asked)})
	require.NoError(t, err)
	login := actionRequest(t, http.MethodPost, with["url"]+"/v1/auth/"+with["path"]+"/login", "", signIn)
	if len(login.Errors) > 0 {
		return commandResult{stderr: strings.Join(login.Errors, "\n"), code: 1}
	}
	secret := actionRequest(t, http.MethodGet, with["url"]+"/v1/"+path, login.Auth.ClientToken, nil)
	require.NotContains(t, secret.Data, "data", "a field that would lead the action astray")
	value, ok := secret.Data[field].(string)
	require.True(t, ok, "%s is no string", field)
	expressions["steps."+step.ID+".outputs."+field] = value
	return commandResult{}
}

// actionAnswer is what the action looks at in an answer of Vault.
type actionAnswer struct {
	Errors []string `json:"errors"`
	Auth   struct {
		ClientToken string `json:"client_token"`
	} `json:"auth"`
	Data map[string]any `json:"data"`
}

func actionRequest(t *testing.T, method, address, token string, body []byte) actionAnswer {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, address, bytes.NewReader(body))
	require.NoError(t, err)
	if token != "" {
		req.Header.Set("X-Vault-Token", token)
	}
	resp, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	defer resp.Body.Close()
	var answer actionAnswer
	require.NoError(t, json.NewDecoder(resp.Body).Decode(&answer))
	return answer
}

// pipelineJob is what counts of a job in a GitLab CI file.
type pipelineJob struct {
	Rules    []map[string]string `yaml:"rules"`
	IDTokens map[string]struct {
		Audience string `yaml:"aud"`
	} `yaml:"id_tokens"`
	BeforeScript []string `yaml:"before_script"`
	Script       []string `yaml:"script"`
}

// runPipelineFile does what GitLab and its runner do with a file that has one job, in an image that has just sh. before_script only installs what is here
// already.
func (b *ciBench) runPipelineFile(t *testing.T, file string, claims map[string]any) commandResult {
	t.Helper()
	var jobs map[string]pipelineJob
	readYAML(t, file, &jobs)
	require.Len(t, jobs, 1)
	var ran commandResult
	for _, job := range jobs {
		require.Equal(t, []map[string]string{{"if": `$CI_COMMIT_BRANCH == "main"`}}, job.Rules)
		require.Equal(t, []string{"apk add --no-cache curl jq"}, job.BeforeScript)
		variables := map[string]string{"VAULT_ADDR": b.front.URL, "API_URL": b.api.URL}
		env := []string{"VAULT_ADDR=" + b.front.URL, "API_URL=" + b.api.URL}
		for name, token := range job.IDTokens {
			asked := maps.Clone(claims)
			asked["aud"] = os.Expand(token.Audience, func(name string) string { return variables[name] })
			env = append(env, name+"="+b.idToken(t, asked))
		}
		script := filepath.Join(t.TempDir(), "script.sh")
		require.NoError(t, os.WriteFile(script, []byte(strings.Join(job.Script, "\n")), 0o600))
		ran = runScript(t, env, "sh", "-e", script)
		shared.witness.saw("the log of the job in "+b.m.path, ran.stdout+ran.stderr)
	}
	return ran
}

// vaultFront is Vault under the paths that the examples name, and remembers what came through.
type vaultFront struct {
	URL string

	mu     sync.Mutex
	seen   []string
	tokens []string // Vault tokens, in the order in which they were given
}

// newVaultFront puts a proxy before Vault that puts real paths in the place of those that the examples name.
func newVaultFront(t *testing.T, paths map[string]string) *vaultFront {
	t.Helper()
	vault, err := url.Parse("http://" + shared.Vault.Address)
	require.NoError(t, err)
	f := &vaultFront{}
	server := httptest.NewServer(&httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(vault)
			for named, actual := range paths {
				r.Out.URL.Path = strings.Replace(r.Out.URL.Path, named, actual, 1)
			}
		},
		ModifyResponse: func(resp *http.Response) error {
			named := resp.Request.URL.Path
			for name, actual := range paths {
				named = strings.Replace(named, actual, name, 1)
			}
			body, err := io.ReadAll(resp.Body)
			resp.Body = io.NopCloser(bytes.NewReader(body))
			f.remember(fmt.Sprintf("%s %s %d", resp.Request.Method, named, resp.StatusCode), body)
			return err
		},
	})
	t.Cleanup(server.Close)
	f.URL = server.URL
	return f
}

func (f *vaultFront) remember(seen string, body []byte) {
	var answer struct {
		Auth struct {
			ClientToken string `json:"client_token"`
		} `json:"auth"`
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.seen = append(f.seen, seen)
	if json.Unmarshal(body, &answer) == nil && answer.Auth.ClientToken != "" {
		f.tokens = append(f.tokens, answer.Auth.ClientToken)
		shared.witness.addToken(vaultTokenPart, answer.Auth.ClientToken)
	}
}

func (f *vaultFront) requests() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.seen)
}

func (f *vaultFront) lastToken() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.tokens[len(f.tokens)-1]
}

// countingAPI is an API that counts the requests it got.
type countingAPI struct {
	URL string

	mu    sync.Mutex
	calls int
}

func newCountingAPI(t *testing.T, api http.Handler) *countingAPI {
	t.Helper()
	c := &countingAPI{}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c.mu.Lock()
		c.calls++
		c.mu.Unlock()
		api.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	c.URL = server.URL
	return c
}

func (c *countingAPI) count() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.calls
}
