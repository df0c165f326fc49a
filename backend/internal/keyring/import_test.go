package keyring

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/asn1"
	"encoding/base64"
	"fmt"
	"hash"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hashicorp/vault/sdk/logical"
	"github.com/stretchr/testify/require"
	"github.com/tink-crypto/tink-go/v2/kwp/subtle"
)

func pkcs8Of(t *testing.T, private any) []byte {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(private)
	require.NoError(t, err)
	return der
}

func rsaKey(t *testing.T, bits int) *rsa.PrivateKey {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, bits)
	require.NoError(t, err)
	return key
}

func ecKey(t *testing.T, curve elliptic.Curve) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(curve, rand.Reader)
	require.NoError(t, err)
	return key
}

func TestImport_AcceptsUsualFormsOfEveryType(t *testing.T) {
	t.Parallel()
	for _, keyType := range Types() {
		t.Run(string(keyType), func(t *testing.T) {
			t.Parallel()
			private := generate(t, keyType).private
			forms := map[string]string{"PKCS#8": pemOf("PRIVATE KEY", pkcs8Of(t, private))}
			switch key := private.(type) {
			case *rsa.PrivateKey:
				forms["PKCS#1"] = pemOf("RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(key))
			case *ecdsa.PrivateKey:
				der, err := x509.MarshalECPrivateKey(key)
				require.NoError(t, err)
				forms["SEC 1"] = pemOf("EC PRIVATE KEY", der)
				parameters := pemOf("EC PARAMETERS", []byte{6, 1, 1})
				forms["SEC 1 after its parameters"] = parameters + forms["SEC 1"]
			}
			forms["with CRLF"] = strings.ReplaceAll(forms["PKCS#8"], "\n", "\r\n")
			forms["with surrounding white space"] = "\n  \n" + forms["PKCS#8"] + "\n\n"
			forms["of 16 KiB"] = strings.Repeat("\n", 16<<10-len(forms["PKCS#8"])) + forms["PKCS#8"]
			forms["with text before it"] = "Bag Attributes\n    friendlyName: a\n" + forms["PKCS#8"]
			for name, form := range forms {
				material, err := ParsePEM(form)
				require.NoError(t, err, name)
				require.Equal(t, keyType, material.Type(), name)
				keyID, err := material.KeyID()
				require.NoError(t, err)
				settings := Settings{CommonName: "myapi", Algorithm: keyType.DefaultAlgorithm()}
				key, err := New(material, "myapi", settings, start())
				require.NoError(t, err)
				require.Equal(t, keyID, key.Active(start()).KeyID())
				require.Equal(t, Imported, key.Active(start()).Origin())
				require.Equal(t, private.Public(), key.Active(start()).private.Public())
				require.Equal(t, "[private]", fmt.Sprintf("%+v", material))
			}
		})
	}
}

// odd returns an odd number of this length. A prime as long as a test needs takes minutes to find.
func odd(t *testing.T, bits int) *big.Int {
	t.Helper()
	n, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), uint(bits-2)))
	require.NoError(t, err)
	return n.SetBit(n.SetBit(n.SetBit(n, bits-1, 1), bits-2, 1), 0, 1)
}

func composite(t *testing.T, bits int) *big.Int {
	t.Helper()
	for {
		if n := odd(t, bits); !n.ProbablyPrime(0) {
			return n
		}
	}
}

func prime(t *testing.T, bits int) *big.Int {
	t.Helper()
	n, err := rand.Prime(rand.Reader, bits) // its two highest bits are set
	require.NoError(t, err)
	return n
}

// rsaOf returns PKCS#1 of a consistent key whose two factors these functions return.
func rsaOf(t *testing.T, first, second func(*testing.T, int) *big.Int, bits ...int) []byte {
	t.Helper()
	one, e := big.NewInt(1), big.NewInt(65537)
	for {
		p, q := first(t, bits[0]), second(t, bits[1])
		p1, q1 := new(big.Int).Sub(p, one), new(big.Int).Sub(q, one)
		d := new(big.Int).ModInverse(e, new(big.Int).Mul(p1, q1))
		qInv := new(big.Int).ModInverse(q, p)
		if d == nil || qInv == nil {
			continue
		}
		der, err := asn1.Marshal(struct {
			Version               int
			N                     *big.Int
			E                     int
			D, P, Q, DP, DQ, QInv *big.Int
		}{
			N: new(big.Int).Mul(p, q), E: 65537, D: d, P: p, Q: q,
			DP: new(big.Int).Mod(d, p1), DQ: new(big.Int).Mod(d, q1), QInv: qInv,
		})
		require.NoError(t, err)
		return der
	}
}

// fixture returns a key that Go does not generate: openssl did, for tests only.
func fixture(t *testing.T, name string) []byte {
	t.Helper()
	contents, err := os.ReadFile(filepath.Join("testdata", name))
	require.NoError(t, err)
	return contents
}

