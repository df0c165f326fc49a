package engine

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/bcgov/vault-plugin-bcgov-jwt/integrationtest/harness"
)

// badInput is a request that must be rejected with a text that names the field.
type badInput struct {
	name         string
	method, path string // POST and keys/myapi if empty
	query        url.Values
	body         any
	want         []string
}

// readAll returns what can be read of the mount.
func readAll(t *testing.T, m *harness.Mount) map[string]any {
	t.Helper()
	all := map[string]any{}
	for _, path := range []string{"config", "keys/myapi", "roles/myapi"} {
		all[path] = m.Read(t, path).Data
	}
	for _, path := range []string{"keys", "keys/myapi/versions", "roles"} {
		all[path] = m.List(t, path).Data
	}
	return all
}

func badInputs() []badInput {
	var rows []badInput
	for _, group := range [][]badInput{
		badKeyTypes(), badNames(), badURLs(), badRegistrations(), badVersions(), badRoles(),
		badConfigs(), badJSONTypes(), badFields(), badDeletions(),
	} {
		rows = append(rows, group...)
	}
	for i := range rows {
		if rows[i].method == "" {
			rows[i].method = http.MethodPost
		}
		if rows[i].path == "" {
			rows[i].path = "keys/myapi"
		}
	}
	return rows
}

func badKeyTypes() []badInput {
	return []badInput{
		{name: "unknown key type", path: "keys/new", body: fields("type", "rsa-1024"), want: []string{"type: ", "rsa-1024", "rsa-2048, rsa-3072"}},
		{name: "another type on an existing key", body: fields("type", "ed25519"), want: []string{"type: ", "ecdsa-p256", "ed25519"}},
		{name: "an algorithm that does not fit", body: fields("algorithm", "RS256"), want: []string{"algorithm: ", "RS256", "ES256"}},
		{name: "an algorithm of another curve", body: fields("algorithm", "ES384"), want: []string{"algorithm: ", "ES384", "ES256"}},
		{name: "algorithm none", body: fields("algorithm", "none"), want: []string{"algorithm: ", "none"}},
		{name: "a symmetric algorithm", body: fields("algorithm", "HS256"), want: []string{"algorithm: ", "HS256"}},
	}
}

func badNames() []badInput {
	var rows []badInput
	long := strings.Repeat("a", 129)
	for what, name := range map[string]string{
		"two dots": "a..b", "a leading dash": "-a", "a leading dot": ".a", "129 characters": long,
		"a space": "a b", "a letter outside ASCII": "clé", "a percent sign": "a%2Fb",
	} {
		for _, operation := range []struct{ method, path, field string }{
			{http.MethodPost, "keys/{}", "name"},
			{http.MethodGet, "keys/{}", "name"},
			{http.MethodPatch, "keys/{}", "name"},
			{http.MethodDelete, "keys/{}", "name"},
			{http.MethodGet, "keys/{}/certificate", "name"},
			{http.MethodGet, "keys/{}/jwks", "name"},
			{"LIST", "keys/{}/versions", "name"},
			{http.MethodGet, "keys/{}/versions/1", "name"},
			{http.MethodPost, "roles/{}", "name"},
			{http.MethodGet, "roles/{}", "name"},
			{http.MethodGet, "creds/{}", "role"},
			{http.MethodGet, "check/{}", "role"},
			{http.MethodGet, "assertion/{}", "role"},
		} {
			row := badInput{
				name: fmt.Sprintf("a name with %s: %s %s", what, operation.method, operation.path), method: operation.method, path: strings.Replace(operation.path, "{}", name, 1),
				want: []string{operation.field + ": ", "up to 128"},
			}
			if operation.method == http.MethodPost || operation.method == http.MethodPatch {
				row.body = fields()
			}
			rows = append(rows, row)
		}
	}
	return rows
}

