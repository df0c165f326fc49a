package backend

import (
	"context"
	"strings"
	"testing"

	"github.com/bcgov/vault-plugin-bcgov-jwt/integrationtest/idp"
	"github.com/hashicorp/vault/sdk/logical"
	"github.com/stretchr/testify/require"
)

// TestMistakes_HaveTheirOwnText: each is one that people make, and none changes anything.
func TestMistakes_HaveTheirOwnText(t *testing.T) {
	t.Parallel()
	const (
		realm = "https://dev.loginproxy.gov.bc.ca/auth/realms/apigw"
		token = realm + "/protocol/openid-connect/token"
	)
	openSSH := "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXktdjEA\n-----END OPENSSH PRIVATE KEY-----\n"
	for name, test := range map[string]struct {
		path string
		data map[string]any
		text string
	}{
		"private key on the key":        {"keys/x", map[string]any{"private_key": "-----BEGIN"}, `private_key: is not a setting; import it as a new key with: vault write bcgov-jwt/keys/x/import private_key=@client.key`},
		"file name without @":           {"keys/x/import", map[string]any{"private_key": "client.key"}, `private_key: is not PEM; to pass a file, put @ before its name, such as private_key=@client.key`},
		"OpenSSH key":                   {"keys/x/import", map[string]any{"private_key": openSSH}, `private_key: is in OpenSSH's format; convert a copy of an RSA or EC key with: ssh-keygen -p -N "" -m PKCS8 -f copy.key`},
		"public key in place of it":     {"keys/x/import", map[string]any{"private_key": "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"}, `private_key: is a public key; pass its private key`},
		"encrypted key":                 {"keys/x/import", map[string]any{"private_key": "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n"}, `private_key: is encrypted; decrypt it with: openssl pkey -in client.key -out plain.key`},
		"scope among the parameters":    {"roles/myapi", map[string]any{"parameters": "scope=read"}, `parameters: cannot set scope; use the field scopes=read,write`},
		"scope for scopes":              {"roles/myapi", map[string]any{"scope": "read"}, `unknown field "scope": did you mean "scopes"?`},
		"scopes with spaces":            {"roles/myapi", map[string]any{"scopes": "read write"}, `scopes: item 1 contains whitespace; separate scopes with commas`},
		"scopes on the key":             {"keys/myapi", map[string]any{"scopes": "read"}, `scopes: belongs to a role; set it with: vault write bcgov-jwt/roles/myapi scopes=…`},
		"client_id on the role":         {"roles/myapi", map[string]any{"client_id": "c"}, `client_id: belongs to the key; set it with: vault write bcgov-jwt/keys/myapi client_id=…`},
		"role without its key":          {"roles/other", nil, `key: "other" does not exist; set key=… or create it with: vault write -f bcgov-jwt/keys/other`},
		"unknown delivery":              {"roles/myapi", map[string]any{"delivery": "lease"}, `delivery: "lease" is not one of leased, unleased, shared`},
		"proxy without scheme":          {"config", map[string]any{"proxy_url": "proxy.example:3128", "allowed_hosts": "idp.example"}, `proxy_url: has no scheme; set a URL such as http://proxy.example.com:3128, or proxy_url=environment`},
		"proxy without allowed_hosts":   {"config", map[string]any{"proxy_url": "http://proxy.example:3128"}, `proxy_url: requires allowed_hosts, as the proxy resolves names; also set allowed_hosts=…`},
		"URL among the hosts":           {"config", map[string]any{"allowed_hosts": "https://idp.example"}, `allowed_hosts: item 1 is a URL; set only the host, such as idp.example.com`},
		"issuer and endpoint swapped":   {"keys/myapi", map[string]any{"issuer": token, "token_endpoint": realm}, `issuer: is a URL below token_endpoint; swap the two, as the issuer is the shorter one`},
		"issuer with a final slash":     {"keys/myapi", map[string]any{"issuer": realm + "/"}, `issuer: must not end with "/"; set issuer=https://dev.loginproxy.gov.bc.ca/auth/realms/apigw`},
		"discovery document as issuer":  {"keys/myapi", map[string]any{"issuer": realm + "/.well-known/openid-configuration"}, `issuer: must not end with "/.well-known/openid-configuration"; set issuer=https://dev.loginproxy.gov.bc.ca/auth/realms/apigw`},
		"token endpoint as issuer":      {"keys/myapi", map[string]any{"issuer": token}, `issuer: must not end with "/protocol/openid-connect/token"; set issuer=https://dev.loginproxy.gov.bc.ca/auth/realms/apigw`},
		"issuer without scheme":         {"keys/myapi", map[string]any{"issuer": strings.TrimPrefix(realm, "https://")}, `issuer: must begin with https://, such as https://host/path`},
		"issuer over http":              {"keys/myapi", map[string]any{"issuer": "http://idp.example"}, `issuer: must use https; for development, set allow_insecure_endpoints=true in config`},
		"client_id in quotes":           {"keys/myapi", map[string]any{"client_id": `"abc"`}, `client_id: has quotes or angle brackets around it; write it without them`},
		"client_id in angle brackets":   {"keys/myapi", map[string]any{"client_id": "<abc>"}, `client_id: has quotes or angle brackets around it; write it without them`},
		"renamed field":                 {"keys/myapi", map[string]any{"retire_after": "1h"}, `retire_after: was renamed to overlap_period; set overlap_period=…`},
		"renamed field on the role":     {"roles/myapi", map[string]any{"activation_delay": "1h"}, `activation_delay: was renamed to prepublish_period; belongs to the key; set it with: vault write bcgov-jwt/keys/myapi prepublish_period=…`},
		"mistyped field":                {"keys/myapi", map[string]any{"clientid": "c"}, `unknown field "clientid": did you mean "client_id"?`},
		"field in upper case":           {"keys/myapi", map[string]any{"Issuer": realm}, `unknown field "Issuer": did you mean "issuer"?`},
		"unknown field":                 {"keys/myapi", map[string]any{"color": "red"}, `unknown field "color": this operation accepts algorithm, allowed_roles, assertion_ttl, audience, auto_rotate_period, client_id, common_name, deletion_allowed, disabled, issuer, overlap_period, prepublish_period, registration, revocation_endpoint, send_key_id, token_endpoint, type`},
		"type of a key changed":         {"keys/myapi", map[string]any{"type": "rsa-4096"}, `type: cannot be changed from ed25519; create another key with type=rsa-4096`},
		"algorithm of another type":     {"keys/myapi", map[string]any{"algorithm": "RS256"}, `algorithm: "RS256" does not match key type ed25519, which supports EdDSA`},
		"schedule without jwks":         {"keys/myapi", map[string]any{"auto_rotate_period": "24h"}, `auto_rotate_period: requires registration=jwks; with manual, set it to 0 and rotate with: vault write -f bcgov-jwt/keys/myapi/rotate`},
		"duration without unit of time": {"keys/myapi", map[string]any{"overlap_period": "1 day"}, `overlap_period: must be whole seconds, or a duration such as 90s, 5m or 1d`},
		"name with a space":             {"keys/my api", nil, `name: "my api" is invalid; use up to 128 letters, digits, '_', '-' and '.', not starting with '-' or '.', and without '..'`},
		"version of destroy":            {"keys/myapi/destroy", nil, `version: is required; list the versions with: vault list -detailed bcgov-jwt/keys/myapi/versions`},
		"rotate of no key":              {"keys/none/rotate", nil, `name: key "none" does not exist; list the keys with: vault list bcgov-jwt/keys`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := newMount(t)
			m.write("keys/myapi", map[string]any{"type": "ed25519"})
			m.write("roles/myapi", nil)
			before := m.storage.entries(t)
			resp, err := m.handle(t.Context(), logical.UpdateOperation, test.path, test.data)
			require.NoError(t, err)
			require.Equal(t, test.text, resp.Error().Error())
			require.Equal(t, before, m.storage.entries(t))
		})
	}
}

