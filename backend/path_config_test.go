package backend

import (
	"encoding/pem"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/bcgov/vault-plugin-bcgov-jwt/integrationtest/idp"
	"github.com/hashicorp/vault/sdk/logical"
	"github.com/stretchr/testify/require"
)

func configDefaults() map[string]any {
	return map[string]any{
		"allowed_hosts": []string{}, "ca_cert": "", "request_timeout": int64(10), "max_retries": 2,
		"allow_insecure_endpoints": false, "proxy_url": "",
	}
}

// newCACert returns a PEM certificate.
func newCACert(t *testing.T) string {
	t.Helper()
	m := newMount(t)
	m.write("keys/ca", map[string]any{"type": "ecdsa-p256"})
	return m.read("keys/ca/certificate").Data["certificate"].(string)
}

func everyConfigSetting(t *testing.T) map[string]any {
	t.Helper()
	return map[string]any{
		"allowed_hosts": []string{"z.example", "*.a.example:8443", "10.0.0.1"}, "ca_cert": newCACert(t) + "\n\n", "request_timeout": 45, "max_retries": 0,
		"allow_insecure_endpoints": true, "proxy_url": "http://proxy.example:3128",
	}
}

func TestConfig_IsOptional(t *testing.T) {
	t.Parallel()
	m := newMount(t)
	resp := m.read("config")
	require.Equal(t, configDefaults(), resp.Data)
	require.Empty(t, resp.Warnings)
	require.Zero(t, m.storage.writes())
}

func TestConfig_EverySettingIsReturnedAsWritten(t *testing.T) {
	t.Parallel()
	m := newMount(t)
	written := everyConfigSetting(t)
	require.Len(t, written, len(configFields()), "the test names every setting")
	resp := m.write("config", written)
	require.Equal(t, overJSON(t, written), overJSON(t, resp.Data))
	require.Equal(t, resp, m.read("config"), "a write returns the same body as a read")
	require.Equal(t, resp, mountOver(t, m.storage, m.clock).read("config"))
}

func TestConfig_WrittenBackAsReadStoresNothing(t *testing.T) {
	t.Parallel()
	for name, written := range map[string]map[string]any{
		"defaults":      {},
		"every setting": everyConfigSetting(t),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := newMount(t)
			m.write("config", written)
			read := m.read("config").Data
			writes := m.storage.writes()
			kept := m.clients.values[configStoragePath].value
			for _, operation := range []logical.Operation{logical.UpdateOperation, logical.PatchOperation} {
				require.Equal(t, read, m.do(operation, "config", read).Data)
				require.Equal(t, read, m.do(operation, "config", nil).Data)
			}
			require.Equal(t, read, m.read("config").Data)
			require.Equal(t, writes, m.storage.writes(), "what changes nothing writes nothing")
			require.Same(t, kept, m.clients.values[configStoragePath].value, "nor creates a new HTTP client")
		})
	}
}

func TestConfig_AbsentFieldIsKeptEmptyOneIsReset(t *testing.T) {
	t.Parallel()
	for _, operation := range []logical.Operation{logical.UpdateOperation, logical.PatchOperation} {
		for _, empty := range []any{"", nil} {
			t.Run(fmt.Sprintf("%s %#v", operation, empty), func(t *testing.T) {
				t.Parallel()
				m := newMount(t)
				want := m.write("config", everyConfigSetting(t)).Data
				// The proxy goes before the hosts that it needs.
				for _, field := range []string{"proxy_url", "allowed_hosts", "ca_cert", "request_timeout", "max_retries", "allow_insecure_endpoints"} {
					want[field] = configDefaults()[field]
					require.Equal(t, want, m.do(operation, "config", map[string]any{field: empty}).Data)
				}
			})
		}
	}
}

func TestConfig_DeleteRestoresDefaults(t *testing.T) {
	t.Parallel()
	m := newMount(t)
	m.write("config", everyConfigSetting(t))
	m.delete("config")
	require.Equal(t, configDefaults(), m.read("config").Data)
	require.Empty(t, m.storage.entries(t))
	m.delete("config")
}

func TestConfig_BadSettingErrorNamesField(t *testing.T) {
	t.Parallel()
	certificate := newCACert(t)
	for field, values := range map[string][]any{
		"allowed_hosts": {
			"https://idp.example", "idp.example/path", "a,,b", "*", "*.com", "a.*.example", "169.254.169.254", "metadata.google.internal",
			"10.0.0.0/8", "::1", "idp.example:0", "idp.example:99999", "u@idp.example",
			[]string{"a b"},
			[]string{""},
			"127.1",
		},
		"ca_cert": {
			"x", "@ca.pem", certificate[:len(certificate)/2], certificate + "trailing",
			string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: []byte("x")})),
			string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte("x")})),
		},
		"request_timeout": {0, "0s", "999ms", 46, "1m", -1, "1h"},
		"max_retries":     {-1, 6, 1000},
		"proxy_url": {
			"proxy.example:3128", "ftp://proxy.example", "http://u:hunter2@proxy.example", "http://proxy.example/path", "http://proxy.example?x", "env", "http://",
		},
	} {
		t.Run(field, func(t *testing.T) {
			t.Parallel()
			m := newMount(t)
			m.write("config", map[string]any{"allowed_hosts": "idp.example"})
			for _, value := range values {
				for _, operation := range []logical.Operation{logical.UpdateOperation, logical.PatchOperation} {
					text := m.refused(operation, "config", map[string]any{field: value})
					require.True(t, strings.HasPrefix(text, field+": "), "%v: %s", value, text)
					require.NotContains(t, text, "hunter2")
				}
			}
		})
	}
}