func badURLs() []badInput {
	var rows []badInput
	bad := map[string]string{
		"a relative one":             "/token",
		"no scheme":                  "login.example.com/token",
		"http":                       "http://login.example.com/token",
		"userinfo":                   "https://user:pass@login.example.com/token",
		"a query":                    "https://login.example.com/token?a=b",
		"a fragment":                 "https://login.example.com/token#a",
		"metadata":                   "https://169.254.169.254/token",
		"metadata as one number":     "https://2852039166/token",
		"metadata in hex":            "https://0xA9FEA9FE/token",
		"metadata in octal":          "https://0251.0376.0251.0376/token",
		"metadata in mapped IPv6":    "https://[::ffff:169.254.169.254]/token",
		"metadata in NAT64":          "https://[64:ff9b::a9fe:a9fe]/token",
		"AWS metadata in IPv6":       "https://[fd00:ec2::254]/token",
		"link-local":                 "https://169.254.1.1/token",
		"link-local IPv6":            "https://[fe80::1]/token",
		"unspecified":                "https://0.0.0.0/token",
		"multicast":                  "https://224.0.0.1/token",
		"a private address":          "https://10.1.2.3/token",
		"a private address, short":   "https://10.1/token",
		"loopback":                   "https://127.0.0.1/token",
		"loopback, short":            "https://127.1/token",
		"loopback IPv6":              "https://[::1]/token",
		"loopback in 6to4":           "https://[2002:7f00:1::]/token",
		"loopback by name":           "https://localhost/token",
		"loopback by a longer name":  "https://my.localhost./token",
		"full-width digits":          "https://１２７.0.0.1/token",
		"a space within":             "https://login.example.com/to ken",
		"a port that is none":        "https://login.example.com:99999/token",
		"another scheme altogether":  "file:///etc/passwd",
		"a control character within": "https://login.example.com/\x00token",
	}
	for what, value := range bad {
		for _, field := range []string{"issuer", "token_endpoint", "revocation_endpoint"} {
			rows = append(rows, badInput{name: field + ": " + what, body: fields(field, value), want: []string{field + ": "}})
		}
	}
	return rows
}

func badRegistrations() []badInput {
	return []badInput{
		{name: "assertion_ttl too short", body: fields("assertion_ttl", "29s"), want: []string{"assertion_ttl: ", "30s", "1h"}},
		{name: "assertion_ttl too long", body: fields("assertion_ttl", 3601), want: []string{"assertion_ttl: ", "30s", "1h"}},
		{name: "assertion_ttl negative", body: fields("assertion_ttl", -45), want: []string{"assertion_ttl: "}},
		{name: "assertion_ttl of fractions", body: fields("assertion_ttl", "45500ms"), want: []string{"assertion_ttl: ", "whole seconds"}},
		{name: "client_id outside ASCII", body: fields("client_id", "clé"), want: []string{"client_id: ", "ASCII"}},
		{name: "client_id too long", body: fields("client_id", strings.Repeat("a", 257)), want: []string{"client_id: ", "256"}},
		{name: "client_id emptied", body: fields("client_id", ""), want: []string{"client_id: "}},
		{name: "issuer emptied by null", method: http.MethodPatch, body: fields("issuer", nil), want: []string{"issuer: "}},
		{name: "common_name too long", body: fields("common_name", strings.Repeat("a", 65)), want: []string{"common_name: ", "64"}},
		{name: "an issuer with a trailing slash", body: fields("issuer", "https://login.example.com/realms/r/"), want: []string{"issuer: ", " issuer=https://login.example.com/realms/r"}},
		{name: "a discovery document for the issuer", body: fields("issuer", "https://login.example.com/.well-known/openid-configuration"), want: []string{"issuer: ", " issuer=https://login.example.com"}},
		{name: "a token endpoint for the issuer", body: fields("issuer", "https://login.example.com/realms/r/protocol/openid-connect/token"), want: []string{"issuer: ", " issuer=https://login.example.com/realms/r"}},
		{name: "issuer and token_endpoint swapped", body: fields("issuer", "https://login.example.com/realms/r/token", "token_endpoint", "https://login.example.com/realms/r"), want: []string{"issuer: ", "token_endpoint", "swap"}},
		{name: "client_id in quotes", body: fields("client_id", `"client"`), want: []string{"client_id: ", "quotes"}},
		{name: "a private key on a key", body: fields("private_key", "x"), want: []string{"private_key: ", "/import private_key=@"}},
		{name: "a renamed period", body: fields("retire_after", "1h"), want: []string{"retire_after: ", "overlap_period"}},
		{name: "another renamed period", body: fields("activation_delay", "1h"), want: []string{"activation_delay: ", "prepublish_period"}},
		{name: "several fields, one of them bad", body: fields("client_id", "changed", "disabled", true, "assertion_ttl", "1s"), want: []string{"assertion_ttl: "}},
	}
}

func badVersions() []badInput {
	var rows []badInput
	for version, want := range map[string]string{
		"0": "must be at least 1", "-1": "must be at least 1", "x": "must be a whole number", "2": "has no version 2",
	} {
		rows = append(rows,
			badInput{name: "reading version " + version, method: http.MethodGet, path: "keys/myapi/versions/" + version, want: []string{"version: ", want}},
			badInput{name: "the certificate of version " + version, method: http.MethodGet, path: "keys/myapi/certificate", query: url.Values{"version": {version}}, want: []string{"version: ", want}},
			badInput{name: "destroying version " + version, path: "keys/myapi/destroy", body: fields("version", version), want: []string{"version: ", want}},
		)
	}
	return append(rows, badInput{name: "the version of a key's settings", method: http.MethodGet, query: url.Values{"version": {"1"}}, want: []string{`unknown field "version"`}})
}