func TestKey_NextStepFollowsItsState(t *testing.T) {
	t.Parallel()
	m := newMount(t)
	p := newProvider(t, idp.Options{})
	m.write("config", map[string]any{"allow_insecure_endpoints": true})
	next := func(written map[string]any) string {
		resp := m.write("keys/myapi", written)
		require.Empty(t, resp.Warnings, "a normal next step is no warning")
		require.Equal(t, resp.Data["next_step"], m.read("keys/myapi").Data["next_step"])
		return resp.Data["next_step"].(string)
	}
	require.Equal(t, "Register the output of `vault read -field=public_key bcgov-jwt/keys/myapi` with the provider (in the API Services Portal, when you "+
		"request access). Then set what it shows with: vault write bcgov-jwt/keys/myapi client_id=… issuer=…", next(map[string]any{"type": "ed25519"}))
	require.Equal(t, "Set what the provider shows with: vault write bcgov-jwt/keys/myapi issuer=…", next(map[string]any{"client_id": "my-client"}))
	require.Equal(t, "If not done yet, give the provider public_key. Then create a role with: vault write -f bcgov-jwt/roles/myapi", next(map[string]any{"issuer": p.issuer()}))
	m.write("roles/reader", map[string]any{"key": "myapi"})
	require.Equal(t, "If not done yet, give the provider public_key. Then read a first token with: vault read bcgov-jwt/creds/reader", next(nil))
	require.Equal(t, "Let the key sign again with: vault write bcgov-jwt/keys/myapi disabled=false", next(map[string]any{"disabled": true}))
	require.NotEmpty(t, next(map[string]any{"disabled": false}))
	p.register(m, "myapi", "my-client")
	m.read("creds/reader")
	require.Empty(t, next(nil), "nothing is left to do")
	m.write("keys/myapi/rotate", nil)
	require.Equal(t, "At the provider, replace the registered public key with the output of `vault read -field=public_key bcgov-jwt/keys/myapi`. The next read of creds then switches to version 2.", next(nil))
}

