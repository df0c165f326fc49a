package backend

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"hash"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/bcgov/vault-plugin-bcgov-jwt/backend/internal/keyring"
	"github.com/bcgov/vault-plugin-bcgov-jwt/integrationtest/idp"
	"github.com/hashicorp/vault/sdk/logical"
	"github.com/stretchr/testify/require"
	"github.com/tink-crypto/tink-go/v2/kwp/subtle"
)

func pemOf(blockType string, der []byte) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: blockType, Bytes: der}))
}

func pkcs8Of(tb testing.TB, private any) []byte {
	tb.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(private)
	require.NoError(tb, err)
	return der
}

// newPEM returns a new private key and its public key.
func newPEM(tb testing.TB) (private, public string) {
	tb.Helper()
	publicKey, key, err := ed25519.GenerateKey(rand.Reader)
	require.NoError(tb, err)
	spki, err := x509.MarshalPKIXPublicKey(publicKey)
	require.NoError(tb, err)
	return pemOf("PRIVATE KEY", pkcs8Of(tb, key)), pemOf("PUBLIC KEY", spki)
}

func TestImport_CreatesAKeysFirstVersion(t *testing.T) {
	t.Parallel()
	m := newMount(t)
	p := newProvider(t, idp.Options{})
	m.write("config", map[string]any{"allow_insecure_endpoints": true})
	private, public := newPEM(t)
	answer := m.write("keys/myapi/import", map[string]any{"private_key": strings.ReplaceAll(private, "\n", "\r\n"), "type": "ed25519"})
	require.Equal(t, m.read("keys/myapi").Data, answer.Data, "it returns the key's read")
	require.Equal(t, public, answer.Data["public_key"])
	require.Equal(t, "ed25519", answer.Data["type"])
	require.Equal(t, "imported", m.version(1)["origin"])
	require.Equal(t, "active", m.version(1)["state"])
	require.Equal(t, 1, answer.Data["active_version"])
	require.Equal(t, int64(86400), answer.Data["overlap_period"])
	require.Len(t, answer.Warnings, 1)
	for _, part := range []string{"delete every other copy", "vault write -f bcgov-jwt/keys/myapi/rotate"} {
		require.Contains(t, answer.Warnings[0], part)
	}
	require.Contains(t, answer.Data["next_step"], "vault write bcgov-jwt/keys/myapi client_id=… issuer=…")
	m.write("keys/myapi", map[string]any{"client_id": "my-client", "issuer": p.issuer()})
	m.write("roles/myapi", nil)
	p.register(m, "myapi", "my-client")
	require.Equal(t, 1, m.signedBy())

	// Rotate to a key that was never outside Vault.
	m.write("keys/myapi/rotate", nil)
	require.Equal(t, "generated", m.version(2)["origin"])
	p.registerVersion(m, 2)
	require.Equal(t, 2, m.signedBy())
	requireNotLogged(t, m, private)
}

func requireNotLogged(t *testing.T, m *mount, private string) {
	t.Helper()
	block, _ := pem.Decode([]byte(private))
	body := base64.StdEncoding.EncodeToString(block.Bytes)
	require.NotContains(t, m.log.String(), body[len(body)-20:])
}

