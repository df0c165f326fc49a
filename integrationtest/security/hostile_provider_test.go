package security

import (
	"crypto/rand"
	"encoding/json"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/bcgov/vault-plugin-bcgov-jwt/integrationtest/harness"
)

// TestHostileProvider_EchoesRevealNoSecret has providers that send back what they received,
// wherever an error might quote it.
func TestHostileProvider_EchoesRevealNoSecret(t *testing.T) {
	t.Parallel()
	m := harness.NewMount(t, map[string]any{
		"allow_insecure_endpoints": true, "max_retries": 1, "request_timeout": 1,
	})
	for _, row := range hostileProviders() {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			var sent atomic.Int64
			baseURL := harness.Serve(t, func(w http.ResponseWriter, r *http.Request) {
				assertion := r.PostFormValue("client_assertion")
				if assertion != "" {
					sent.Add(1)
				}
				row.respond(w, r, assertion)
			})
			name := strings.ReplaceAll(row.name, " ", "-")
			m.Write(t, "keys/"+name, keyAt(baseURL))
			m.Write(t, "roles/"+name, map[string]any{"scopes": "one"})
			got := m.Do(t, http.MethodGet, "creds/"+name, nil, nil)
			require.Equal(t, row.status, got.Status, got.ErrorText())
			m.MustFail(t, "read", "{mount}/creds/"+name)
			require.Equal(t, false, m.Read(t, "check/"+name).Data["ok"])
			require.Empty(t, harness.Detector().Leaks(func(where string) bool {
				return strings.Contains(where, m.Path) && strings.Contains(where, name)
			}))
			require.NotZero(t, sent.Load(), "no assertion was received to be sent back")
		})
	}
}

// TestHostileProvider_MisplacedTokensStaySecret has providers that issue tokens, and then return
// them, or the assertion, where they do not belong.
func TestHostileProvider_MisplacedTokensStaySecret(t *testing.T) {
	t.Parallel()
	rows := []struct {
		name       string
		token      string // {random} is replaced
		scope      string // {assertion} is replaced
		revocation string // {token} and {assertion} are replaced
	}{
		{"JWT in the refusal of its revocation", "eyJhbGciOiJSUzI1NiJ9.eyJ{random}{random}.{random}{random}", "", "cannot revoke {token}"},
		{"opaque token in the refusal of its revocation", "{random}{random}", "", "cannot revoke {token}"},
		{"assertion in the refusal of a revocation", "{random}{random}", "", "cannot take {assertion}"},
		{"assertion for a scope", "{random}{random}", "{assertion}", ""},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			baseURL := harness.Serve(t, func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Content-Type", "application/json")
				sent := strings.NewReplacer("{assertion}", r.PostFormValue("client_assertion"),
					"{token}", r.PostFormValue("token"), "{random}", rand.Text())
				response := map[string]any{
					"access_token": sent.Replace(row.token), "token_type": "Bearer", "expires_in": 300,
					"scope": sent.Replace(row.scope),
				}
				if r.URL.Path == "/revoke" {
					w.WriteHeader(http.StatusBadRequest)
					response = map[string]any{
						"error": "invalid_request", "error_description": sent.Replace(row.revocation),
					}
				}
				_ = json.NewEncoder(w).Encode(response)
			})
			m := harness.NewMount(t, map[string]any{"allow_insecure_endpoints": true})
			m.Write(t, "keys/myapi", keyAt(baseURL))
			m.Write(t, "roles/myapi", nil)
			m.Do(t, http.MethodGet, "creds/myapi", nil, nil)
			m.Read(t, "check/myapi")
			require.Empty(t, harness.Detector().Leaks(func(where string) bool {
				return strings.Contains(where, m.Path)
			}))
		})
	}
}
