package backend

import (
	"net/http"
	"runtime"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/logical"
	"github.com/stretchr/testify/require"
)

func TestInfo_DescribesPlugin(t *testing.T) {
	t.Parallel()
	data := newMount(t).read("info").Data
	require.Equal(t, "v1.2.3", data["version"])
	require.Equal(t, "abc", data["commit"])
	require.Equal(t, runtime.Version(), data["go_version"])
	require.Equal(t, []string{"rsa-2048", "rsa-3072", "rsa-4096", "ecdsa-p256", "ecdsa-p384", "ecdsa-p521", "ed25519"}, data["key_types"])
	require.Equal(t, []string{"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"}, data["algorithms"])
	require.Equal(t, 0, data["keys"])
	require.Equal(t, int64(0), data["exchanges"])
	require.Empty(t, data["last_failure_time"])
}

func TestInfo_Counts(t *testing.T) {
	t.Parallel()
	m, p := newReadyMount(t)
	m.write("keys/second", map[string]any{"type": "ed25519"})
	m.read("creds/myapi")
	p.answerWith(tokenPath, http.StatusServiceUnavailable, jsonType, "{}")
	m.clock.advance(time.Minute)
	m.failed(http.StatusBadGateway, logical.ReadOperation, "creds/myapi", nil)
	data := m.read("info").Data
	require.Equal(t, 2, data["keys"])
	require.Equal(t, 1, data["roles"])
	require.Equal(t, int64(2), data["exchanges"])
	require.Equal(t, int64(1), data["failures"])
	require.Equal(t, "unavailable", data["last_failure_kind"])
	failed, err := time.Parse(time.RFC3339, data["last_failure_time"].(string))
	require.NoError(t, err)
	require.WithinDuration(t, m.clock.now(), failed, 30*time.Second)
}

func TestInfo_CountsPerMount(t *testing.T) {
	t.Parallel()
	first, _ := newReadyMount(t)
	second := newMount(t)
	first.read("creds/myapi")
	require.Equal(t, int64(0), second.read("info").Data["exchanges"])
}

func TestInfo_UnknownModuleHasNoVersion(t *testing.T) {
	t.Parallel()
	require.Equal(t, "unknown", moduleVersion("example.com/none"))
}

func TestInfo_CountsSharedTokens(t *testing.T) {
	t.Parallel()
	m, p := newSharedMount(t)
	held := func() any { return m.read("info").Data["shared_tokens"] }
	require.Equal(t, 0, held())
	m.read("creds/myapi")
	m.read("creds/myapi")
	require.Equal(t, 1, held())
	m.write("roles/second", map[string]any{"key": "myapi", "delivery": "unleased"})
	m.read("creds/second")
	require.Equal(t, 1, held(), "of shared roles only")
	pass(m, p, 301*time.Second)
	require.Equal(t, 0, held(), "it has expired")
	m.read("creds/myapi")
	require.Equal(t, 1, held())
	m.delete("roles/myapi")
	require.Equal(t, 0, held())
}
