package integrationtest

import (
	"bytes"
	"context"
	"crypto"
	"crypto/aes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/tink-crypto/tink-go/v2/kwp/subtle"
)

const aesKeySize = 2 * aes.BlockSize

// TestImportedKeysGetTokens has the keys that people have: made by openssl in each of its forms, and by the portal's documentation.
func TestImportedKeysGetTokens(t *testing.T) {
	t.Parallel()
	rows := []struct {
		name, keyType string
		make          [][]string // openssl commands; {key} is the file that they write in the end
		crlf          bool
	}{
		{"RSA in PKCS#8", "rsa-2048", [][]string{{"genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048", "-out", "{key}"}}, false},
		{"RSA in PKCS#8 with CRLF", "rsa-3072", [][]string{{"genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:3072", "-out", "{key}"}}, true},
		{"RSA in PKCS#1", "rsa-2048", [][]string{
			{"genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048", "-out", "{key}.pkcs8"}, {"rsa", "-traditional", "-in", "{key}.pkcs8", "-out", "{key}"},
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
			kc := realKeycloak(t)
			m := newMount(t, kc.config)
			key := filepath.Join(t.TempDir(), "client.key")
			for _, command := range row.make {
				openssl(t, replaced(command, key)...)
			}
			if row.crlf {
				text, err := os.ReadFile(key)
				require.NoError(t, err)
				require.NoError(t, os.WriteFile(key, bytes.ReplaceAll(text, []byte("\n"), []byte("\r\n")), 0o600))
			}
			der := knownPKCS8(t, key)
			m.succeeds(t, "write", "{mount}/keys/myapi/import", "private_key=@"+key)
			m.requireImported(t, kc, key, row.keyType)

			m.refuses(t, "this key is here already, as \"myapi\"", "write", "{mount}/keys/other/import", "private_key=@"+key)
			m.refuses(t, "this key is here already, as \"myapi\"", "write", "{mount}/keys/other/import", "ciphertext="+m.wrap(t, der))
		})
	}
}

func replaced(command []string, key string) []string {
	args := make([]string, len(command))
	for i := range command {
		args[i] = strings.ReplaceAll(command[i], "{key}", key)
	}
	return args
}

// requireImported registers the public half that openssl sees in the file, and gets a token.
func (m *mount) requireImported(t *testing.T, kc *provider, file, keyType string) {
	t.Helper()
	key := m.read(t, "keys/myapi")
	require.Equal(t, openssl(t, "pkey", "-in", file, "-pubout"), key.text(t, "public_key"))
	require.Equal(t, keyType, key.text(t, "type"))
	require.Equal(t, "imported", key.version(t, 1, "origin"))
	clientID := newClientID()
	kc.register(t, clientID, key.text(t, "public_key"))
	m.write(t, "keys/myapi", map[string]any{"client_id": clientID, "issuer": kc.issuer})
	m.write(t, "roles/myapi", nil)
	requireWorkingToken(t, m, kc, kc.protectedAPI(t), "myapi")

	rotated := m.write(t, "keys/myapi/rotate", nil)
	require.Equal(t, keyType, rotated.text(t, "type"))
	require.Equal(t, "generated", rotated.version(t, 2, "origin"))
	kc.register(t, clientID, rotated.text(t, "public_key"))
	requireWorkingToken(t, m, kc, kc.protectedAPI(t), "myapi")
}

func openssl(t *testing.T, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "openssl", args...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	output, err := cmd.Output()
	require.NoError(t, err, "openssl %s: %s", strings.Join(args, " "), stderr.String())
	return string(output)
}

// knownPKCS8 makes the private key in a file known to the witness, and returns it as PKCS#8 DER.
func knownPKCS8(t *testing.T, file string) []byte {
	t.Helper()
	der := []byte(openssl(t, "pkcs8", "-topk8", "-nocrypt", "-in", file, "-outform", "DER"))
	parsed, err := x509.ParsePKCS8PrivateKey(der)
	require.NoError(t, err)
	signer, ok := parsed.(crypto.Signer)
	require.True(t, ok)
	require.NoError(t, shared.witness.addPrivateKey(signer))
	return der
}

