package examples

import (
	"bytes"
	"cmp"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"

	"github.com/bcgov/vault-plugin-bcgov-jwt/integrationtest/harness"
)

// workflow holds what matters of a GitHub Actions workflow file.
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
	If    string            `yaml:"if"`
	Uses  string            `yaml:"uses"`
	With  map[string]string `yaml:"with"`
	Shell string            `yaml:"shell"`
	Env   map[string]string `yaml:"env"`
	Run   string            `yaml:"run"`
}

func readYAML(t *testing.T, file string, into any) {
	t.Helper()
	content, err := os.ReadFile(example("ci/" + file))
	require.NoError(t, err)
	require.NoError(t, yaml.Unmarshal(content, into))
}

// runWorkflowFile does what GitHub and its runner do with a workflow file that has one job.
func (f *ciFixture) runWorkflowFile(
	t *testing.T, file string, claims map[string]any,
) harness.CommandResult {
	t.Helper()
	var w workflow
	readYAML(t, file, &w)
	require.Equal(t, map[string]any{
		"push": map[string]any{"branches": []any{"main"}}, "workflow_dispatch": nil,
	}, w.On)
	require.Empty(t, w.Permissions)
	require.Len(t, w.Jobs, 1)
	expressions := map[string]string{"vars.VAULT_ADDR": f.vault.URL, "vars.API_URL": f.api.URL}
	var all harness.CommandResult
	for _, job := range w.Jobs {
		require.Equal(t, map[string]string{"id-token": "write"}, job.Permissions)
		for _, step := range job.Steps {
			if failed := all.Code != 0; failed != (step.If == "failure()") {
				continue
			}
			var result harness.CommandResult
			if step.Uses != "" {
				result = f.runVaultAction(t, step, claims, expressions)
			} else {
				result = f.runStep(t, step, job.Env, claims, expressions)
			}
			all = harness.CommandResult{
				Stdout: all.Stdout + result.Stdout, Stderr: all.Stderr + result.Stderr,
				Code: max(all.Code, result.Code),
			}
		}
	}
	return all
}

// runStep runs a step's script as GitHub's runner runs `shell: bash`, and records its log.
func (f *ciFixture) runStep(
	t *testing.T, step workflowStep, jobEnv map[string]string, claims map[string]any,
	expressions map[string]string,
) harness.CommandResult {
	t.Helper()
	require.Equal(t, "bash", step.Shell)
	requestToken := rand.Text()
	tokens := f.serveIDTokens(t, requestToken, claims)
	env := []string{
		"ACTIONS_ID_TOKEN_REQUEST_URL=" + tokens + "?api-version=2.0",
		"ACTIONS_ID_TOKEN_REQUEST_TOKEN=" + requestToken,
	}
	for _, variables := range []map[string]string{jobEnv, step.Env} {
		for name, value := range variables {
			env = append(env, name+"="+evaluate(t, value, expressions))
		}
	}
	script := filepath.Join(t.TempDir(), "step.sh")
	require.NoError(t, os.WriteFile(script, []byte(evaluate(t, step.Run, expressions)), 0o600))
	result := runScript(t, env, "bash", "--noprofile", "--norc", "-eo", "pipefail", script)
	// These lines are commands to the runner, which masks them in the log.
	mask := regexp.MustCompile(`(?m)^::add-mask::.*$`)
	result.Stdout = mask.ReplaceAllString(result.Stdout, "::add-mask::***")
	harness.Detector().Record("the log of the step in "+f.m.Path, result.Stdout+result.Stderr)
	return result
}

// evaluate replaces ${{ expressions }} by their values.
func evaluate(t *testing.T, text string, expressions map[string]string) string {
	t.Helper()
	expression := regexp.MustCompile(`\$\{\{ *(.*?) *\}\}`)
	return expression.ReplaceAllStringFunc(text, func(match string) string {
		name := strings.Trim(match, "${} ")
		value, known := expressions[name]
		require.True(t, known, "%s has no value", match)
		return value
	})
}

// serveIDTokens serves the URL at which a job of GitHub Actions requests its ID token.
func (f *ciFixture) serveIDTokens(
	t *testing.T, requestToken string, claims map[string]any,
) (url string) {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		query := r.URL.Query()
		authorized := r.Header.Get("Authorization") == "Bearer "+requestToken
		if !authorized || query.Get("api-version") != "2.0" {
			http.Error(w, "{}", http.StatusUnauthorized)
			return
		}
		requested := maps.Clone(claims)
		requested["aud"] = cmp.Or(query.Get("audience"), "https://github.com/my-org")
		token, err := f.server.SignJWT("ci", f.claimsOf(requested))
		if err != nil {
			http.Error(w, "{}", http.StatusInternalServerError)
			return
		}
		harness.Detector().AddToken(kindIDToken, token)
		_ = json.NewEncoder(w).Encode(map[string]any{"count": len(token), "value": token})
	}))
	t.Cleanup(server.Close)
	return server.URL
}