func TestImport_AcceptsThePortalsOwnPair(t *testing.T) {
	t.Parallel()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	require.NoError(t, err)
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	sec1, err := x509.MarshalECPrivateKey(ec)
	require.NoError(t, err)
	m := newMount(t)
	for name, test := range map[string]struct{ pem, keyType string }{
		"pkcs8": {pemOf("PRIVATE KEY", pkcs8Of(t, key)), "rsa-2048"},
		"sec1":  {pemOf("EC PRIVATE KEY", sec1), "ecdsa-p256"},
	} {
		require.Equal(t, test.keyType, m.write("keys/"+name+"/import", map[string]any{"private_key": test.pem}).Data["type"])
	}
	m.write("keys/sec1", map[string]any{"deletion_allowed": true})
	m.delete("keys/sec1")
	require.Equal(t, "ecdsa-p256", m.write("keys/again/import", map[string]any{"private_key": pemOf("EC PRIVATE KEY", sec1)}).Data["type"], "its index went with it")
	// The other encoding of a stored key is the same key.
	require.Contains(t, m.refused(logical.UpdateOperation, "keys/pkcs1/import", map[string]any{"private_key": pemOf("RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(key))}),
		`private_key: this key already exists as "pkcs8"`)
}

// keyringFixture returns a key that Go does not generate.
func keyringFixture(t *testing.T, name string) string {
	t.Helper()
	contents, err := os.ReadFile(filepath.Join("internal", "keyring", "testdata", name))
	require.NoError(t, err)
	return string(contents)
}

func TestImport_IsRejected(t *testing.T) {
	t.Parallel()
	m := newMount(t)
	private, public := newPEM(t)
	other, _ := newPEM(t)
	m.write("keys/there", map[string]any{"type": "ed25519"})
	here, _ := newPEM(t)
	m.write("keys/imported/import", map[string]any{"private_key": here})
	certificate := m.read("keys/there/certificate").Data["certificate"].(string)
	small, err := rsa.GenerateKey(rand.Reader, 1024)
	require.NoError(t, err)
	p224, err := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
	require.NoError(t, err)
	block, _ := pem.Decode([]byte(private))

	for name, test := range map[string]struct {
		data map[string]any
		says string
	}{
		"nothing":             {nil, "private_key: "},
		"both":                {map[string]any{"private_key": private, "ciphertext": "AAAA"}, "private_key: "},
		"a hash for a PEM":    {map[string]any{"private_key": private, "hash_function": "SHA256"}, "hash_function: applies to ciphertext only"},
		"a public key":        {map[string]any{"private_key": public}, "private_key: is a public key"},
		"a certificate":       {map[string]any{"private_key": certificate}, "private_key: is a certificate"},
		"an encrypted key":    {map[string]any{"private_key": pemOf("ENCRYPTED PRIVATE KEY", block.Bytes)}, "private_key: is encrypted; decrypt it with: openssl pkey"},
		"RSA-1024":            {map[string]any{"private_key": pemOf("PRIVATE KEY", pkcs8Of(t, small))}, "private_key: is an RSA key of 1024 bits"},
		"public exponent 3":   {map[string]any{"private_key": keyringFixture(t, "exponent-3.pem")}, "private_key: is an RSA key with the public exponent 3"},
		"three primes":        {map[string]any{"private_key": keyringFixture(t, "three-primes.pem")}, "private_key: is an RSA key of 3 primes"},
		"a foreign curve":     {map[string]any{"private_key": pemOf("PRIVATE KEY", pkcs8Of(t, p224))}, "private_key: is on the curve P-224"},
		"a key to agree with": {map[string]any{"private_key": keyringFixture(t, "x25519.pem")}, "private_key: is not a key that can sign"},
		"another type":        {map[string]any{"private_key": private, "type": "rsa-4096"}, "type: the private key is ed25519, not rsa-4096"},
		"no type":             {map[string]any{"private_key": private, "type": "aes256-gcm96"}, `type: "aes256-gcm96" is not a supported key type`},
		"trailing text":       {map[string]any{"private_key": private + "garbage"}, "private_key: has data after the first PEM block"},
		"trailing DER":        {map[string]any{"private_key": pemOf("PRIVATE KEY", append(slices.Clip(block.Bytes), 0))}, "private_key: has a PEM block that is not one DER value"},
		"two keys":            {map[string]any{"private_key": private + other}, "private_key: has data after the first PEM block"},
		"over 16 KiB":         {map[string]any{"private_key": private + strings.Repeat("\n", 16<<10)}, "private_key: is "},
		"a key that is here":  {map[string]any{"private_key": here}, `private_key: this key already exists as "imported"`},
		"a list":              {map[string]any{"private_key": []string{private}}, "private_key: must be a string"},
		"a setting beside it": {map[string]any{"private_key": private, "client_id": "c"}, "client_id: is set after the import, with: vault write bcgov-jwt/keys/"},
		"an unknown hash":     {map[string]any{"ciphertext": "AAAA", "hash_function": "MD5"}, `hash_function: "MD5" is not supported; use one of SHA256, `},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			resp, err := m.send(logical.UpdateOperation, "keys/myapi/import", test.data)
			require.NoError(t, err)
			require.True(t, resp.IsError())
			text := resp.Error().Error()
			require.True(t, strings.HasPrefix(text, test.says), text)
			require.Less(t, len(text), 400)
			require.NotContains(t, text, "MC4C", "nothing of the key")
			require.Nil(t, m.read("keys/myapi"))
		})
	}
	require.Contains(t, m.refused(logical.UpdateOperation, "keys/there/import", map[string]any{"private_key": private}), `name: key "there" already exists`)
	require.Contains(t, m.refused(logical.UpdateOperation, "keys/imported/import", map[string]any{"private_key": here}), `name: key "imported" already exists`)
	require.Contains(t, m.refused(logical.UpdateOperation, "keys/a..b/import", map[string]any{"private_key": private}), "use up to 128 letters")
}

// wrap wraps a private key as `vault transit import` does.
func wrap(t *testing.T, m *mount, newHash func() hash.Hash, der []byte) []byte {
	t.Helper()
	block, _ := pem.Decode([]byte(m.read("wrapping_key").Data["public_key"].(string)))
	public, err := x509.ParsePKIXPublicKey(block.Bytes)
	require.NoError(t, err)
	ephemeral := make([]byte, 32)
	_, err = rand.Read(ephemeral)
	require.NoError(t, err)
	kwp, err := subtle.NewKWP(ephemeral)
	require.NoError(t, err)
	wrapped, err := kwp.Wrap(der)
	require.NoError(t, err)
	encrypted, err := rsa.EncryptOAEP(newHash(), rand.Reader, public.(*rsa.PublicKey), ephemeral, nil)
	require.NoError(t, err)
	return append(encrypted, wrapped...)
}

func TestImport_WrappedKeyAsInTransit(t *testing.T) {
	t.Parallel()
	m := newMount(t)
	for _, hashName := range keyring.HashFunctions() {
		private, public := newPEM(t)
		block, _ := pem.Decode([]byte(private))
		ciphertext := base64.StdEncoding.EncodeToString(wrap(t, m, keyring.HashFunction(hashName), block.Bytes))
		answer := m.write("keys/"+hashName+"/import", map[string]any{"ciphertext": ciphertext, "hash_function": hashName, "type": "ed25519"})
		require.Equal(t, public, answer.Data["public_key"], hashName)
		require.Equal(t, "imported", m.read("keys/" + hashName + "/versions/1").Data["origin"])
	}

	private, _ := newPEM(t)
	block, _ := pem.Decode([]byte(private))
	good := wrap(t, m, sha256.New, block.Bytes)
	altered := append([]byte{}, good...)
	altered[len(altered)-1] ^= 1
	alteredKey := append([]byte{}, good...)
	alteredKey[100] ^= 1
	texts := map[string]bool{}
	for name, data := range map[string]map[string]any{
		"the wrong hash":     {"ciphertext": base64.StdEncoding.EncodeToString(good), "hash_function": "SHA512"},
		"truncated":          {"ciphertext": base64.StdEncoding.EncodeToString(good[:len(good)-8])},
		"cut to the AES key": {"ciphertext": base64.StdEncoding.EncodeToString(good[:512])},
		"altered":            {"ciphertext": base64.StdEncoding.EncodeToString(altered)},
		"an altered AES key": {"ciphertext": base64.StdEncoding.EncodeToString(alteredKey)},
		"no base64":          {"ciphertext": "not base64!"},
		"no key in it":       {"ciphertext": base64.StdEncoding.EncodeToString(wrap(t, m, sha256.New, []byte("this is not a private key")))},
		"over 16 KiB":        {"ciphertext": strings.Repeat("A", 16<<10+4)},
	} {
		text := m.refused(logical.UpdateOperation, "keys/myapi/import", data)
		require.True(t, strings.HasPrefix(text, "ciphertext: cannot be unwrapped"), "%s: %s", name, text)
		texts[text] = true
	}
	require.Len(t, texts, 1, "one uniform error")
	require.Contains(t, m.refused(logical.UpdateOperation, "keys/myapi/import", map[string]any{"ciphertext": base64.StdEncoding.EncodeToString(good), "type": "rsa-2048"}),
		"type: the private key is ed25519")
	m.write("keys/myapi/import", map[string]any{"ciphertext": base64.StdEncoding.EncodeToString(good), "hash_function": "sha256"})
}

// TestImport_ConcurrentImportsCreateOneName starts a second import while the first is about to store.
func TestImport_ConcurrentImportsCreateOneName(t *testing.T) {
	t.Parallel()
	m := newMount(t)
	private, _ := newPEM(t)
	data := map[string]any{"private_key": private}
	second := make(chan error, 1)
	var once sync.Once
	m.storage.intercept(func(v verb, _ string) error {
		if !v.writes() {
			return nil
		}
		once.Do(func() {
			ended := make(chan struct{})
			go func() {
				second <- sent(logical.UpdateOperation, "keys/second/import", data)(m)
				close(ended)
			}()
			select {
			case <-ended: // nothing kept it from ending first
			case <-time.After(200 * time.Millisecond):
			}
		})
		return nil
	})
	require.NoError(t, sent(logical.UpdateOperation, "keys/first/import", data)(m))
	require.ErrorContains(t, <-second, `private_key: this key already exists as "first"`)
	require.Equal(t, []string{"first"}, m.list("keys/"))
}

func TestImport_FailedImportCanBeRepeated(t *testing.T) {
	t.Parallel()
	private, _ := newPEM(t)
	for n := 1; ; n++ {
		m := newMount(t)
		failed := m.storage.failNth(n, verb.writes)
		resp, err := m.send(logical.UpdateOperation, "keys/myapi/import", map[string]any{"private_key": private})
		m.storage.intercept(nil)
		if !failed() {
			require.NoError(t, err)
			require.False(t, resp.IsError())
			require.Equal(t, 4, n, "the id's index, the key id's, the entry")
			return
		}
		require.ErrorIs(t, err, errStorage)
		require.Nil(t, m.read("keys/myapi"))
		m.write("keys/another/import", map[string]any{"private_key": private})
		require.Contains(t, m.refused(logical.UpdateOperation, "keys/myapi/import", map[string]any{"private_key": private}), `already exists as "another"`)
		m.write("keys/another", map[string]any{"deletion_allowed": true})
		m.delete("keys/another")
		m.write("keys/myapi/import", map[string]any{"private_key": private})
	}
}

func TestImport_FailedReadChangesNothing(t *testing.T) {
	t.Parallel()
	private, _ := newPEM(t)
	for n := 1; ; n++ {
		m := newMount(t)
		failed := m.storage.failNth(n, func(v verb) bool { return v == get })
		resp, err := m.send(logical.UpdateOperation, "keys/myapi/import", map[string]any{"private_key": private})
		m.storage.intercept(nil)
		if !failed() {
			require.NoError(t, err)
			require.False(t, resp.IsError())
			require.Greater(t, n, 2)
			return
		}
		require.ErrorIs(t, err, errStorage)
		require.Empty(t, m.storage.entries(t))
	}
}

func TestImport_SecretFieldsAreMarked(t *testing.T) {
	t.Parallel()
	route := newMount(t).Route("keys/myapi/import")
	for _, field := range []string{"private_key", "ciphertext"} {
		require.True(t, route.Fields[field].DisplayAttrs.Sensitive, field)
	}
	require.NotEmpty(t, route.Operations[logical.UpdateOperation].Properties().Responses[http.StatusOK])
}

func TestImport_RejectedCiphertextCreatesNoWrappingKey(t *testing.T) {
	t.Parallel()
	m := newMount(t)
	require.Contains(t, m.refused(logical.UpdateOperation, "keys/myapi/import", map[string]any{"ciphertext": "AAAA"}), "ciphertext: cannot be unwrapped")
}

func TestWrappingKey_IsCreatedOnceAndKept(t *testing.T) {
	t.Parallel()
	m := newMount(t)
	m.storage.failNth(1, verb.writes)
	require.Contains(t, m.failed(http.StatusInternalServerError, logical.ReadOperation, "wrapping_key", nil), errStorage.Error())
	m.storage.intercept(nil)
	require.Empty(t, m.storage.entries(t))

	var wait sync.WaitGroup
	for range 2 {
		wait.Go(func() { m.read("wrapping_key") })
	}
	wait.Wait()
	require.Equal(t, 2, m.storage.writes(), "the failed one and one more")
	public := m.read("wrapping_key").Data["public_key"].(string)
	block, rest := pem.Decode([]byte(public))
	require.Empty(t, rest)
	parsed, err := x509.ParsePKIXPublicKey(block.Bytes)
	require.NoError(t, err)
	require.Equal(t, 4096, parsed.(*rsa.PublicKey).N.BitLen())

	entries := m.storage.entries(t)
	require.Len(t, entries, 1)
	require.Contains(t, entries, "wrapping-key", "where the seal wraps")
	require.Contains(t, m.SpecialPaths().SealWrapStorage, "wrapping-key")
	restarted := mountOver(t, m.storage, m.clock)
	require.Equal(t, public, restarted.read("wrapping_key").Data["public_key"])
	require.NotContains(t, m.log.String(), strings.TrimSpace(entries["wrapping-key"]))
}

func TestWrappingKey_ReplacedByAnotherNodeIsReadAgain(t *testing.T) {
	t.Parallel()
	m := newMount(t)
	m.read("wrapping_key") // makes it
	first := m.read("wrapping_key").Data
	entry, err := m.storage.Get(t.Context(), "wrapping-key")
	require.NoError(t, err)
	// A newer format differs from the key in memory without generating another RSA key.
	require.NoError(t, m.storage.Put(t.Context(), &logical.StorageEntry{Key: "wrapping-key", Value: []byte(`{"format":2}`)}))
	require.Equal(t, first, m.read("wrapping_key").Data, "kept in memory until invalidated")
	m.InvalidateKey(t.Context(), "wrapping-key")
	before := m.storage.entries(t)
	require.Contains(t, m.failed(http.StatusInternalServerError, logical.ReadOperation, "wrapping_key", nil), "newer version of this plugin")
	require.Contains(t, m.failed(http.StatusInternalServerError, logical.UpdateOperation, "keys/a/import", map[string]any{"ciphertext": "AAAA"}), "newer version of this plugin")
	require.Equal(t, before, m.storage.entries(t), "never overwritten")
	require.NoError(t, m.storage.Put(t.Context(), entry))
	require.Equal(t, first, m.read("wrapping_key").Data)

	require.NoError(t, m.storage.Put(t.Context(), &logical.StorageEntry{Key: "wrapping-key", Value: []byte(`{"format":"hunter2"`)}))
	m.InvalidateKey(t.Context(), "wrapping-key")
	require.NotContains(t, m.failed(http.StatusInternalServerError, logical.ReadOperation, "wrapping_key", nil), "hunter2")
}