// wrap does what `vault transit import` does with a private key, and makes the outcome known to the witness.
func (m *mount) wrap(t *testing.T, pkcs8 []byte) string {
	t.Helper()
	block, _ := pem.Decode([]byte(m.read(t, "wrapping_key").text(t, "public_key")))
	require.NotNil(t, block)
	parsed, err := x509.ParsePKIXPublicKey(block.Bytes)
	require.NoError(t, err)
	wrappingKey, ok := parsed.(*rsa.PublicKey)
	require.True(t, ok)
	require.Equal(t, 4096, wrappingKey.N.BitLen())
	aesKey := make([]byte, aesKeySize)
	_, _ = rand.Read(aesKey)
	kwp, err := subtle.NewKWP(aesKey)
	require.NoError(t, err)
	wrapped, err := kwp.Wrap(pkcs8)
	require.NoError(t, err)
	sealed, err := rsa.EncryptOAEP(sha256.New(), rand.Reader, wrappingKey, aesKey, nil)
	require.NoError(t, err)
	ciphertext := base64.StdEncoding.EncodeToString(append(sealed, wrapped...))
	shared.witness.addToken(wrappedKeyPart, ciphertext)
	return ciphertext
}

// TestImportByTheStockTransitCommand has the pair that the portal makes: RSA-4096 in PKCS#8.
func TestImportByTheStockTransitCommand(t *testing.T) {
	t.Parallel()
	kc := realKeycloak(t)
	m := newMount(t, kc.config)
	dir := t.TempDir()
	key, encoded := filepath.Join(dir, "client.key"), filepath.Join(dir, "key.b64")
	openssl(t, "genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:4096", "-out", key)
	require.NoError(t, os.WriteFile(encoded, []byte(base64.StdEncoding.EncodeToString(knownPKCS8(t, key))), 0o600))
	m.succeeds(t, "transit", "import", "{mount}/keys/myapi", "@"+encoded, "type=rsa-4096")
	m.requireImported(t, kc, key, "rsa-4096")
	for want, args := range map[string][]string{
		`there is a key "myapi" already`:       {"{mount}/keys/myapi", "@" + encoded, "type=rsa-4096"},
		"is rsa-4096, not rsa-2048":            {"{mount}/keys/other", "@" + encoded, "type=rsa-2048"},
		`this key is here already, as "myapi"`: {"{mount}/keys/other", "@" + encoded, "type=rsa-4096"},
	} {
		result := m.vault(t, append([]string{"transit", "import"}, args...)...)
		require.NotZero(t, result.code)
		requireNames(t, result.stderr+result.stdout, want)
	}
}

// seedScript is how the documentation of the API Services Portal makes a pair.
const seedScript = `
const fs = require('fs');
const jose = require('node-jose');

const keyStore = jose.JWK.createKeyStore()
keyStore.generate('RSA', 2048, {alg: 'RS256', use: 'sig' })
.then(result => {
  const [key] = keyStore.all({ use: 'sig' })
  fs.writeFileSync(
    'client.key',
    key.toPEM(true)
  )
  fs.writeFileSync(
    'client.crt',
    key.toPEM(false)
  )
  console.log('Saved to: client.key and client.crt')
})
`

// TestImportOfThePortalsOwnScript runs the script of the portal's documentation to the letter.
func TestImportOfThePortalsOwnScript(t *testing.T) {
	t.Parallel()
	kc := realKeycloak(t)
	m := newMount(t, kc.config)
	dir := t.TempDir()
	if missing := installNodeJOSE(t, dir); missing != "" {
		require.NotEqual(t, "true", os.Getenv("CI"), missing)
		t.Skip("skipped: the key made by node-jose: " + missing)
	}
	node := exec.CommandContext(t.Context(), "node")
	node.Dir, node.Stdin = dir, strings.NewReader(seedScript)
	output, err := node.CombinedOutput()
	require.NoError(t, err, "%s", output)

	key := filepath.Join(dir, "client.key")
	knownPKCS8(t, key)
	m.succeeds(t, "write", "{mount}/keys/myapi/import", "private_key=@"+key)
	written, err := os.ReadFile(filepath.Join(dir, "client.crt"))
	require.NoError(t, err)
	ours, _ := pem.Decode([]byte(m.read(t, "keys/myapi").text(t, "public_key")))
	theirs, _ := pem.Decode(written)
	require.NotNil(t, theirs)
	require.Equal(t, ours.Bytes, theirs.Bytes, "what the portal was given is what it would be given now")
	m.requireImported(t, kc, key, "rsa-2048")
}