// runVaultAction sends the requests of hashicorp/vault-action v3.4.0 (src/auth.js and
// src/secrets.js), and sets the output that it sets.
func (f *ciFixture) runVaultAction(
	t *testing.T, step workflowStep, claims map[string]any, expressions map[string]string,
) harness.CommandResult {
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

	requested := maps.Clone(claims)
	requested["aud"] = with["jwtGithubAudience"]
	idToken := f.idToken(t, requested)
	body, err := json.Marshal(map[string]string{"role": with["role"], "jwt": idToken})
	require.NoError(t, err)
	loginURL := with["url"] + "/v1/auth/" + with["path"] + "/login"
	login := requestAsAction(t, http.MethodPost, loginURL, "", body)
	if len(login.Errors) > 0 {
		return harness.CommandResult{Stderr: strings.Join(login.Errors, "\n"), Code: 1}
	}
	readURL := with["url"] + "/v1/" + path
	secret := requestAsAction(t, http.MethodGet, readURL, login.Auth.ClientToken, nil)
	if len(secret.Errors) > 0 { // it reports only the status
		return harness.CommandResult{Stderr: "Response code " + secret.status, Code: 1}
	}
	require.NotContains(t, secret.Data, "data", "a field that the action would interpret")
	value, ok := secret.Data[field].(string)
	require.True(t, ok, "%s is not a string", field)
	expressions["steps."+step.ID+".outputs."+field] = value
	return harness.CommandResult{}
}

// actionResponse holds what the action reads of a response of Vault.
type actionResponse struct {
	status string
	Errors []string `json:"errors"`
	Auth   struct {
		ClientToken string `json:"client_token"`
	} `json:"auth"`
	Data map[string]any `json:"data"`
}

func requestAsAction(t *testing.T, method, address, token string, body []byte) actionResponse {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, address, bytes.NewReader(body))
	require.NoError(t, err)
	if token != "" {
		req.Header.Set("X-Vault-Token", token)
	}
	resp, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	defer resp.Body.Close()
	var response actionResponse
	require.NoError(t, json.NewDecoder(resp.Body).Decode(&response))
	response.status = resp.Status
	return response
}

// pipelineJob holds what matters of a job in a GitLab CI file.
type pipelineJob struct {
	Rules    []map[string]string `yaml:"rules"`
	IDTokens map[string]struct {
		Audience string `yaml:"aud"`
	} `yaml:"id_tokens"`
	BeforeScript []string `yaml:"before_script"`
	Script       []string `yaml:"script"`
}

// runPipelineFile does what GitLab and its runner do with a file that has one job, in an image that
// has only sh. before_script installs only what is present here.
func (f *ciFixture) runPipelineFile(
	t *testing.T, file string, claims map[string]any,
) (result harness.CommandResult) {
	t.Helper()
	var jobs map[string]pipelineJob
	readYAML(t, file, &jobs)
	require.Len(t, jobs, 1)
	for _, job := range jobs {
		require.Equal(t, []map[string]string{{"if": `$CI_COMMIT_BRANCH == "main"`}}, job.Rules)
		require.Equal(t, []string{"apk add --no-cache curl jq"}, job.BeforeScript)
		variables := map[string]string{"VAULT_ADDR": f.vault.URL, "API_URL": f.api.URL}
		env := []string{"VAULT_ADDR=" + f.vault.URL, "API_URL=" + f.api.URL}
		for name, token := range job.IDTokens {
			requested := maps.Clone(claims)
			variable := func(name string) string { return variables[name] }
			requested["aud"] = os.Expand(token.Audience, variable)
			env = append(env, name+"="+f.idToken(t, requested))
		}
		script := filepath.Join(t.TempDir(), "script.sh")
		require.NoError(t, os.WriteFile(script, []byte(strings.Join(job.Script, "\n")), 0o600))
		result = runScript(t, env, "sh", "-e", script)
		harness.Detector().Record("the log of the job in "+f.m.Path, result.Stdout+result.Stderr)
	}
	return result
}

// vaultProxy is Vault at the paths that the examples name. It records what passes.
type vaultProxy struct {
	URL string

	mu     sync.Mutex
	passed []string
	tokens []string // Vault tokens, in the order in which they were issued
}

// newVaultProxy starts a proxy in front of Vault that replaces the paths that the examples name.
func newVaultProxy(t *testing.T, paths map[string]string) *vaultProxy {
	t.Helper()
	vault, err := url.Parse(harness.Vault().URL())
	require.NoError(t, err)
	p := &vaultProxy{}
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
			p.record(fmt.Sprintf("%s %s %d", resp.Request.Method, named, resp.StatusCode), body)
			return err
		},
	})
	t.Cleanup(server.Close)
	p.URL = server.URL
	return p
}

func (p *vaultProxy) record(request string, body []byte) {
	var response struct {
		Auth struct {
			ClientToken string `json:"client_token"`
		} `json:"auth"`
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.passed = append(p.passed, request)
	if json.Unmarshal(body, &response) == nil && response.Auth.ClientToken != "" {
		p.tokens = append(p.tokens, response.Auth.ClientToken)
		harness.Detector().AddToken(kindVaultToken, response.Auth.ClientToken)
	}
}

func (p *vaultProxy) requests() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.passed)
}

func (p *vaultProxy) lastToken() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.tokens[len(p.tokens)-1]
}