func badRoles() []badInput {
	role := func(name string, body map[string]any, want ...string) badInput {
		return badInput{name: name, path: "roles/myapi", body: body, want: want}
	}
	rows := []badInput{
		{name: "a role for a missing key", path: "roles/new", body: fields(), want: []string{"key: ", `"new" does not exist`, "vault write -f"}},
		role("a missing key by name", fields("key", "missing"), "key: ", `"missing" does not exist`, "vault write -f"),
		role("a bad key name", fields("key", "a/b"), "key: "),
		role("client_id on a role", fields("client_id", "x"), "client_id: ", "belongs to the key", "keys/myapi client_id="),
		role("issuer on a role", fields("issuer", "x"), "issuer: ", "belongs to the key", "keys/myapi issuer="),
		role("a scope with a space", fields("scopes", []string{"one two"}), "scopes: "),
		role("a blank scope", fields("scopes", []string{"one", "  "}), "scopes: ", "item 2"),
		role("an empty last scope", fields("scopes", "one,"), "scopes: ", "item 2"),
		role("a scope with a quote", fields("scopes", []string{`o"ne`}), "scopes: "),
		role("a parameter without a value sign", fields("parameters", []string{"resource"}), "parameters: ", "name=value"),
		role("a parameter without a name", fields("parameters", []string{"=x"}), "parameters: "),
		role("a blank parameter", fields("parameters", []string{" "}), "parameters: ", "item 1"),
		role("an unknown delivery", fields("delivery", "rented"), "delivery: ", `"rented"`, "is not one of leased, unleased, shared"),
		role("a delivery in upper case", fields("delivery", "SHARED"), "delivery: ", `"SHARED"`, "is not one of leased, unleased, shared"),
		role("a negative margin", fields("refresh_margin", -1), "refresh_margin: ", "negative"),
		role("a margin of a day", fields("refresh_margin", "24h"), "refresh_margin: ", "less than 24h"),
		role("a margin of fractions", fields("refresh_margin", "1500ms"), "refresh_margin: ", "whole seconds"),
		role("revoked tokens without a lease", fields("revoke_tokens", true, "delivery", "unleased"), "revoke_tokens: ", "delivery=leased", "unleased"),
		role("revoked tokens of many readers", fields("revoke_tokens", true, "delivery", "shared"), "revoke_tokens: ", "delivery=leased", "shared"),
	}
	for _, reserved := range []string{"grant_type", "client_assertion", "CLIENT_ID", "Scope", "scopes", "refresh_token", "subject_token", "request_uri", "client_session_state"} {
		rows = append(rows, role("the reserved parameter "+reserved, fields("parameters", []string{reserved + "=x"}), "parameters: ", reserved))
	}
	return rows
}

