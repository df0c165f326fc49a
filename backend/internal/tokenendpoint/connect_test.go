package tokenendpoint

import (
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestConnect_DescribesAndClosesConnection(t *testing.T) {
	t.Parallel()
	for protocol, start := range map[string]func(testing.TB, http.HandlerFunc) *httptest.Server{"HTTP/1.1": serve, "HTTP/2.0": serveHTTP2} {
		server := start(t, func(w http.ResponseWriter, r *http.Request) {
			if r.Method != http.MethodHead || r.ContentLength > 0 {
				panic(http.ErrAbortHandler)
			}
			w.Header().Set("Date", time.Now().Add(time.Hour).UTC().Format(http.TimeFormat))
			w.WriteHeader(http.StatusMethodNotAllowed)
		})
		connection, err := clientFor(t, server).Connect(t.Context(), server.URL+"/token")
		require.NoError(t, err)
		require.Equal(t, server.Listener.Addr().String(), connection.Address)
		require.Equal(t, "TLS 1.3", connection.TLSVersion)
		require.Equal(t, protocol, connection.Protocol)
		require.Empty(t, connection.Proxy)
		difference, known := connection.ClockDifference()
		require.True(t, known)
		require.InDelta(t, 3600, difference.Seconds(), 2)
	}
}

func TestConnect_HTTPHasNoTLSVersion(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(server.Close)
	client := newClient(t, Config{RequestTimeout: time.Second, AllowInsecure: true}, quick)
	connection, err := client.Connect(t.Context(), server.URL)
	require.NoError(t, err)
	require.Empty(t, connection.TLSVersion)
}

func TestConnect_IsGuarded(t *testing.T) {
	t.Parallel()
	server := serve(t, jsonHandler(http.StatusOK, ""))
	_, err := newClient(t, Config{RequestTimeout: time.Second}, quick).Connect(t.Context(), server.URL)
	require.Contains(t, requireError(t, err, KindBlocked).Error(), "connection at "+server.URL+": the URL is not allowed: 127.0.0.1 is a loopback address")
}