func TestConfig_BoundsAreInclusive(t *testing.T) {
	t.Parallel()
	m := newMount(t)
	for field, values := range map[string][]any{
		"request_timeout": {1, 45, "1s", "45", "45s"},
		"max_retries":     {0, 5, "0", "5"},
	} {
		for _, value := range values {
			m.write("config", map[string]any{field: value})
		}
	}
	require.EqualValues(t, 45, m.read("config").Data["request_timeout"])
	require.Equal(t, 5, m.read("config").Data["max_retries"])
}

func TestConfig_ProxyRequiresAllowedHosts(t *testing.T) {
	t.Parallel()
	m := newMount(t)
	require.Contains(t, m.refused(logical.UpdateOperation, "config", map[string]any{"proxy_url": "http://proxy.example:3128"}), "proxy_url: requires allowed_hosts")
	require.Contains(t, m.refused(logical.UpdateOperation, "config", map[string]any{"proxy_url": "environment"}), "proxy_url: requires allowed_hosts")
	m.write("config", map[string]any{"proxy_url": " http://proxy.example:3128\n", "allowed_hosts": "idp.example"})
	require.Equal(t, "http://proxy.example:3128", m.read("config").Data["proxy_url"])
	require.Contains(t, m.refused(logical.UpdateOperation, "config", map[string]any{"allowed_hosts": ""}), "proxy_url: requires allowed_hosts")
}

func TestConfig_ProxyTargetsAreNames(t *testing.T) {
	t.Parallel()
	m := newMount(t)
	m.write("config", map[string]any{"proxy_url": "http://proxy.example:3128", "allowed_hosts": "idp.example,10.0.0.1,8.8.8.8"})
	m.write("keys/myapi", map[string]any{"type": "ed25519", "issuer": "https://idp.example/"})
	for _, literal := range []string{"https://10.0.0.1/", "https://8.8.8.8/"} {
		require.Contains(t, m.refused(logical.UpdateOperation, "keys/myapi", map[string]any{"token_endpoint": literal}), "token_endpoint: ")
	}
}

func TestConfig_InsecureEndpointsWarn(t *testing.T) {
	t.Parallel()
	m := newMount(t)
	for _, resp := range []*logical.Response{
		m.write("config", map[string]any{"allow_insecure_endpoints": true}), m.read("config"), m.patch("config", map[string]any{"max_retries": 1}),
	} {
		require.Len(t, resp.Warnings, 1)
		require.Contains(t, resp.Warnings[0], "For development only")
	}
	require.Empty(t, m.write("config", map[string]any{"allow_insecure_endpoints": false}).Warnings)
}

func TestConfig_ChangeAppliesToNextRead(t *testing.T) {
	t.Parallel()
	m, _ := newReadyMount(t)
	m.read("creds/myapi")
	old := m.clients.values[configStoragePath].value
	m.write("config", map[string]any{"allow_insecure_endpoints": false})
	text := m.refused(logical.ReadOperation, "creds/myapi", nil)
	require.Contains(t, text, "must use https")
	require.Contains(t, text, "set allow_insecure_endpoints=true in config")
	require.NotSame(t, old, m.clients.values[configStoragePath].value)
	m.write("config", map[string]any{"allow_insecure_endpoints": true})
	m.read("creds/myapi")
	m.delete("config")
	m.refused(logical.ReadOperation, "creds/myapi", nil)
}

func TestConfig_OldHTTPClientIsClosed(t *testing.T) {
	t.Parallel()
	for name, drop := range map[string]func(*mount){
		"write":      func(m *mount) { m.write("config", map[string]any{"max_retries": 3}) },
		"delete":     func(m *mount) { m.delete("config") },
		"invalidate": func(m *mount) { m.InvalidateKey(m.tb.Context(), "config") },
		"clean":      func(m *mount) { m.Cleanup(m.tb.Context()) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := newMount(t)
			p := newProvider(t, idp.Options{})
			m.write("config", map[string]any{"allow_insecure_endpoints": true})
			m.write("keys/myapi", map[string]any{"type": "ed25519", "client_id": "c", "issuer": p.issuer()})
			m.write("roles/myapi", nil)
			p.register(m, "myapi", "c")
			m.read("creds/myapi")
			require.Positive(t, p.open.Load())
			drop(m)
			require.Eventually(t, func() bool { return p.open.Load() == 0 }, eventually, poll)
		})
	}
}

func TestConfig_UserAgentNamesPluginAndVault(t *testing.T) {
	t.Parallel()
	m, p := newReadyMount(t)
	agents := make(chan string, 8)
	p.interceptWith(func(_ http.ResponseWriter, r *http.Request) { agents <- r.UserAgent() })
	m.read("creds/myapi")
	agent := <-agents
	require.Contains(t, agent, "vault-plugin-bcgov-jwt/1.2.3")
	require.Contains(t, agent, "Vault/1.21.0")
}

func TestFormat_DurationsAreShort(t *testing.T) {
	t.Parallel()
	for text, seconds := range map[string]time.Duration{"45s": 45, "1m": 60, "1m30s": 90, "1h": 3600, "1h1m": 3660, "1h0m1s": 3601, "10m": 600, "10h": 36000, "0s": 0} {
		require.Equal(t, text, compact(seconds*time.Second))
	}
}
