package engine

import (
	"bytes"
	"encoding/base64"
	"encoding/pem"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/bcgov/vault-plugin-bcgov-jwt/integrationtest/harness"
)

// TestImport_EveryFormObtainsToken imports the keys that people have: those of openssl, in each of
// its forms.
func TestImport_EveryFormObtainsToken(t *testing.T) {
	t.Parallel()
	rows := []struct {
		name, keyType string
		commands      [][]string // of openssl; {key} is the file that they write in the end
		crlf          bool
	}{
		{"RSA in PKCS#8", "rsa-2048", [][]string{{"genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048", "-out", "{key}"}}, false},
		{"RSA in PKCS#8 with CRLF", "rsa-3072", [][]string{{"genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:3072", "-out", "{key}"}}, true},
		{"RSA in PKCS#1", "rsa-2048", [][]string{
			{"genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048", "-out", "{key}.pkcs8"},
			{"rsa", "-traditional", "-in", "{key}.pkcs8", "-out", "{key}"},
		}, false},
		{"EC with its parameters", "ecdsa-p256", [][]string{{"ecparam", "-name", "prime256v1", "-genkey", "-out", "{key}"}}, false},
		{"EC without parameters", "ecdsa-p384", [][]string{{"ecparam", "-name", "secp384r1", "-genkey", "-noout", "-out", "{key}"}}, false},
		{"EC with its parameters and CRLF", "ecdsa-p521", [][]string{{"ecparam", "-name", "secp521r1", "-genkey", "-out", "{key}"}}, true},
		{"EC in PKCS#8", "ecdsa-p256", [][]string{{"genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", "{key}"}}, false},
		{"Ed25519", "ed25519", [][]string{{"genpkey", "-algorithm", "ED25519", "-out", "{key}"}}, false},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			kc := harness.Keycloak(t)
			m := harness.NewMount(t, kc.Config)
			key := filepath.Join(t.TempDir(), "client.key")
			for _, command := range row.commands {
				harness.OpenSSL(t, withFile(command, key)...)
			}
			if row.crlf {
				text, err := os.ReadFile(key)
				require.NoError(t, err)
				text = bytes.ReplaceAll(text, []byte("\n"), []byte("\r\n"))
				require.NoError(t, os.WriteFile(key, text, 0o600))
			}
			der := harness.RecordKeyFile(t, key)
			m.MustRun(t, "write", "{mount}/keys/myapi/import", "private_key=@"+key)
			requireImported(t, m, kc, key, row.keyType)

			ciphertext := m.WrapKey(t, der)
			for _, argument := range []string{"private_key=@" + key, "ciphertext=" + ciphertext} {
				m.MustFailWith(t, "this key already exists as \"myapi\"",
					"write", "{mount}/keys/other/import", argument)
			}
		})
	}
}

// TestImport_TransitCommandWorks imports a key as the portal creates it: RSA-4096 in PKCS#8.
func TestImport_TransitCommandWorks(t *testing.T) {
	t.Parallel()
	kc := harness.Keycloak(t)
	m := harness.NewMount(t, kc.Config)
	dir := t.TempDir()
	key, encoded := filepath.Join(dir, "client.key"), filepath.Join(dir, "key.b64")
	harness.OpenSSL(t, "genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:4096",
		"-out", key)
	text := base64.StdEncoding.EncodeToString(harness.RecordKeyFile(t, key))
	require.NoError(t, os.WriteFile(encoded, []byte(text), 0o600))
	m.MustRun(t, "transit", "import", "{mount}/keys/myapi", "@"+encoded, "type=rsa-4096")
	requireImported(t, m, kc, key, "rsa-4096")
	for want, args := range map[string][]string{
		`key "myapi" already exists`:         {"{mount}/keys/myapi", "@" + encoded, "type=rsa-4096"},
		"is rsa-4096, not rsa-2048":          {"{mount}/keys/other", "@" + encoded, "type=rsa-2048"},
		`this key already exists as "myapi"`: {"{mount}/keys/other", "@" + encoded, "type=rsa-4096"},
	} {
		result := m.RunVault(t, append([]string{"transit", "import"}, args...)...)
		require.NotZero(t, result.Code)
		harness.RequireTexts(t, result.Stderr+result.Stdout, want)
	}
}

// TestImport_PortalScriptKeyWorks runs the script of the portal's documentation verbatim.
func TestImport_PortalScriptKeyWorks(t *testing.T) {
	t.Parallel()
	kc := harness.Keycloak(t)
	m := harness.NewMount(t, kc.Config)
	dir := t.TempDir()
	if missing := installNodeJOSE(t, dir); missing != "" {
		require.NotEqual(t, "true", os.Getenv("CI"), missing)
		t.Skip("skipped: the key of node-jose: " + missing)
	}
	node := exec.CommandContext(t.Context(), "node")
	node.Dir, node.Stdin = dir, strings.NewReader(seedScript)
	output, err := node.CombinedOutput()
	require.NoError(t, err, "%s", output)

	key := filepath.Join(dir, "client.key")
	harness.RecordKeyFile(t, key)
	m.MustRun(t, "write", "{mount}/keys/myapi/import", "private_key=@"+key)
	written, err := os.ReadFile(filepath.Join(dir, "client.crt"))
	require.NoError(t, err)
	ours, _ := pem.Decode([]byte(m.Read(t, "keys/myapi").Text(t, "public_key")))
	theirs, _ := pem.Decode(written)
	require.NotNil(t, theirs)
	require.Equal(t, ours.Bytes, theirs.Bytes,
		"what was registered at the portal is what would be registered now")
	requireImported(t, m, kc, key, "rsa-2048")
}