func badConfigs() []badInput {
	config := func(name string, body map[string]any, want ...string) badInput {
		return badInput{name: name, path: "config", body: body, want: want}
	}
	return []badInput{
		config("request_timeout too long", fields("request_timeout", "46s"), "request_timeout: ", "45s"),
		config("request_timeout too short", fields("request_timeout", 0), "request_timeout: ", "1s"),
		config("too many retries", fields("max_retries", 6), "max_retries: ", "5"),
		config("fewer retries than none", fields("max_retries", -1), "max_retries: ", "0"),
		config("a blank host", fields("allowed_hosts", []string{"a.example.com", ""}), "allowed_hosts: "),
		config("a URL for a host", fields("allowed_hosts", []string{"https://a.example.com"}), "allowed_hosts: "),
		config("a star within a host", fields("allowed_hosts", []string{"a.*.example.com"}), "allowed_hosts: "),
		config("junk for certificates", fields("ca_cert", "junk"), "ca_cert: "),
		config("a key for certificates", fields("ca_cert", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"), "ca_cert: "),
		config("a proxy without allowed hosts", fields("proxy_url", "http://proxy.example.com:3128"), "proxy_url: ", "allowed_hosts"),
		config("a proxy with userinfo", fields("proxy_url", "http://user:pass@proxy.example.com:3128", "allowed_hosts", "a.example.com"), "proxy_url: "),
	}
}

func badJSONTypes() []badInput {
	rows := []badInput{
		{name: "a number for a string", body: fields("client_id", 5), want: []string{"client_id: ", "string"}},
		{name: "true for a string", body: fields("issuer", true), want: []string{"issuer: ", "string"}},
		{name: "a list for a string", body: fields("type", []string{"ecdsa-p256"}), want: []string{"type: ", "string"}},
		{name: "an object for a string", body: fields("algorithm", fields("a", "b")), want: []string{"algorithm: ", "string"}},
		{name: "a fraction for a whole number", path: "config", body: fields("max_retries", 1.5), want: []string{"max_retries: ", "whole number"}},
		{name: "true for a whole number", path: "config", body: fields("max_retries", true), want: []string{"max_retries: ", "whole number"}},
		{name: "an octal number", path: "config", body: fields("max_retries", "01"), want: []string{"max_retries: ", "whole number"}},
		{name: "a fraction for a duration", body: fields("assertion_ttl", 45.5), want: []string{"assertion_ttl: ", "whole seconds"}},
		{name: "text for true or false, on a role", path: "roles/myapi", body: fields("revoke_tokens", "perhaps"), want: []string{"revoke_tokens: ", "true or false"}},
		{name: "a number for a delivery", path: "roles/myapi", body: fields("delivery", 1), want: []string{"delivery: ", "string"}},
		{name: "text for true or false", body: fields("disabled", "perhaps"), want: []string{"disabled: ", "true or false"}},
		{name: "a number for true or false", body: fields("deletion_allowed", 1), want: []string{"deletion_allowed: ", "true or false"}},
		{name: "numbers in a list", path: "roles/myapi", body: fields("scopes", []any{"one", 2}), want: []string{"scopes: ", "list of strings"}},
		{name: "an object for a list", path: "roles/myapi", body: fields("parameters", fields("resource", "x")), want: []string{"parameters: ", "list of strings"}},
	}
	for i := range rows {
		patch := rows[i]
		patch.name, patch.method = "patch: "+patch.name, http.MethodPatch
		rows = append(rows, patch)
	}
	return rows
}

// badFields returns, for every operation, a field that it does not accept.
func badFields() []badInput {
	var rows []badInput
	for _, operation := range []struct{ method, path, miscased string }{
		{http.MethodGet, "config", ""},
		{http.MethodPost, "config", "Max_Retries"},
		{http.MethodPatch, "config", "Max_Retries"},
		{http.MethodDelete, "config", ""},
		{"LIST", "keys", ""},
		{http.MethodGet, "keys/myapi", ""},
		{http.MethodPost, "keys/myapi", "Client_ID"},
		{http.MethodPatch, "keys/myapi", "Client_ID"},
		{http.MethodDelete, "keys/myapi", ""},
		{http.MethodGet, "keys/myapi/certificate", ""},
		{http.MethodGet, "keys/myapi/jwks", ""},
		{"LIST", "keys/myapi/versions", ""},
		{http.MethodGet, "keys/myapi/versions/1", ""},
		{"LIST", "roles", ""},
		{http.MethodGet, "roles/myapi", ""},
		{http.MethodPost, "roles/myapi", "SCOPES"},
		{http.MethodPatch, "roles/myapi", "SCOPES"},
		{http.MethodDelete, "roles/myapi", ""},
		{http.MethodGet, "creds/myapi", ""},
		{http.MethodGet, "check/myapi", ""},
		{http.MethodGet, "assertion/myapi", ""},
		{http.MethodGet, "info", ""},
	} {
		unknown := badInput{name: "an unknown field: " + operation.method + " " + operation.path, method: operation.method, path: operation.path, want: []string{`unknown field "nonsense"`}}
		if operation.miscased == "" {
			unknown.query = url.Values{"nonsense": {"1"}}
			rows = append(rows, unknown)
			continue
		}
		unknown.body = fields("nonsense", "1")
		miscased := unknown
		miscased.name = "a miscased field: " + operation.method + " " + operation.path
		miscased.body = fields(operation.miscased, "1")
		miscased.want = []string{fmt.Sprintf("unknown field %q", operation.miscased), fmt.Sprintf("did you mean %q", strings.ToLower(operation.miscased))}
		rows = append(rows, unknown, miscased)
	}
	for _, parameter := range []string{"scopes", "Scopes", "scope", "role"} {
		rows = append(rows, badInput{
			name: "the parameter " + parameter + " on creds", method: http.MethodGet, path: "creds/myapi", query: url.Values{parameter: {"x"}}, want: []string{parameter},
		})
	}
	return append(rows,
		badInput{name: "another name than the URL's", body: fields("name", "other"), want: []string{"name: ", "path"}},
		badInput{name: "another role name than the URL's", path: "roles/myapi", body: fields("name", "other"), want: []string{"name: ", "path"}},
	)
}

func badDeletions() []badInput {
	return []badInput{
		{
			name: "an assertion of a role that issues none", method: http.MethodGet, path: "assertion/myapi",
			want: []string{"issues no assertions", "roles/myapi allow_assertion=true"},
		},
		{name: "deleting a key without deletion_allowed", method: http.MethodDelete, want: []string{"deletion_allowed=true"}},
	}
}
