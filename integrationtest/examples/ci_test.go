package examples

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bcgov/vault-plugin-bcgov-jwt/integrationtest/harness"
)

// TestCI_OnlyRightJobLogsIn: the ID token of the right repository and branch obtains a Vault token
// that reads one role's creds, and no other ID token is accepted.
func TestCI_OnlyRightJobLogsIn(t *testing.T) {
	t.Parallel()
	for _, ci := range []ciSystem{gitHub(), gitLab()} {
		t.Run(ci.name, func(t *testing.T) {
			t.Parallel()
			f := ci.newFixture(t)
			for name, claims := range ci.acceptedClaims() {
				t.Run(name, func(t *testing.T) {
					t.Parallel()
					f.requireReader(t, f.idToken(t, claims))
				})
			}
			t.Run("an ID token that has just expired", func(t *testing.T) { // clocks differ
				t.Parallel()
				expired := time.Now().Add(-5 * time.Second).Unix()
				f.requireReader(t, f.idToken(t, map[string]any{"exp": expired}))
			})
			for _, row := range append(ci.rejectedClaims(), rejectedAnywhere()...) {
				t.Run(row.name, func(t *testing.T) {
					t.Parallel()
					f.requireRejected(t, f.idToken(t, row.claims), row.reason)
				})
			}
			t.Run("another issuer's key", func(t *testing.T) {
				t.Parallel()
				idToken := f.signed(t, "stranger", f.claimsOf(nil))
				f.requireRejected(t, idToken, "failed to verify id token signature")
			})
			t.Run("no signature", func(t *testing.T) {
				t.Parallel()
				claims, err := json.Marshal(f.claimsOf(nil))
				require.NoError(t, err)
				encode := base64.RawURLEncoding.EncodeToString
				header := []byte(`{"alg":"none","typ":"JWT"}`)
				f.requireRejected(t, encode(header)+"."+encode(claims)+".", "token")
			})
		})
	}
}

// TestCI_RunsExampleJobs runs the shell parts of the example jobs as they stand, and requires the
// log to show why Vault returns no token. vault-action cannot run here: the test sends the requests
// that it sends.
func TestCI_RunsExampleJobs(t *testing.T) {
	t.Parallel()
	needTools(t, "curl", "jq")
	jobs := []struct {
		ciSystem
		file    string
		run     func(*ciFixture, *testing.T, string, map[string]any) harness.CommandResult
		another map[string]any // the claims of a job that may not log in
		revokes bool
	}{
		{
			gitHub(), "github-actions.yml", (*ciFixture).runWorkflowFile,
			map[string]any{"event_name": "pull_request", "ref": "refs/pull/7/merge"},
			true,
		},
		{
			gitHub(), "github-vault-action.yml", (*ciFixture).runWorkflowFile,
			map[string]any{"repository_id": "1"},
			false,
		},
		{
			gitLab(), "gitlab-ci.yml", (*ciFixture).runPipelineFile,
			map[string]any{"project_id": "1"},
			true,
		},
	}
	files, err := filepath.Glob(example("ci/*.yml"))
	require.NoError(t, err)
	require.Len(t, files, len(jobs), "example jobs and their tests")
	for _, job := range jobs {
		t.Run(job.file, func(t *testing.T) {
			t.Parallel()
			f := job.newFixture(t)
			run := rand.Text()
			result := job.run(f, t, job.file, map[string]any{job.ciSystem.run: run})
			require.Zero(t, result.Code, result.Stderr)
			logged := strings.Contains(result.Stdout, `"headers"`)
			require.True(t, logged, "the API's response is in the log")
			require.Equal(t, 1, f.api.Calls())
			want := []string{
				"POST /v1/auth/" + f.name + "/login 200", "GET /v1/bcgov-jwt/creds/myapi 200",
			}
			if job.revokes {
				want = append(want, "POST /v1/auth/token/revoke-self 204")
				job := f.m.As(t, f.vault.lastToken())
				got := job.DoOutside(t, http.MethodGet, "auth/token/lookup-self")
				require.Equal(t, http.StatusForbidden, got.Status, "the job's Vault token")
			}
			require.Equal(t, want, f.vault.requests())
			requireAudited(t, f.m.Path+"/creds/myapi", job.ciSystem.run, run)

			result = job.run(f, t, job.file, job.another)
			require.NotZero(t, result.Code, "a job that may not log in")
			require.Contains(t, result.Stderr, "does not match any associated bound claim values")
			require.Equal(t, 1, f.api.Calls())

			f.m.Delete(t, "roles/myapi")
			result = job.run(f, t, job.file, map[string]any{})
			require.NotZero(t, result.Code, "a job whose role has been deleted")
			require.Contains(t, result.Stdout+result.Stderr, "role \"myapi\"", "Vault's message")
			require.Equal(t, 1, f.api.Calls())
		})
	}
}

// TestCI_VaultTokenForOneUse: a Vault token for one request obtains an unleased token, and no
// leased one.
func TestCI_VaultTokenForOneUse(t *testing.T) {
	t.Parallel()
	f := gitHub().newFixture(t)
	f.m.Write(t, "roles/unleased", map[string]any{"key": "myapi", "delivery": "unleased"})
	f.setUp(t, "unleased")
	jobs := map[string]*harness.Mount{}
	for _, role := range []string{"myapi", "unleased"} {
		oneUse := map[string]any{"role_type": "jwt", "token_num_uses": 1}
		path := "auth/" + f.auth + "/role/" + role
		_, err := f.m.Client.Logical().WriteWithContext(t.Context(), path, oneUse)
		require.NoError(t, err)
		secret, err := f.login(t, role, f.idToken(t, nil))
		require.NoError(t, err)
		jobs[role] = f.m.As(t, secret.Auth.ClientToken)
	}
	// The rest of the role is unchanged.
	f.requireRejected(t, f.idToken(t, map[string]any{"repository_id": "1"}), `"repository_id"`)
	leased := jobs["myapi"].Do(t, http.MethodGet, "creds/myapi", nil, nil)
	require.Contains(t, leased.ErrorText(), "token had one use left")

	token := jobs["unleased"].Read(t, "creds/unleased").Text(t, "access_token")
	require.Equal(t, http.StatusOK, f.api.Call(t, token), "the API")
	jobs["unleased"].RequireForbidden(t, http.MethodGet, "creds/unleased", nil)
}
