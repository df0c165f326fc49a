package tokenendpoint

import (
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestConfig_EachFieldIsValidated(t *testing.T) {
	t.Parallel()
	server := serve(t, nil)
	good := certificateOf(server)
	for name, c := range map[string]struct {
		cfg   Config
		field string
		says  string
	}{
		"no PEM":                {Config{RequestTimeout: 1, CACert: "ca.pem"}, "ca_cert", "block 1 is not a certificate"},
		"a key":                 {Config{RequestTimeout: 1, CACert: good + "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"}, "ca_cert", "block 2 is not a certificate"},
		"a damaged certificate": {Config{RequestTimeout: 1, CACert: "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"}, "ca_cert", "certificate 1 cannot be parsed"},
		"a cut certificate":     {Config{RequestTimeout: 1, CACert: good + good[:100]}, "ca_cert", "block 2 is not a certificate"},
		"allowed_hosts":         {Config{RequestTimeout: 1, AllowedHosts: []string{"*"}}, "allowed_hosts", "item 1"},
		"proxy_url":             {Config{RequestTimeout: 1, AllowedHosts: []string{"a.b"}, ProxyURL: "ftp://x"}, "proxy_url", "not a proxy URL"},
	} {
		_, err := New(c.cfg, Options{})
		var field *FieldError
		require.ErrorAs(t, err, &field, name)
		require.Equal(t, c.field, field.Field, name)
		require.ErrorContains(t, err, c.field+": ", name)
		require.ErrorContains(t, err, c.says, name)
	}
	client := newClient(t, Config{RequestTimeout: time.Second, CACert: "\n" + good + "\n" + good + "  \n"}, Options{})
	require.Equal(t, defaultBackoff(), client.backoff)
}

func TestConfig_CACertReplacesSystemRoots(t *testing.T) {
	t.Parallel()
	server := serve(t, jsonHandler(http.StatusOK, validToken))
	require.NotNil(t, clientFor(t, server).transport.TLSClientConfig.RootCAs)
	require.Nil(t, clientFor(t, server, func(c *Config) { c.CACert = "" }).transport.TLSClientConfig.RootCAs)
}

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