func TestKey_NextStepNamesThePortalForItsIssuers(t *testing.T) {
	t.Parallel()
	m := newMount(t)
	m.write("keys/myapi", map[string]any{"type": "ed25519", "client_id": "c", "issuer": "https://dev.loginproxy.gov.bc.ca/auth/realms/apigw"})
	require.Contains(t, m.write("keys/myapi/rotate", nil).Data["next_step"], "At the API Services Portal, replace the registered public key with the output of ")
}

func TestConfig_WarnsOfKeysThatItCutsOff(t *testing.T) {
	t.Parallel()
	m := newMount(t)
	for name, data := range map[string]map[string]any{
		"cut":       {"client_id": "c", "issuer": "https://idp.example/realms/a"},
		"pinned":    {"client_id": "c", "issuer": "https://idp.example/realms/a", "token_endpoint": "https://kept.example/token"},
		"unwritten": {},
	} {
		data["type"] = "ed25519"
		m.write("keys/"+name, data)
	}
	require.Equal(t, []string{"These keys' URLs are not allowed, so their roles return no tokens: cut. Check allowed_hosts and, for http, allow_insecure_endpoints."},
		m.write("config", map[string]any{"allowed_hosts": "kept.example"}).Warnings)
	require.Empty(t, m.write("config", map[string]any{"allowed_hosts": "kept.example,idp.example"}).Warnings)
}

// hostNamed is a Vault or OpenBao of this version.
type hostNamed struct {
	logical.SystemView
	version, metadata string
}

func (h hostNamed) PluginEnv(context.Context) (*logical.PluginEnvironment, error) {
	return &logical.PluginEnvironment{VaultVersion: h.version, VaultVersionMetadata: h.metadata}, nil
}

func TestRequest_CommandsNameTheMountAsTypedInItsNamespace(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		host  hostNamed
		mount string
	}{
		"Vault":            {hostNamed{version: "1.21.0"}, "team/bcgov-jwt/"},
		"Vault Enterprise": {hostNamed{version: "1.21.0", metadata: "ent.hsm"}, "bcgov-jwt/"},
		"OpenBao":          {hostNamed{version: "2.7.2"}, "bcgov-jwt/"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := newMount(t)
			test.host.SystemView = m.System()
			require.NoError(t, m.Setup(t.Context(), &logical.BackendConfig{System: test.host, Logger: m.Logger()}))
			at := func(operation logical.Operation, path string, data map[string]any) *logical.Response {
				resp, err := m.HandleRequest(t.Context(), &logical.Request{
					Operation: operation, Path: path, MountPoint: "team/bcgov-jwt/", Storage: m.storage, Data: data,
				})
				require.NoError(t, err)
				return resp
			}
			require.Equal(t, `key: "myapi" does not exist; set key=… or create it with: vault write -f `+test.mount+"keys/myapi",
				at(logical.UpdateOperation, "roles/myapi", nil).Error().Error())
			key := at(logical.CreateOperation, "keys/myapi", map[string]any{"type": "ed25519", "registration": "jwks"})
			require.Contains(t, key.Data["jwks_path"], "/v1/team/bcgov-jwt/jwks/", "a URL has the namespace")
		})
	}
}

func TestKey_WarnsOfRolesThatItShutsOut(t *testing.T) {
	t.Parallel()
	m, _ := newReadyMount(t)
	m.write("roles/other", map[string]any{"key": "myapi"})
	warning := []string{"allowed_roles does not include these roles, which return no tokens: other."}
	require.Equal(t, warning, m.write("keys/myapi", map[string]any{"allowed_roles": "my*"}).Warnings)
	require.Equal(t, warning, m.read("keys/myapi").Warnings)
	require.Empty(t, m.write("keys/myapi", map[string]any{"allowed_roles": ""}).Warnings)
}