func TestImport_RejectsAllButOneValidPrivateKey(t *testing.T) {
	t.Parallel()
	good := rsaKey(t, 2048)
	goodPEM := pemOf("PRIVATE KEY", pkcs8Of(t, good))
	spki, err := x509.MarshalPKIXPublicKey(good.Public())
	require.NoError(t, err)
	sec1, err := x509.MarshalECPrivateKey(ecKey(t, elliptic.P224()))
	require.NoError(t, err)

	unfit := *good
	unfit.D = new(big.Int).Add(good.D, big.NewInt(2))

	const notTwoPrimes = "is not a sound RSA key: its factors are not two primes of half its length"
	openSSH := pemOf("OPENSSH PRIVATE KEY", []byte{1})
	mislabelled := pemOf("RSA PRIVATE KEY", pkcs8Of(t, good))
	padded := append(pkcs8Of(t, good), 0)
	smallRSA := x509.MarshalPKCS1PrivateKey(rsaKey(t, 1024))
	unfitRSA := x509.MarshalPKCS1PrivateKey(&unfit)
	encryptedPKCS1 := "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n" +
		"DEK-Info: AES-128-CBC,00\n\nAQID\n-----END RSA PRIVATE KEY-----\n"
	for name, test := range map[string]struct{ pem, want string }{
		"nothing":                 {"", "is not PEM"},
		"text":                    {"secret", "is not PEM"},
		"without its line breaks": {strings.ReplaceAll(goodPEM, "\n", " "), "is not PEM"},
		"a public key":            {pemOf("PUBLIC KEY", spki), "is a public key"},
		"a certificate":           {pemOf("CERTIFICATE", spki), "is a certificate"},
		"an encrypted PKCS#8":     {pemOf("ENCRYPTED PRIVATE KEY", []byte{1}), "is encrypted"},
		"an encrypted PKCS#1":     {encryptedPKCS1, "is encrypted"},
		"an OpenSSH key":          {openSSH, "in OpenSSH's format; convert a copy"},
		"RSA-1024":                {pemOf("RSA PRIVATE KEY", smallRSA), "of 1024 bits"},
		"P-224":                   {pemOf("EC PRIVATE KEY", sec1), "curve P-224"},
		"two keys":                {goodPEM + goodPEM, "data after the first PEM block"},
		"trailing text":           {goodPEM + "x", "data after the first PEM block"},
		"trailing DER":            {pemOf("PRIVATE KEY", padded), "not one DER value"},
		"a damaged key":           {pemOf("PRIVATE KEY", []byte{48, 1, 2}), "it is damaged"},
		"over 16 KiB":             {strings.Repeat("\n", 16<<10+1-len(goodPEM)) + goodPEM, "is 16385 bytes long"},
		"PKCS#8 labelled PKCS#1":  {mislabelled, "is not a valid RSA PRIVATE KEY block"},
		"numbers that do not fit": {pemOf("RSA PRIVATE KEY", unfitRSA), "it is damaged"},
		"an X25519 key":           {string(fixture(t, "x25519.pem")), "is not a key that can sign"},
		"three primes":            {string(fixture(t, "three-primes.pem")), "of 3 primes"},
		"RSA-16384":               {pemOf("RSA PRIVATE KEY", rsaOf(t, odd, odd, 8192, 8192)), "of 16384 bits"},
		"a factor not prime":      {pemOf("RSA PRIVATE KEY", rsaOf(t, prime, composite, 1024, 1024)), notTwoPrimes},
		"another not prime":       {pemOf("RSA PRIVATE KEY", rsaOf(t, composite, prime, 1024, 1024)), notTwoPrimes},
		"a short prime":           {pemOf("RSA PRIVATE KEY", rsaOf(t, prime, prime, 64, 1984)), notTwoPrimes},
		"primes of two lengths":   {pemOf("RSA PRIVATE KEY", rsaOf(t, prime, prime, 1026, 1022)), notTwoPrimes},
		"public exponent 3":       {string(fixture(t, "exponent-3.pem")), "public exponent 3"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := ParsePEM(test.pem)
			require.ErrorContains(t, err, test.want)
			require.NotContains(t, err.Error(), "MII")
			require.Less(t, len(err.Error()), 200)
		})
	}
}

func FuzzParsePEM(f *testing.F) {
	f.Add("-----BEGIN PRIVATE KEY-----\n" +
		"MC4CAQAwBQYDK2VuBCIEIAj5cV8iyoC8eGP8yJqSlu1Z0JHXX7EQo6X2+md9xOtz\n" +
		"-----END PRIVATE KEY-----\n")
	f.Add("-----BEGIN RSA PRIVATE KEY-----\nDEK-Info: x\n\nAQID\n-----END RSA PRIVATE KEY-----\n")
	f.Fuzz(func(t *testing.T, text string) {
		material, err := ParsePEM(text)
		if err == nil && !material.Type().Valid() {
			t.Fatalf("a key of type %q was accepted", material.Type())
		}
	})
}

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
