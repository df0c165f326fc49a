package security

import (
	"encoding/pem"
	"maps"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/bcgov/vault-plugin-bcgov-jwt/integrationtest/harness"
)

// requireNoLeak searches everything that was recorded so far.
func requireNoLeak(t *testing.T, m *harness.Mount) {
	t.Helper()
	m.RecordPrivateKeys(t)
	leaks, err := harness.Leaks()
	require.NoError(t, err)
	require.Empty(t, leaks)
}

// requirePrivateKeyRecorded records the private key of a key, and requires that it is the right
// one.
func requirePrivateKeyRecorded(t *testing.T, m *harness.Mount, name string) {
	t.Helper()
	keys := m.PrivateKeys(t, name)
	require.Len(t, keys, 1)
	require.Equal(t, m.Read(t, "keys/"+name).Text(t, "public_key"), harness.PublicPEM(t, keys[0]))
	require.NoError(t, harness.Detector().AddPrivateKey(keys[0]))
}

type call struct {
	path string
	body any
}

// validCalls returns calls that succeed, for every operation of the OpenAPI document.
func validCalls(t *testing.T, m *harness.Mount, p *harness.Provider) map[string][]call {
	t.Helper()
	_, jwksID, _ := strings.Cut(m.Read(t, "keys/published").Text(t, "jwks_path"), "/jwks/")
	unwrapped, _ := pem.Decode([]byte(newPrivatePEM(t)))
	return map[string][]call{
		"GET config":      {{path: "config"}},
		"POST config":     {{"config", p.Config}},
		"PATCH config":    {{"config", map[string]any{"max_retries": 1}}},
		"DELETE config":   {{path: "config"}},
		"GET keys/":       {{path: "keys/"}},
		"GET keys/{name}": {{path: "keys/walked"}, {path: "keys/ed25519"}},
		"POST keys/{name}": {
			{"keys/walked", map[string]any{"assertion_ttl": 50}},
			{"keys/doomed", map[string]any{"type": "ed25519", "deletion_allowed": true}},
		},
		"PATCH keys/{name}":  {{"keys/walked", map[string]any{"assertion_ttl": nil}}},
		"DELETE keys/{name}": {{path: "keys/doomed"}},

		"GET keys/{name}/certificate": {{path: "keys/walked/certificate"}, {path: "keys/ed25519/certificate"}},
		"GET keys/{name}/jwks":        {{path: "keys/walked/jwks"}, {path: "keys/published/jwks"}},
		"GET keys/{name}/versions/":   {{path: "keys/walked/versions/"}},
		"GET keys/{name}/versions/{version}": {
			{path: "keys/walked/versions/1"},
			{path: "keys/walked/versions/2"},
			{path: "keys/ed25519/versions/1"},
		},

		"POST keys/{name}/rotate":   {{path: "keys/walked/rotate"}, {path: "keys/rsa-2048/rotate"}, {path: "keys/published/rotate"}},
		"POST keys/{name}/activate": {{"keys/walked/activate", map[string]any{"force": true}}},
		"POST keys/{name}/destroy":  {{"keys/walked/destroy", map[string]any{"version": 1}}},
		"POST keys/{name}/import": {
			{"keys/imported/import", map[string]any{"private_key": newPrivatePEM(t), "type": "ecdsa-p256"}},
			{"keys/unwrapped/import", map[string]any{"ciphertext": m.WrapKey(t, unwrapped.Bytes), "hash_function": "SHA256"}},
		},
		"GET wrapping_key": {{path: "wrapping_key"}},
		"GET jwks/{id}":    {{path: "jwks/" + jwksID}, {path: "jwks/" + jwksID}},

		"GET roles/":       {{path: "roles/"}},
		"GET roles/{name}": {{path: "roles/walked"}},
		"POST roles/{name}": {
			{"roles/walked", map[string]any{"parameters": []string{"resource=https://api.example.com"}}},
			{"roles/doomed", map[string]any{"key": "walked"}},
		},
		"PATCH roles/{name}":  {{"roles/walked", map[string]any{"parameters": nil}}},
		"DELETE roles/{name}": {{path: "roles/doomed"}},
		"GET creds/{role}": {
			{path: "creds/walked"},
			{path: "creds/rsa-2048"},
			{path: "creds/leased"},
			{path: "creds/unleased"},
			{path: "creds/shared"},
		},
		"GET assertion/{role}": {{path: "assertion/leased"}, {path: "assertion/shared"}},
		"GET check/{role}":     {{path: "check/walked"}, {path: "check/ecdsa-p521"}},
		"GET info":             {{path: "info"}},
		"GET metrics":          {{path: "metrics"}},
	}
}

// callWithBadInput calls an operation with whatever does not belong there. Most of it is rejected;
// only that no secret is revealed matters.
func callWithBadInput(t *testing.T, m *harness.Mount, o harness.Operation) {
	t.Helper()
	placeholder := regexp.MustCompile(`\{\w+\}`)
	for _, name := range []string{"spare", "missing", "a..b", strings.Repeat("x", 200)} {
		path := placeholder.ReplaceAllString(o.Path, name)
		m.Do(t, o.Method, path, o.Query, nil)
		for _, parameter := range []string{"nonsense", "Version", "private_key"} {
			query := maps.Clone(o.Query)
			query.Set(parameter, "1")
			m.Do(t, o.Method, path, query, map[string]any{parameter: "1"})
		}
		if name == "a..b" {
			continue // the name is rejected before anything else
		}
		for _, field := range o.Fields {
			for _, value := range badValues(t) {
				m.Do(t, o.Method, path, o.Query, map[string]any{field: value})
			}
		}
	}
	help := url.Values{"help": {"1"}}
	m.Do(t, http.MethodGet, placeholder.ReplaceAllString(o.Path, "spare"), help, nil)
}

// badValues returns values that are wrong for most fields. Among them is a private key as PEM,
// which a hurried user may paste anywhere.
func badValues(t *testing.T) []any {
	t.Helper()
	return []any{
		"junk", "", " ", nil, 5, -5, 5.7, true,
		[]any{},
		[]any{"", 1},
		map[string]any{"a": "b"},
		strings.Repeat("long ", 4000), "\x00\x1b[31m", newPrivatePEM(t), 1, 2,
	}
}

func newPrivatePEM(t *testing.T) string {
	t.Helper()
	_, privatePEM := harness.NewPrivateKey(t)
	return privatePEM
}
