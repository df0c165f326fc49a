package backend

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/bcgov/vault-plugin-bcgov-jwt/backend/internal/keyring"
	"github.com/go-jose/go-jose/v4"
	"github.com/hashicorp/vault/sdk/logical"
	"github.com/stretchr/testify/require"
)

// only returns the named fields of a response, as decoded from JSON.
func only(t *testing.T, resp *logical.Response, names ...string) map[string]any {
	t.Helper()
	require.NotNil(t, resp)
	all := overJSON(t, resp.Data)
	chosen := map[string]any{}
	for _, name := range names {
		require.Contains(t, all, name)
		chosen[name] = all[name]
	}
	return chosen
}

func namesOf[T any](settings []field[T], others ...string) []string {
	for _, s := range settings {
		others = append(others, s.name)
	}
	return others
}

func keySettingNames() []string { return namesOf(keyFields(), "type") }

// everyKeySetting returns a value other than the default for every setting.
func everyKeySetting() map[string]any {
	return map[string]any{
		"type": "rsa-2048", "common_name": "My API", "deletion_allowed": true, "disabled": true,
		"client_id": "my-client", "issuer": "https://idp.example/realms/apigw",
		"token_endpoint": "https://token.example:8443/token", "revocation_endpoint": "https://idp.example/revoke",
		"audience": "https://token.example/", "algorithm": "PS512", "assertion_ttl": 120, "send_key_id": false,
		"allowed_roles": []string{"myapi", "team-*"}, "registration": "jwks", "auto_rotate_period": 7200, "prepublish_period": 60, "overlap_period": 3600,
	}
}

func TestKey_EveryTypeIsCreatedWithItsDefaults(t *testing.T) {
	t.Parallel()
	defaultAlgorithms := map[string]string{
		"rsa-2048": "RS256", "rsa-3072": "RS256", "rsa-4096": "RS256",
		"ecdsa-p256": "ES256", "ecdsa-p384": "ES384", "ecdsa-p521": "ES512", "ed25519": "EdDSA",
	}
	require.Len(t, keyring.Types(), len(defaultAlgorithms))
	for keyType, algorithm := range defaultAlgorithms {
		t.Run(keyType, func(t *testing.T) {
			t.Parallel()
			m := newMount(t)
			made := m.write("keys/myapi", map[string]any{"type": keyType})
			require.Equal(t, overJSON(t, map[string]any{
				"type": keyType, "algorithm": algorithm, "common_name": "myapi", "deletion_allowed": false, "disabled": false,
				"client_id": "", "issuer": "", "token_endpoint": "", "revocation_endpoint": "", "audience": "", "allowed_roles": []string{"*"},
				"assertion_ttl": 45, "send_key_id": true,
				"registration": "manual", "auto_rotate_period": 0, "prepublish_period": 300, "overlap_period": 86400,
			}), only(t, made, keySettingNames()...))
			require.Equal(t, made.Data, m.read("keys/myapi").Data, "a write returns the same body as a read")
			requirePublicMaterial(t, m, made.Data)
		})
	}
}

func requirePublicMaterial(t *testing.T, m *mount, data map[string]any) {
	t.Helper()
	published := m.read("keys/myapi/certificate").Data
	require.Equal(t, data["public_key"], published["public_key"])
	require.Equal(t, data["key_id"], published["key_id"])
	require.Equal(t, 1, published["version"])
	block, rest := pem.Decode([]byte(data["public_key"].(string)))
	require.Empty(t, rest, "one block, with its final newline")
	require.Equal(t, "PUBLIC KEY", block.Type)
	digest := sha256.Sum256(block.Bytes)
	require.Equal(t, base64.RawURLEncoding.EncodeToString(digest[:]), data["key_id"])
	public, err := x509.ParsePKIXPublicKey(block.Bytes)
	require.NoError(t, err)

	block, rest = pem.Decode([]byte(published["certificate"].(string)))
	require.Empty(t, rest)
	certificate, err := x509.ParseCertificate(block.Bytes)
	require.NoError(t, err)
	require.Equal(t, public, certificate.PublicKey)
	require.Equal(t, "CN=myapi", certificate.Subject.String())
	digest = sha256.Sum256(block.Bytes)
	require.Equal(t, hex.EncodeToString(digest[:]), published["certificate_sha256"])

	var set jose.JSONWebKeySet
	require.NoError(t, json.Unmarshal([]byte(m.read("keys/myapi/jwks").Data["jwks"].(string)), &set))
	require.Len(t, set.Keys, 1)
	require.Equal(t, data["key_id"], set.Keys[0].KeyID)
	require.Equal(t, public, set.Keys[0].Key)

	require.Equal(t, 1, data["public_key_version"])
	require.Equal(t, 1, data["active_version"])
	require.Equal(t, 0, data["staged_version"])
	require.Equal(t, []string{}, data["roles"])
	require.Len(t, m.rows("keys/myapi/versions"), 1)
	first := m.version(1)
	require.Equal(t, "active", first["state"])
	require.Equal(t, "generated", first["origin"])
	require.Equal(t, data["key_id"], first["key_id"])
	created, err := time.Parse(time.RFC3339, first["creation_time"].(string))
	require.NoError(t, err)
	require.WithinDuration(t, m.clock.now(), created, time.Minute)
	require.Equal(t, first["creation_time"], first["activation_time"])
}

