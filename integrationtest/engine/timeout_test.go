package engine

import (
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bcgov/vault-plugin-bcgov-jwt/integrationtest/harness"
)

const requestTimeout = 2 * time.Second

// TestFailure_ReachesUserInTime runs the unmodified vault command, which does not know the plugin's
// deadlines.
func TestFailure_ReachesUserInTime(t *testing.T) {
	t.Parallel()
	const timedOut = "no complete response within request_timeout (2s)"
	rows := []struct {
		name     string
		endpoint func(*testing.T) string
		want     []string
	}{
		{"a provider that never answers", silentProvider, []string{"Code: 504", timedOut, "{mount}/"}},
		{"a provider that answers half", stallingProvider, []string{"Code: 504", timedOut}},
		{"nobody listens", closedPort, []string{"Code: 502", "refused", "{mount}/"}},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			m := harness.NewMount(t, map[string]any{
				"allow_insecure_endpoints": true, "request_timeout": requestTimeout.Seconds(),
			})
			for _, settings := range []map[string]any{
				// Discovery fails, then the token request does.
				{"type": "ecdsa-p256", "client_id": "any", "issuer": row.endpoint(t)},
				{"token_endpoint": row.endpoint(t) + "/protocol/openid-connect/token"},
			} {
				m.Write(t, "keys/myapi", settings)
				m.Write(t, "roles/myapi", nil)
				begun := time.Now()
				printed := m.MustFail(t, "read", "{mount}/creds/myapi")
				require.Less(t, time.Since(begun), 2*requestTimeout,
					"with all the time of the command itself")
				for _, text := range row.want {
					harness.RequireTexts(t, printed, m.Expand(text))
				}
			}
		})
	}
	t.Run("a role that is not there", func(t *testing.T) {
		t.Parallel()
		m := harness.NewMount(t, nil)
		m.MustFailWith(t, `unknown role "nobody"`, "read", "{mount}/creds/nobody")
		m.MustFailWith(t, `unknown role "nobody"`, "read", "{mount}/check/nobody")
	})
}

// silentProvider accepts connections and never responds.
func silentProvider(t *testing.T) string {
	t.Helper()
	listener := listen(t)
	t.Cleanup(func() { _ = listener.Close() })
	return "http://" + listener.Addr().String()
}

func listen(t *testing.T) net.Listener {
	t.Helper()
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	return listener
}

// stallingProvider begins a response and does not end it.
func stallingProvider(t *testing.T) string {
	t.Helper()
	return harness.Serve(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write([]byte(`{"access_token":`))
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	})
}

func closedPort(t *testing.T) string {
	t.Helper()
	listener := listen(t)
	require.NoError(t, listener.Close())
	return "http://" + listener.Addr().String()
}
