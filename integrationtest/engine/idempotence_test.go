package engine

import (
	"maps"
	"net/http"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/bcgov/vault-plugin-bcgov-jwt/integrationtest/harness"
)

// TestWrite_ReadValuesChangeNothing: this makes a Terraform plan after an apply empty. Each
// resource is written with every field that it has, none at its default.
func TestWrite_ReadValuesChangeNothing(t *testing.T) {
	t.Parallel()
	p := harness.EmbeddedProvider(t)
	m := harness.NewMount(t, nil)
	m.Write(t, "config", map[string]any{"allowed_hosts": []string{"login.example.com"}})
	m.Write(t, "keys/used", map[string]any{"type": "ecdsa-p256"})
	resources := []struct {
		path, storage, operation string
		settings                 map[string]any
	}{
		{
			"config", "config", "POST config",
			map[string]any{
				"allowed_hosts":            []any{"login.example.com", "*.example.org", "10.1.2.3:8443"},
				"ca_cert":                  p.Config["ca_cert"],
				"request_timeout":          "21s",
				"max_retries":              "4",
				"allow_insecure_endpoints": "true",
				"proxy_url":                "http://proxy.example.com:3128",
			},
		},
		{
			"keys/myapi", "key/myapi", "POST keys/{name}",
			map[string]any{
				"type":                "rsa-3072",
				"allowed_roles":       "team-*,myapi",
				"common_name":         " My API ",
				"deletion_allowed":    true,
				"disabled":            "true",
				"client_id":           " myapi-123 ",
				"issuer":              "https://login.example.com/realms/r",
				"token_endpoint":      "https://login.example.com/realms/r/token",
				"revocation_endpoint": "https://login.example.com/realms/r/revoke",
				"audience":            "https://login.example.com/realms/r/",
				"algorithm":           "PS384",
				"assertion_ttl":       "1m",
				"send_key_id":         false,
				"registration":        "jwks",
				"auto_rotate_period":  "720h",
				"prepublish_period":   "90",
				"overlap_period":      "36h",
			},
		},
		{
			"roles/myapi", "role/myapi", "POST roles/{name}",
			map[string]any{
				"key":        "used",
				"scopes":     "two,one",
				"parameters": []any{"resource=https://b.example.com", "resource=https://a.example.com", "x= a=b ,c"},

				"delivery":        " leased ",
				"refresh_margin":  "90s",
				"revoke_tokens":   "true",
				"allow_assertion": true,
			},
		},
	}
	fieldsOf := map[string][]string{}
	for _, o := range m.Operations(t) {
		fieldsOf[o.String()] = o.Fields
	}
	for _, resource := range resources {
		require.Equal(t, fieldsOf[resource.operation], slices.Sorted(maps.Keys(resource.settings)),
			"the fields that %s accepts: this test must write them all", resource.path)
		written := m.Write(t, resource.path, resource.settings).Data
		stored := m.Stored(t, resource.storage)

		read := m.Read(t, resource.path).Data
		require.Equal(t, written, read, "a write returns what a read does: %s", resource.path)
		settings := map[string]any{}
		for field := range resource.settings {
			require.Contains(t, read, field)
			settings[field] = read[field]
		}
		for _, method := range []string{http.MethodPost, http.MethodPatch} {
			again := m.Do(t, method, resource.path, nil, settings)
			require.Equal(t, http.StatusOK, again.Status, again.ErrorText())
			require.Equal(t, read, again.Data, "%s %s", method, resource.path)
			require.Equal(t, read, m.Read(t, resource.path).Data, "%s %s", method, resource.path)
			require.Equal(t, stored, m.Stored(t, resource.storage),
				"what is stored of %s", resource.path)
		}
		nothing := m.Do(t, http.MethodPost, resource.path, nil, map[string]any{})
		require.Equal(t, read, nothing.Data, "a write without fields: %s", resource.path)
		require.Equal(t, stored, m.Stored(t, resource.storage))
	}
}
