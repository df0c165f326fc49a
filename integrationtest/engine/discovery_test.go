package engine

import (
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/bcgov/vault-plugin-bcgov-jwt/integrationtest/harness"
)

// TestDiscovery_CannotLeadElsewhere has one row for each endpoint that a discovery document must
// not name.
func TestDiscovery_CannotLeadElsewhere(t *testing.T) {
	t.Parallel()
	rows := []struct {
		name     string
		document func(issuer string) string
		want     []string
	}{
		{
			"another issuer", func(issuer string) string {
				return `{"issuer":"` + issuer + `/","token_endpoint":"` + issuer + `/token"}`
			},
			[]string{"issuer", "vault write {mount}/keys/myapi issuer="},
		},
		{
			"an endpoint at a metadata address", func(issuer string) string {
				return `{"issuer":"` + issuer + `","token_endpoint":"http://169.254.169.254/token"}`
			},
			[]string{"token_endpoint", "169.254.169.254", "never allowed"},
		},
		{
			"an endpoint at a private address", func(issuer string) string {
				return `{"issuer":"` + issuer + `","token_endpoint":"http://10.0.0.1/token"}`
			},
			[]string{"token_endpoint", "10.0.0.1", "allowed_hosts"},
		},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			issuer := harness.Serve(t, func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Content-Type", "application/json")
				_, _ = w.Write([]byte(row.document("http://" + r.Host)))
			})
			m := harness.NewMount(t, map[string]any{"allow_insecure_endpoints": true})
			m.Write(t, "keys/myapi", map[string]any{
				"type": "ecdsa-p256", "client_id": "any", "issuer": issuer,
			})
			m.Write(t, "roles/myapi", nil)
			got := m.Do(t, http.MethodGet, "creds/myapi", nil, nil)
			require.Equal(t, http.StatusBadRequest, got.Status, got.ErrorText())
			for _, text := range row.want {
				harness.RequireTexts(t, got.ErrorText(), m.Expand(text))
			}
			require.Equal(t, "discovery", m.Read(t, "check/myapi").Data["failed_step"])
		})
	}
}
