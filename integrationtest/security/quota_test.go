package security

import (
	"context"
	"net/http"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/bcgov/vault-plugin-bcgov-jwt/integrationtest/harness"
)

// quotaCommand matches a command of docs/operating.md that sets a quota.
var quotaCommand = regexp.MustCompile(`(?m)^vault (write (sys/quotas/rate-limit/\S+) path='bcgov-jwt(/\w+/)\*' rate=\d+)$`)

// TestQuota_LimitsWhatAnyoneMaySend runs the commands of docs/operating.md.
func TestQuota_LimitsWhatAnyoneMaySend(t *testing.T) {
	t.Parallel()
	page := harness.RepositoryFile(t, "docs/operating.md")
	commands := quotaCommand.FindAllStringSubmatch(page, -1)
	require.Len(t, commands, 3)

	p := harness.EmbeddedProvider(t)
	m := harness.NewMount(t, p.Config)
	m.NewClient(t, p, "myapi", nil)
	limited := map[string]bool{}
	for _, command := range commands {
		quota, path := command[2], command[3]
		arguments := strings.NewReplacer("'", "", "bcgov-jwt/", m.Path+"/", quota, quota+m.Path).Replace(command[1])
		m.MustRun(t, strings.Fields(arguments)...)
		t.Cleanup(func() {
			_, err := m.Client.Logical().DeleteWithContext(context.WithoutCancel(t.Context()), quota+m.Path)
			assert.NoError(t, err)
		})
		requireLimited(t, m, strings.TrimPrefix(path, "/")+"myapi")
		limited[path] = true
	}
	require.Equal(t, map[string]bool{"/jwks/": true, "/creds/": true, "/check/": true}, limited)
	m.Read(t, "keys/myapi")
}

// requireLimited sends bursts of requests until Vault rejects some of one, and none of it fails otherwise.
func requireLimited(t *testing.T, m *harness.Mount, path string) {
	t.Helper()
	require.Eventually(t, func() bool {
		var burst sync.WaitGroup
		var served, rejected atomic.Int64
		for range 100 {
			burst.Go(func() {
				response, err := m.Request(t.Context(), http.MethodGet, path, nil)
				switch {
				case err != nil:
					t.Error(err)
				case response.Status == http.StatusTooManyRequests:
					rejected.Add(1)
				case response.Status < http.StatusInternalServerError:
					served.Add(1)
				default:
					t.Errorf("%s: %d %s", path, response.Status, response.ErrorText())
				}
			})
		}
		burst.Wait()
		return t.Failed() || rejected.Load() > 0 && served.Load() > 0
	}, time.Minute, time.Millisecond, path)
}

// TestJWKS_AcceptsNoWrite: it is the only path without a Vault token.
func TestJWKS_AcceptsNoWrite(t *testing.T) {
	t.Parallel()
	m := harness.NewMount(t, nil)
	path := strings.TrimPrefix(m.Write(t, "keys/myapi", map[string]any{"registration": "jwks"}).Text(t, "jwks_path"), "/v1/"+m.Path+"/")
	anyone := m.As(t, "")
	for _, method := range []string{http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete} {
		response := anyone.Do(t, method, path, nil, map[string]any{"id": "x", "nonsense": strings.Repeat("x", 1<<20)})
		require.Equal(t, http.StatusMethodNotAllowed, response.Status, "%s: %v", method, response)
		require.NotContains(t, response.ErrorText(), "nonsense")
	}
	require.Equal(t, http.StatusNotFound, anyone.Do(t, http.MethodGet, "jwks/unknown", nil, nil).Status)
}