func TestKey_DefaultTypeIsRSA2048(t *testing.T) {
	t.Parallel()
	require.Equal(t, "rsa-2048", newMount(t).write("keys/myapi", nil).Data["type"])
}

func TestKey_DefaultCommonNameIsTruncated(t *testing.T) {
	t.Parallel()
	m := newMount(t)
	name := strings.Repeat("n", 128)
	require.Equal(t, name[:64], m.write("keys/"+name, map[string]any{"type": "ed25519"}).Data["common_name"])
}

func TestKeyWrite_WritingBackAReadStoresNothing(t *testing.T) {
	t.Parallel()
	for name, written := range map[string]map[string]any{
		"defaults":      {"type": "ed25519"},
		"every setting": everyKeySetting(),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := newMount(t)
			m.write("keys/myapi", written)
			read := m.read("keys/myapi").Data
			writes := m.storage.writes()
			for _, operation := range []logical.Operation{logical.UpdateOperation, logical.PatchOperation} {
				answer := m.do(operation, "keys/myapi", only(t, &logical.Response{Data: read}, keySettingNames()...))
				require.Equal(t, overJSON(t, read), overJSON(t, answer.Data))
				require.Equal(t, overJSON(t, read), overJSON(t, m.read("keys/myapi").Data))
			}
			require.Equal(t, writes, m.storage.writes(), "a write without changes stores nothing")
		})
	}
}

func TestKeyWrite_EverySettingIsReturnedAsWritten(t *testing.T) {
	t.Parallel()
	m := newMount(t)
	written := everyKeySetting()
	require.Len(t, written, len(keySettingNames()), "the test names every setting")
	m.write("keys/myapi", written)
	want := overJSON(t, written)
	require.Equal(t, want, only(t, m.read("keys/myapi"), keySettingNames()...))
	restarted := mountOver(t, m.storage, m.clock)
	require.Equal(t, want, only(t, restarted.read("keys/myapi"), keySettingNames()...))
	require.Equal(t, overJSON(t, m.read("keys/myapi").Data), overJSON(t, restarted.read("keys/myapi").Data))
}

func TestKeyWrite_AbsentFieldKeepsItsValue(t *testing.T) {
	t.Parallel()
	for name, value := range everyKeySetting() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := newMount(t)
			want := everyKeySetting()
			m.write("keys/myapi", want)
			for _, operation := range []logical.Operation{logical.UpdateOperation, logical.PatchOperation} {
				changed := map[string]any{"client_id": "other"}
				if name == "client_id" {
					changed = map[string]any{"audience": "other"}
				}
				require.Equal(t, overJSON(t, map[string]any{"v": value})["v"], overJSON(t, m.do(operation, "keys/myapi", changed).Data)[name])
			}
		})
	}
}