// TestImport_BadInputChangesNothing has one row for each thing that people import in place of a
// private key.
func TestImport_BadInputChangesNothing(t *testing.T) {
	t.Parallel()
	m := harness.NewMount(t, nil)
	keys := newKeyFiles(t)
	m.Write(t, "keys/taken/import", map[string]any{"private_key": keys.rsa})
	ciphertext := m.WrapKey(t, keys.freshDER)
	raw, err := base64.StdEncoding.DecodeString(ciphertext)
	require.NoError(t, err)
	altered := func(at int) string {
		changed := bytes.Clone(raw)
		changed[at] ^= 1
		return base64.StdEncoding.EncodeToString(changed)
	}
	const uniform = "ciphertext: cannot be unwrapped"
	rows := []struct {
		name, key string
		body      map[string]any
		want      string
	}{
		{"nothing", "new", nil, "private_key: "},
		{"both", "new", fields("private_key", keys.fresh, "ciphertext", ciphertext), "private_key: cannot be combined with ciphertext"},
		{"no PEM", "new", fields("private_key", "hello"), "is not PEM"},
		{"a public key", "new", fields("private_key", keys.public), "is a public key"},
		{"a certificate", "new", fields("private_key", keys.certificate), "is a certificate"},
		{"encrypted PKCS#8", "new", fields("private_key", keys.encrypted), "is encrypted"},
		{"encrypted PKCS#1", "new", fields("private_key", keys.encryptedPKCS1), "is encrypted"},
		{"RSA-1024", "new", fields("private_key", keys.rsa1024), "RSA key of 1024 bits"},
		{"RSA with three primes", "new", fields("private_key", keys.threePrimes), "primes"},
		{"RSA with e = 3", "new", fields("private_key", keys.exponent3), "public exponent 3"},
		{"a curve that is not taken", "new", fields("private_key", keys.p224), "P-224"},
		{"a curve that Go does not know", "new", fields("private_key", keys.secp256k1), "not supported"},
		{"a key that cannot sign", "new", fields("private_key", keys.x25519), "is not a key that can sign"},
		{"a private key after the certificate", "new", fields("private_key", keys.certificate+keys.fresh), "PEM block"},
		{"trailing garbage", "new", fields("private_key", keys.fresh+"junk"), "has data after the first PEM block"},
		{"garbage inside", "new", fields("private_key", keys.fresh[:400]+keys.fresh[420:]), "private_key: "},
		{"DER with more behind it", "new", fields("private_key", keys.padded), "private_key: "},
		{"two keys", "new", fields("private_key", keys.fresh+keys.rsa), "has data after the first PEM block"},
		{"over 16 KiB", "new", fields("private_key", keys.fresh+strings.Repeat("\n", 16<<10)), "is "},
		{"onto an existing key", "taken", fields("private_key", keys.fresh), "key \"taken\" already exists"},
		{"under another name", "new", fields("private_key", keys.rsa), "already exists as \"taken\""},
		{"another type than said", "new", fields("private_key", keys.fresh, "type", "rsa-3072"), "is rsa-2048, not rsa-3072"},
		{"an unknown type", "new", fields("private_key", keys.fresh, "type", "rsa-1024"), "type: "},
		{"a hash with the PEM", "new", fields("private_key", keys.fresh, "hash_function", "SHA256"), "hash_function: applies to ciphertext only"},
		{"an unknown field", "new", fields("private_key", keys.fresh, "allow_rotation", true), "allow_rotation"},
		{"an unknown hash", "new", fields("ciphertext", ciphertext, "hash_function", "MD5"), "hash_function: "},
		{"another hash", "new", fields("ciphertext", ciphertext, "hash_function", "SHA512"), uniform},
		{"no base64", "new", fields("ciphertext", "%%%"), uniform},
		{"a short ciphertext", "new", fields("ciphertext", "aGVsbG8="), uniform},
		{"a truncated ciphertext", "new", fields("ciphertext", base64.StdEncoding.EncodeToString(raw[:len(raw)-8])), uniform},
		{"an altered AES key", "new", fields("ciphertext", altered(100)), uniform},
		{"an altered first block", "new", fields("ciphertext", altered(513)), uniform},
		{"an altered last block", "new", fields("ciphertext", altered(len(raw)-1)), uniform},
		{"a ciphertext for another key", "new", fields("ciphertext", harness.NewMount(t, nil).WrapKey(t, keys.freshDER)), uniform},
		{"wrapped junk", "new", fields("ciphertext", m.WrapKey(t, []byte("junk that is no key"))), uniform},
		{"a wrapped PEM", "new", fields("ciphertext", m.WrapKey(t, []byte(keys.fresh))), uniform},
		{"a ciphertext over 16 KiB", "new", fields("ciphertext", strings.Repeat("A", 20<<10)), uniform},
		{"a wrapped key that is here", "new", fields("ciphertext", m.WrapKey(t, keys.rsaDER)), "already exists as \"taken\""},
		{"a wrapped key of another type", "new", fields("ciphertext", ciphertext, "type", "ed25519"), "is rsa-2048, not ed25519"},
	}
	before := allStored(t, m)
	texts := map[string]bool{}
	for _, row := range rows {
		got := m.Do(t, http.MethodPost, "keys/"+row.key+"/import", nil, row.body)
		require.Equal(t, http.StatusBadRequest, got.Status, "%s: %s", row.name, got.ErrorText())
		harness.RequireTexts(t, got.ErrorText(), row.want)
		require.Equal(t, before, allStored(t, m), "%s changed something", row.name)
		if row.want == uniform {
			texts[got.ErrorText()] = true
		}
	}
	require.Len(t, texts, 1, "one error for everything that can be wrong with a ciphertext")
	m.Write(t, "keys/new/import", map[string]any{
		"ciphertext": ciphertext, "hash_function": "SHA256", "type": "rsa-2048",
	})
}