// installNodeJOSE says what is missing where it cannot.
func installNodeJOSE(t *testing.T, dir string) (missing string) {
	t.Helper()
	for _, command := range []string{"node", "npm"} {
		if _, err := exec.LookPath(command); err != nil {
			return command + " is not on the PATH (https://nodejs.org)"
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	npm := exec.CommandContext(ctx, "npm", "install", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix", dir, "node-jose", "ms")
	npm.Dir = dir
	npm.WaitDelay = time.Second
	if err := npm.Run(); err != nil {
		return "npm could not get it: " + err.Error()
	}
	return ""
}

// TestBadImportsChangeNothing has one row for each thing that people import in place of a private key.
func TestBadImportsChangeNothing(t *testing.T) {
	t.Parallel()
	m := newMount(t, nil)
	keys := newKeyFiles(t)
	m.write(t, "keys/taken/import", map[string]any{"private_key": keys.rsa})
	ciphertext := m.wrap(t, keys.freshDER)
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
		{"both", "new", fields("private_key", keys.fresh, "ciphertext", ciphertext), "not both"},
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
		{"trailing garbage", "new", fields("private_key", keys.fresh+"junk"), "has more after the first PEM block"},
		{"garbage inside", "new", fields("private_key", keys.fresh[:400]+keys.fresh[420:]), "private_key: "},
		{"DER with more behind it", "new", fields("private_key", keys.padded), "private_key: "},
		{"two keys", "new", fields("private_key", keys.fresh+keys.rsa), "has more after the first PEM block"},
		{"over 16 KiB", "new", fields("private_key", keys.fresh+strings.Repeat("\n", 16<<10)), "is "},
		{"onto an existing key", "taken", fields("private_key", keys.fresh), "there is a key \"taken\" already"},
		{"under another name", "new", fields("private_key", keys.rsa), "is here already, as \"taken\""},
		{"another type than said", "new", fields("private_key", keys.fresh, "type", "rsa-3072"), "is rsa-2048, not rsa-3072"},
		{"an unknown type", "new", fields("private_key", keys.fresh, "type", "rsa-1024"), "type: "},
		{"a hash with the PEM", "new", fields("private_key", keys.fresh, "hash_function", "SHA256"), "hash_function: belongs to ciphertext"},
		{"an unknown field", "new", fields("private_key", keys.fresh, "allow_rotation", true), "allow_rotation"},
		{"an unknown hash", "new", fields("ciphertext", ciphertext, "hash_function", "MD5"), "hash_function: "},
		{"another hash", "new", fields("ciphertext", ciphertext, "hash_function", "SHA512"), uniform},
		{"no base64", "new", fields("ciphertext", "%%%"), uniform},
		{"a short ciphertext", "new", fields("ciphertext", "aGVsbG8="), uniform},
		{"a truncated ciphertext", "new", fields("ciphertext", base64.StdEncoding.EncodeToString(raw[:len(raw)-8])), uniform},
		{"an altered AES key", "new", fields("ciphertext", altered(100)), uniform},
		{"an altered first block", "new", fields("ciphertext", altered(513)), uniform},
		{"an altered last block", "new", fields("ciphertext", altered(len(raw)-1)), uniform},
		{"a ciphertext for another key", "new", fields("ciphertext", newMount(t, nil).wrap(t, keys.freshDER)), uniform},
		{"wrapped junk", "new", fields("ciphertext", m.wrap(t, []byte("junk that is no key"))), uniform},
		{"a wrapped PEM", "new", fields("ciphertext", m.wrap(t, []byte(keys.fresh))), uniform},
		{"a ciphertext over 16 KiB", "new", fields("ciphertext", strings.Repeat("A", 20<<10)), uniform},
		{"a wrapped key that is here", "new", fields("ciphertext", m.wrap(t, keys.rsaDER)), "is here already, as \"taken\""},
		{"a wrapped key of another type", "new", fields("ciphertext", ciphertext, "type", "ed25519"), "is rsa-2048, not ed25519"},
	}
	before := m.allStored(t)
	texts := map[string]bool{}
	for _, row := range rows {
		got := m.do(t, http.MethodPost, "keys/"+row.key+"/import", nil, row.body)
		require.Equal(t, http.StatusBadRequest, got.status, "%s: %s", row.name, got.errorText())
		requireNames(t, got.errorText(), row.want)
		require.Equal(t, before, m.allStored(t), "%s changed something", row.name)
		if row.want == uniform {
			texts[got.errorText()] = true
		}
	}
	require.Len(t, texts, 1, "one error for all that can be wrong with a ciphertext")
	m.write(t, "keys/new/import", map[string]any{"ciphertext": ciphertext, "hash_function": "SHA256", "type": "rsa-2048"})
}

// allStored is all that is stored of the mount's keys, by path.
func (m *mount) allStored(t *testing.T) map[string]string {
	t.Helper()
	all := map[string]string{}
	for _, folder := range []string{"key", "key-id", "spki"} {
		list, err := m.client.Logical().ListWithContext(t.Context(), "sys/raw/logical/"+m.uuid+"/"+folder)
		require.NoError(t, err)
		require.NotNil(t, list)
		names, _ := list.Data["keys"].([]any)
		for _, name := range names {
			path := folder + "/" + name.(string)
			all[path] = m.mustBeStored(t, path)
		}
	}
	return all
}

// keyFiles are what people have in their folders.
type keyFiles struct {
	rsa, fresh, public, certificate, encrypted, encryptedPKCS1, rsa1024, threePrimes, exponent3, p224, secp256k1, x25519, padded string

	rsaDER, freshDER []byte
}

func newKeyFiles(t *testing.T) *keyFiles {
	t.Helper()
	dir := t.TempDir()
	file := func(name string) string { return filepath.Join(dir, name) }
	made := func(name string, args ...string) string {
		openssl(t, append(args, "-out", file(name))...)
		text, err := os.ReadFile(file(name))
		require.NoError(t, err)
		return string(text)
	}
	rsaKey := func(name string, options ...string) string {
		args := []string{"genpkey", "-algorithm", "RSA"}
		for _, option := range options {
			args = append(args, "-pkeyopt", option)
		}
		return made(name, args...)
	}
	k := &keyFiles{
		rsa:         rsaKey("rsa", "rsa_keygen_bits:2048"),
		fresh:       rsaKey("fresh", "rsa_keygen_bits:2048"),
		rsa1024:     rsaKey("rsa1024", "rsa_keygen_bits:1024"),
		threePrimes: rsaKey("threePrimes", "rsa_keygen_bits:2048", "rsa_keygen_primes:3"),
		exponent3:   rsaKey("exponent3", "rsa_keygen_bits:2048", "rsa_keygen_pubexp:3"),
		p224:        made("p224", "genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-224"),
		secp256k1:   made("secp256k1", "genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:secp256k1"),
		x25519:      made("x25519", "genpkey", "-algorithm", "X25519"),
	}
	k.public = openssl(t, "pkey", "-in", file("fresh"), "-pubout")
	k.certificate = openssl(t, "req", "-x509", "-new", "-key", file("fresh"), "-subj", "/CN=test", "-days", "1")
	k.encrypted = openssl(t, "pkcs8", "-topk8", "-in", file("fresh"), "-passout", "pass:secret")
	k.encryptedPKCS1 = openssl(t, "rsa", "-traditional", "-aes128", "-passout", "pass:secret", "-in", file("fresh"))
	k.rsaDER, k.freshDER = knownPKCS8(t, file("rsa")), knownPKCS8(t, file("fresh"))
	k.padded = string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: append(bytes.Clone(k.freshDER), 0, 0)}))
	return k
}