func TestKeyWrite_EmptyValueRestoresTheDefault(t *testing.T) {
	t.Parallel()
	defaults := map[string]any{
		"common_name": "myapi", "deletion_allowed": false, "disabled": false, "token_endpoint": "", "revocation_endpoint": "",
		"allowed_roles": []any{"*"}, "algorithm": "RS256", "assertion_ttl": float64(45), "send_key_id": true,
		"auto_rotate_period": float64(0), "prepublish_period": float64(300), "overlap_period": float64(86400),
	}
	for _, empty := range []any{"", nil} {
		for _, operation := range []logical.Operation{logical.UpdateOperation, logical.PatchOperation} {
			t.Run(fmt.Sprintf("%s of %#v", operation, empty), func(t *testing.T) {
				t.Parallel()
				m := newMount(t)
				m.write("keys/myapi", everyKeySetting())
				answer := m.do(operation, "keys/myapi", map[string]any{"audience": empty}) // before token_endpoint, which it needs
				require.Empty(t, answer.Data["audience"])
				for name, want := range defaults {
					answer := m.do(operation, "keys/myapi", map[string]any{name: empty})
					require.Equal(t, want, overJSON(t, answer.Data)[name], name)
				}
				for _, required := range []string{"client_id", "issuer"} {
					text := m.refused(operation, "keys/myapi", map[string]any{required: empty})
					require.Contains(t, text, required+": cannot be emptied")
					require.Contains(t, text, "vault write bcgov-jwt/keys/myapi disabled=true")
				}
				require.Equal(t, "rsa-2048", m.do(operation, "keys/myapi", map[string]any{"type": empty}).Data["type"])
			})
		}
	}
}

func TestKeyWrite_BlankTextIsAnEmptyValue(t *testing.T) {
	t.Parallel()
	m := newMount(t)
	m.write("keys/myapi", everyKeySetting())
	for name, want := range map[string]any{"audience": "", "algorithm": "RS256", "assertion_ttl": float64(45), "send_key_id": true} {
		require.Equal(t, want, overJSON(t, m.write("keys/myapi", map[string]any{name: " \t"}).Data)[name], name)
	}
	require.Contains(t, m.refused(logical.UpdateOperation, "keys/myapi", map[string]any{"client_id": "  "}), "client_id: cannot be emptied")
}

func TestKeyWrite_EmptyingAnUnsetFieldChangesNothing(t *testing.T) {
	t.Parallel()
	m := newMount(t)
	m.write("keys/myapi", map[string]any{"type": "ed25519", "client_id": "", "issuer": nil})
	writes := m.storage.writes()
	m.write("keys/myapi", map[string]any{"client_id": "", "issuer": "", "token_endpoint": "", "audience": nil})
	require.Equal(t, writes, m.storage.writes())
}

func TestKeyWrite_WhiteSpaceAroundPastedValuesIsTrimmed(t *testing.T) {
	t.Parallel()
	m := newMount(t)
	answer := m.write("keys/myapi", map[string]any{
		"type": " ed25519\n", "client_id": "\tmy-client \r\n", "issuer": " https://idp.example/realm ", "token_endpoint": "https://idp.example/token\n",
		"revocation_endpoint": " https://idp.example/revoke", "audience": " aud ", "algorithm": " EdDSA ", "common_name": " My API ",
	})
	require.Equal(t, map[string]any{
		"type": "ed25519", "client_id": "my-client", "issuer": "https://idp.example/realm", "token_endpoint": "https://idp.example/token",
		"revocation_endpoint": "https://idp.example/revoke", "audience": "aud", "algorithm": "EdDSA", "common_name": "My API",
	}, only(t, answer, "type", "client_id", "issuer", "token_endpoint", "revocation_endpoint", "audience", "algorithm", "common_name"))
}

func TestKeyWrite_WhiteSpaceAroundNumbersAndBooleansIsTrimmed(t *testing.T) {
	t.Parallel()
	m := newMount(t)
	answer := m.write("keys/myapi", map[string]any{"type": "ed25519", "assertion_ttl": " 60s\n", "disabled": "true\n"})
	require.Equal(t, map[string]any{"assertion_ttl": 60.0, "disabled": true}, only(t, answer, "assertion_ttl", "disabled"))
	require.Equal(t, 3, m.write("config", map[string]any{"max_retries": "3\n"}).Data["max_retries"])
}

func TestKeyWrite_IssuerIsKeptVerbatim(t *testing.T) {
	t.Parallel()
	m := newMount(t)
	for _, issuer := range []string{"https://IDP.example/Realms/A/", "https://idp.example", "https://idp.example/", "https://idp.example:443/a%20b"} {
		require.Equal(t, issuer, m.write("keys/myapi", map[string]any{"type": "ed25519", "issuer": issuer}).Data["issuer"])
	}
}

