package keyring

import (
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"fmt"
	"hash"
	"strings"
	"testing"

	"github.com/hashicorp/vault/sdk/logical"
	"github.com/stretchr/testify/require"
	"github.com/tink-crypto/tink-go/v2/kwp/subtle"
)

// wrap wraps DER as the transit import command does.
func wrap(t *testing.T, key *WrappingKey, newHash func() hash.Hash, der []byte) []byte {
	t.Helper()
	return wrapWith(t, key, newHash, make([]byte, 32), der)
}

func wrapWith(
	t *testing.T, key *WrappingKey, newHash func() hash.Hash, ephemeral, der []byte,
) []byte {
	t.Helper()
	_, err := rand.Read(ephemeral)
	require.NoError(t, err)
	kwp, err := subtle.NewKWP(ephemeral)
	require.NoError(t, err)
	wrapped, err := kwp.Wrap(der)
	require.NoError(t, err)
	public := &key.private.PublicKey
	encrypted, err := rsa.EncryptOAEP(newHash(), rand.Reader, public, ephemeral, nil)
	require.NoError(t, err)
	return append(encrypted, wrapped...)
}

func TestWrappingKey_UnwrapsOnlyIntactCiphertexts(t *testing.T) {
	t.Parallel()
	storage := &logical.InmemStorage{}
	created, err := CreateWrappingKey(t.Context(), storage, generate(t, WrappingKeyType))
	require.NoError(t, err)
	key, err := LoadWrappingKey(t.Context(), storage, "")
	require.NoError(t, err)
	published, err := key.PublicKeyPEM()
	require.NoError(t, err)
	same, err := created.PublicKeyPEM()
	require.NoError(t, err)
	require.Equal(t, same, published)
	require.Equal(t, "[private]", fmt.Sprintf("%+v", key))

	private := ecKey(t, elliptic.P256())
	for _, name := range HashFunctions() {
		wrapped := wrap(t, key, HashFunction(name), pkcs8Of(t, private))
		ciphertext := base64.StdEncoding.EncodeToString(wrapped)
		material, err := key.Unwrap(ciphertext, HashFunction(name))
		require.NoError(t, err, name)
		require.Equal(t, ECDSAP256, material.Type())
		require.Equal(t, private.Public(), material.private.Public())
	}

	good := wrap(t, key, HashFunction("SHA256"), pkcs8Of(t, private))
	altered := append([]byte{}, good...)
	altered[len(altered)-1] ^= 1
	damagedAES := append([]byte{}, good...)
	damagedAES[0] ^= 1
	for name, wrapped := range map[string][]byte{
		"truncated":         good[:len(good)-8],
		"altered":           altered,
		"another AES key":   damagedAES,
		"the AES key alone": good[:512],
		"nothing":           nil,
		"an AES-128 key": wrapWith(
			t, key, HashFunction("SHA256"), make([]byte, 16), pkcs8Of(t, private)),
		"no PKCS#8": wrap(t, key, HashFunction("SHA256"), []byte("not a private key")),
	} {
		_, err := key.Unwrap(base64.StdEncoding.EncodeToString(wrapped), HashFunction("SHA256"))
		require.EqualError(t, err, ErrUnwrap.Error(), name)
	}
	_, err = key.Unwrap(base64.StdEncoding.EncodeToString(good), HashFunction("SHA512"))
	require.EqualError(t, err, ErrUnwrap.Error(), "another hash")
	longest := base64.StdEncoding.EncodeToString(good)
	longest += strings.Repeat("\n", 16<<10-len(longest))
	_, err = key.Unwrap(longest, HashFunction("SHA256"))
	require.NoError(t, err)
	_, err = key.Unwrap(longest+"\n", HashFunction("SHA256"))
	require.EqualError(t, err, ErrUnwrap.Error(), "over 16 KiB")
	_, err = key.Unwrap("not base64!", HashFunction("SHA256"))
	require.EqualError(t, err, ErrUnwrap.Error())
	require.Nil(t, HashFunction("MD5"))
}
