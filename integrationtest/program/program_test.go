package program

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
)

var testScript = Script{Name: "server.sh", Ready: "/health/ready"}

// fakeScript returns the path of a script that stands for those that the integration tests run.
func fakeScript(t *testing.T, body string) string {
	t.Helper()
	script := filepath.Join(t.TempDir(), "server.sh")
	require.NoError(t, os.WriteFile(script, []byte("#!/bin/sh\n"+body), 0o755))
	return script
}

func TestStart_ReportsLogOfServerThatExits(t *testing.T) {
	t.Parallel()
	port, err := FreePort()
	require.NoError(t, err)
	_, err = testScript.run(t.Context(), fakeScript(t, "echo 'no more memory'; exit 1"), port)
	require.ErrorContains(t, err, "exited before it was ready")
	require.ErrorContains(t, err, "no more memory")
}

func TestStart_StopsServerWhenCanceled(t *testing.T) {
	t.Parallel()
	port, err := FreePort()
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = testScript.run(ctx, fakeScript(t, "exec sleep 600"), port)
	require.ErrorIs(t, err, context.Canceled)
}

func TestStart_WaitsUntilReadyAndStops(t *testing.T) {
	t.Parallel()
	var requests atomic.Int64
	listener := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/health/ready" || requests.Add(1) < 3 {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	}))
	t.Cleanup(listener.Close)
	folder := t.TempDir()
	script := fakeScript(t, "trap 'kill $!; touch "+folder+"/stopped; exit' TERM; sleep 600 & wait")
	port := listener.Listener.Addr().(*net.TCPAddr).Port
	server, err := testScript.run(t.Context(), script, port)
	require.NoError(t, err)
	require.Equal(t, listener.URL, server.BaseURL)
	require.EqualValues(t, 3, requests.Load())
	require.NoError(t, server.Stop())
	require.FileExists(t, folder+"/stopped")
}