func TestKey_AbsentKeyIsNotFound(t *testing.T) {
	t.Parallel()
	m := newMount(t)
	require.Nil(t, m.read("keys/none"), "nil is a 404")
	m.delete("keys/none")
	text := m.failed(http.StatusNotFound, logical.PatchOperation, "keys/none", map[string]any{"disabled": true})
	require.Equal(t, `key "none" does not exist; create it with: vault write -f bcgov-jwt/keys/none`, text)
	require.Empty(t, m.storage.entries(t))
}

func TestKey_List(t *testing.T) {
	t.Parallel()
	m := newMount(t)
	for _, name := range []string{"b", "a", "a.b"} {
		m.write("keys/"+name, map[string]any{"type": "ed25519"})
	}
	require.Equal(t, []string{"a", "a.b", "b"}, m.list("keys/"))
	require.Equal(t, []string{"a", "a.b", "b"}, m.do(logical.ListOperation, "keys", map[string]any{"list": "true"}).Data["keys"])
}

func TestKey_ListOfNothingIsEmpty(t *testing.T) {
	t.Parallel()
	m := newMount(t)
	require.Empty(t, m.list("keys/"))
	require.Empty(t, m.list("roles/"))
}

func TestKeyWrite_TypeIsFixed(t *testing.T) {
	t.Parallel()
	m := newMount(t)
	m.write("keys/myapi", map[string]any{"type": "ed25519"})
	for _, operation := range []logical.Operation{logical.UpdateOperation, logical.PatchOperation} {
		text := m.refused(operation, "keys/myapi", map[string]any{"type": "rsa-2048"})
		require.Equal(t, "type: cannot be changed from ed25519; create another key with type=rsa-2048", text)
	}
}

func TestKeyWrite_InvalidSettingIsRejectedByName(t *testing.T) {
	t.Parallel()
	for field, values := range map[string][]any{
		"type":          {"rsa-1024", "rsa", "RSA-2048", "ecdsa-p224", "aes256-gcm96", "x"},
		"algorithm":     {"none", "None", "HS256", "HS512", "RS1", "ES256", "EdDSA", "rs256", "RS256 RS384", "dir"},
		"assertion_ttl": {29, "29s", 3601, "1h1s", 0, -45, "0", "-1m", "2d", math53, "9999999999999999999999s"},
		"client_id":     {strings.Repeat("c", 257), "a\nb", "a\x00b", "clïent", "a\u200bb"},
		"audience":      {strings.Repeat("a", 513), "é", "a\tb", "https://a.example https://b.example"},
		"common_name":   {strings.Repeat("n", 65), "a\nb", "é"},
		"registration":  {"auto", "JWKS", "manual,jwks", "x"},
		// Below 1h, or with registration=manual.
		"auto_rotate_period": {1, "59m59s", 3599, 3600, "24h", -1},
		"prepublish_period":  {-1, "24h1s", 86401, "1.5s"},
		// Shorter than assertion_ttl + 75 s, or over 90 days.
		"overlap_period": {0, 1, 119, "119s", "2160h1s", 7776001, -1},
	} {
		t.Run(field, func(t *testing.T) {
			t.Parallel()
			m := newMount(t)
			m.write("keys/old", map[string]any{"type": "rsa-2048"})
			for _, value := range values {
				for path, operation := range map[string]logical.Operation{"keys/new": logical.UpdateOperation, "keys/old": logical.PatchOperation} {
					text := m.refused(operation, path, map[string]any{field: value})
					require.True(t, strings.HasPrefix(text, field+": "), "%v: %s", value, text)
				}
				require.Nil(t, m.read("keys/new"))
			}
		})
	}
}

// math53 is more seconds than a duration can hold.
const math53 = float64(1 << 53)

