package integrationtest

import (
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

const requestTimeout = 2 * time.Second

// TestFailuresReachTheUserInTime runs the unmodified vault command, which knows nothing of our deadlines.
func TestFailuresReachTheUserInTime(t *testing.T) {
	t.Parallel()
	rows := []struct {
		name     string
		endpoint func(*testing.T) string
		want     []string
	}{
		{"a provider that never answers", silentProvider, []string{"Code: 504", "no complete answer within request_timeout (2s)", "{mount}/"}},
		{"a provider that answers half", stallingProvider, []string{"Code: 504", "no complete answer within request_timeout (2s)"}},
		{"nobody listens", closedPort, []string{"Code: 502", "refused", "{mount}/"}},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			m := newMount(t, map[string]any{"allow_insecure_endpoints": true, "request_timeout": requestTimeout.Seconds()})
			for _, settings := range []map[string]any{
				{"type": "ecdsa-p256", "client_id": "any", "issuer": row.endpoint(t)},  // discovery meets it
				{"token_endpoint": row.endpoint(t) + "/protocol/openid-connect/token"}, // the token request does
			} {
				m.write(t, "keys/myapi", settings)
				m.write(t, "roles/myapi", nil)
				begun := time.Now()
				printed := m.fails(t, "read", "{mount}/creds/myapi")
				require.Less(t, time.Since(begun), 2*requestTimeout, "with all that the command itself takes")
				for _, text := range row.want {
					requireNames(t, printed, m.named(text))
				}
			}
		})
	}
	t.Run("a role that is not there", func(t *testing.T) {
		t.Parallel()
		m := newMount(t, nil)
		m.refuses(t, `unknown role "nobody"`, "read", "{mount}/creds/nobody")
		m.refuses(t, `unknown role "nobody"`, "read", "{mount}/check/nobody")
	})
}

// silentProvider accepts connections and never answers.
func silentProvider(t *testing.T) string {
	t.Helper()
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { _ = listener.Close() })
	return "http://" + listener.Addr().String()
}

// stallingProvider begins an answer and does not end it.
func stallingProvider(t *testing.T) string {
	t.Helper()
	return serve(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write([]byte(`{"access_token":`))
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	})
}

func closedPort(t *testing.T) string {
	t.Helper()
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	require.NoError(t, listener.Close())
	return "http://" + listener.Addr().String()
}
