package tokenendpoint

import (
	"net/http"
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
		"proxy_url":             {Config{RequestTimeout: 1, AllowedHosts: []string{"a.b"}, ProxyURL: "x"}, "proxy_url", "not a proxy URL"},
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