func TestKeyWrite_BoundsAreInclusive(t *testing.T) {
	t.Parallel()
	m := newMount(t)
	for field, values := range map[string][]any{
		"assertion_ttl":     {30, 3600, "30s", "1h", "60m", 45},
		"prepublish_period": {0, 86400, "24h", "5m"},
		"overlap_period":    {120, 7776000, "2160h"},
		"registration":      {"manual", "jwks", " manual "},
		"client_id":         {strings.Repeat("c", 256), "!\"#~ x"},
		"audience":          {strings.Repeat("a", 512)},
		"common_name":       {strings.Repeat("n", 64)},
	} {
		for _, value := range values {
			m.write("keys/myapi", map[string]any{"type": "ed25519", field: value})
		}
	}
}

func TestKeyWrite_AlgorithmMustMatchType(t *testing.T) {
	t.Parallel()
	for _, keyType := range []keyring.Type{keyring.RSA2048, keyring.ECDSAP256, keyring.ECDSAP384, keyring.ECDSAP521, keyring.ED25519} {
		t.Run(string(keyType), func(t *testing.T) {
			t.Parallel()
			m := newMount(t)
			m.write("keys/myapi", map[string]any{"type": string(keyType)})
			fits := map[string]bool{}
			for _, algorithm := range keyType.Algorithms() {
				fits[string(algorithm)] = true
			}
			for _, algorithm := range algorithms() {
				if fits[algorithm] {
					require.Equal(t, algorithm, m.write("keys/myapi", map[string]any{"algorithm": algorithm}).Data["algorithm"])
					continue
				}
				text := m.refused(logical.UpdateOperation, "keys/myapi", map[string]any{"algorithm": algorithm})
				require.Contains(t, text, "algorithm: ")
				require.Contains(t, text, join(keyType.Algorithms()), "what is right")
			}
		})
	}
}

// badURLs maps invalid endpoint URLs to a part of the error.
func badURLs() map[string]string {
	return map[string]string{
		"realms/apigw":              "must begin with https://",
		"//idp.example/realm":       "must begin with https://",
		"idp.example":               "must begin with https://",
		"https:idp.example":         "must begin with https://",
		"ftp://idp.example/":        "must begin with https://",
		"javascript:alert(1)":       "must begin with https://",
		"http://idp.example/":       "must use https",
		"https://u:hunter2@idp.x":   "user name or password",
		"https://u@idp.example":     "user name or password",
		"https://idp.example/?a":    "query",
		"https://idp.example/?":     "query",
		"https://idp.example/#a":    "fragment",
		"https://idp.example/#":     "fragment",
		"https://idp.example/a b":   "white space",
		"https://idp.example:0/":    "port",
		"https://idp.example:99999": "port",
		"https://idp.example:/":     "port",
		"https://":                  "",
		"https:///realm":            "",

		"https://169.254.169.254/":            "never allowed",
		"https://169.254.1.1/":                "never allowed",
		"https://[::ffff:169.254.169.254]/":   "",
		"https://[64:ff9b::a9fe:a9fe]/":       "never allowed",
		"https://[2002:a9fe:a9fe::1]/":        "never allowed",
		"https://[2001:0:a9fe:a9fe::1]/":      "",
		"https://[fd00:ec2::254]/":            "never allowed",
		"https://[fe80::1]/":                  "never allowed",
		"https://[fe80::1%25eth0]/":           "",
		"https://metadata.google.internal/":   "metadata",
		"https://METADATA.google.internal./":  "metadata",
		"https://0.0.0.0/":                    "never allowed",
		"https://[::]/":                       "never allowed",
		"https://224.0.0.1/":                  "never allowed",
		"https://2852039166/":                 "",
		"https://0xa9fea9fe/":                 "",
		"https://0251.0376.0251.0376/":        "",
		"https://169.254.43518/":              "",
		"https://10.0.0.1/":                   "allowed_hosts",
		"https://172.16.0.1/":                 "allowed_hosts",
		"https://192.168.1.1:8443/":           "allowed_hosts",
		"https://100.64.0.1/":                 "allowed_hosts",
		"https://[fd12:3456::1]/":             "allowed_hosts",
		"https://[::ffff:10.0.0.1]/":          "",
		"https://[64:ff9b::a00:1]/":           "allowed_hosts",
		"https://127.0.0.1:8443/":             "allowed_hosts",
		"https://127.1/":                      "",
		"https://2130706433/":                 "",
		"https://0x7f.0.0.1/":                 "",
		"https://0177.0.0.1/":                 "",
		"https://１２７.0.0.1/":                  "",
		"https://localhost/":                  "allowed_hosts",
		"https://LocalHost.:443/":             "allowed_hosts",
		"https://a.localhost/":                "allowed_hosts",
		"https://[::1]/":                      "allowed_hosts",
		"https://[0:0:0:0:0:0:0:1]/":          "",
		"https://[::ffff:127.0.0.1]/":         "",
		"https://%31%32%37.0.0.1/":            "",
		"https://" + strings.Repeat("a", 300): "",
	}
}

func TestKeyWrite_InvalidURLIsRejectedByField(t *testing.T) {
	t.Parallel()
	for _, field := range []string{"issuer", "token_endpoint", "revocation_endpoint"} {
		t.Run(field, func(t *testing.T) {
			t.Parallel()
			m := newMount(t)
			m.write("keys/old", map[string]any{"type": "ed25519"})
			for bad, why := range badURLs() {
				for path, operation := range map[string]logical.Operation{"keys/new": logical.UpdateOperation, "keys/old": logical.PatchOperation} {
					text := m.refused(operation, path, map[string]any{field: bad})
					require.True(t, strings.HasPrefix(text, field+": "), "%s: %s", bad, text)
					require.Contains(t, text, why, bad)
					require.NotContains(t, text, "hunter2")
				}
			}
		})
	}
}

func TestKeyWrite_ListedHostMayBePrivate(t *testing.T) {
	t.Parallel()
	m := newMount(t)
	m.write("config", map[string]any{"allowed_hosts": "10.0.0.1:8443,*.corp.example"})
	m.write("keys/myapi", map[string]any{"type": "ed25519", "issuer": "https://idp.corp.example/realm", "token_endpoint": "https://10.0.0.1:8443/token"})
	for _, unlisted := range []string{"https://10.0.0.1/token", "https://10.0.0.2:8443/token", "https://corp.example/", "https://idp.example/"} {
		require.Contains(t, m.refused(logical.UpdateOperation, "keys/myapi", map[string]any{"token_endpoint": unlisted}), "token_endpoint: ")
	}
}

func TestKeyWrite_StricterConfigurationDoesNotBlockOtherChanges(t *testing.T) {
	t.Parallel()
	m := newMount(t)
	m.write("keys/myapi", map[string]any{"type": "ed25519", "issuer": "https://idp.example/realm"})
	m.write("config", map[string]any{"allowed_hosts": "other.example"})
	m.write("keys/myapi", map[string]any{"issuer": "https://idp.example/realm", "disabled": true})
	require.Contains(t, m.refused(logical.UpdateOperation, "keys/myapi", map[string]any{"issuer": "https://idp.example/other"}), "issuer: ")
}

func TestKey_Deletion(t *testing.T) {
	t.Parallel()
	m := newMount(t)
	m.write("keys/myapi", map[string]any{"type": "ed25519"})
	text := m.refused(logical.DeleteOperation, "keys/myapi", nil)
	require.Contains(t, text, "vault write bcgov-jwt/keys/myapi deletion_allowed=true")

	m.write("keys/myapi", map[string]any{"deletion_allowed": true})
	for i := range 12 {
		m.write(fmt.Sprintf("roles/r%02d", i), map[string]any{"key": "myapi"})
	}
	require.Len(t, m.read("keys/myapi").Data["roles"], 12)
	text = m.refused(logical.DeleteOperation, "keys/myapi", nil)
	require.Contains(t, text, "is in use; first delete or change these roles: r00, r01,")
	require.Contains(t, text, "r09 and 2 more")
	for i := range 12 {
		m.delete(fmt.Sprintf("roles/r%02d", i))
	}
	m.delete("keys/myapi")
	require.Nil(t, m.read("keys/myapi"))
	require.Empty(t, m.storage.entries(t), "nothing of it is left")
	m.delete("keys/myapi")
}

func TestKey_RecreatedKeyIsAnotherKey(t *testing.T) {
	t.Parallel()
	m := newMount(t)
	settings := map[string]any{"type": "ed25519", "deletion_allowed": true}
	first := m.write("keys/myapi", settings).Data["key_id"]
	m.delete("keys/myapi")
	require.NotEqual(t, first, m.write("keys/myapi", settings).Data["key_id"])
	require.NotEqual(t, first, m.read("keys/myapi").Data["key_id"])
}
