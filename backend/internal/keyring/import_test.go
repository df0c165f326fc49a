package keyring

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/asn1"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
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

func TestImportTakesEveryUsualFormOfEveryType(t *testing.T) {
	t.Parallel()
	for _, keyType := range Types() {
		t.Run(string(keyType), func(t *testing.T) {
			t.Parallel()
			private, err := keyType.generate()
			require.NoError(t, err)
			forms := map[string]string{"PKCS#8": pemOf("PRIVATE KEY", pkcs8Of(t, private))}
			switch key := private.(type) {
			case *rsa.PrivateKey:
				forms["PKCS#1"] = pemOf("RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(key))
			case *ecdsa.PrivateKey:
				der, err := x509.MarshalECPrivateKey(key)
				require.NoError(t, err)
				forms["SEC 1"] = pemOf("EC PRIVATE KEY", der)
				forms["SEC 1 behind its parameters"] = pemOf("EC PARAMETERS", []byte{6, 1, 1}) + forms["SEC 1"]
			}
			forms["with CRLF"] = strings.ReplaceAll(forms["PKCS#8"], "\n", "\r\n")
			forms["with white space round it"] = "\n  \n" + forms["PKCS#8"] + "\n\n"
			forms["with text before it"] = "Bag Attributes\n    friendlyName: client\n" + forms["PKCS#8"]
			for name, form := range forms {
				material, err := ParsePEM(form)
				require.NoError(t, err, name)
				require.Equal(t, keyType, material.Type(), name)
				keyID, err := material.KeyID()
				require.NoError(t, err)
				key, err := NewFrom(material, "myapi", Settings{CommonName: "myapi", Algorithm: keyType.DefaultAlgorithm()}, start())
				require.NoError(t, err)
				require.Equal(t, keyID, key.Active(start()).KeyID())
				require.Equal(t, Imported, key.Active(start()).Origin())
				require.Equal(t, private.Public(), key.Active(start()).private.Public())
				require.Equal(t, "[private]", fmt.Sprintf("%+v", material))
			}
		})
	}
}

// hugeRSA is PKCS#1 of a key of 16384 bits. Its factors are not prime, as those would take minutes to find: the size must
// be refused all the same.
func hugeRSA(t *testing.T) []byte {
	t.Helper()
	odd := func() *big.Int {
		n, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 8190))
		require.NoError(t, err)
		return n.SetBit(n.SetBit(n.SetBit(n, 8191, 1), 8190, 1), 0, 1)
	}
	one, e := big.NewInt(1), big.NewInt(65537)
	for {
		p, q := odd(), odd()
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
		}{0, new(big.Int).Mul(p, q), 65537, d, p, q, new(big.Int).Mod(d, p1), new(big.Int).Mod(d, q1), qInv})
		require.NoError(t, err)
		return der
	}
}

// fixture is a key that Go does not make: openssl made it, for tests alone.
func fixture(t *testing.T, name string) []byte {
	t.Helper()
	contents, err := os.ReadFile(filepath.Join("testdata", name))
	require.NoError(t, err)
	return contents
}

func TestImportRefusesWhatIsNotOneGoodPrivateKey(t *testing.T) {
	t.Parallel()
	good := rsaKey(t, 2048)
	goodPEM := pemOf("PRIVATE KEY", pkcs8Of(t, good))
	spki, err := x509.MarshalPKIXPublicKey(good.Public())
	require.NoError(t, err)
	sec1, err := x509.MarshalECPrivateKey(ecKey(t, elliptic.P224()))
	require.NoError(t, err)

	unfit := *good
	unfit.D = new(big.Int).Add(good.D, big.NewInt(2))

	for name, test := range map[string]struct{ pem, says string }{
		"nothing":                 {"", "is not PEM"},
		"text":                    {"secret", "is not PEM"},
		"without its line breaks": {strings.ReplaceAll(goodPEM, "\n", " "), "is not PEM"},
		"a public key":            {pemOf("PUBLIC KEY", spki), "is a public key"},
		"a certificate":           {pemOf("CERTIFICATE", spki), "is a certificate"},
		"an encrypted PKCS#8":     {pemOf("ENCRYPTED PRIVATE KEY", []byte{1}), "is encrypted"},
		"an encrypted PKCS#1":     {"-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,00\n\nAQID\n-----END RSA PRIVATE KEY-----\n", "is encrypted"},
		"an OpenSSH key":          {pemOf("OPENSSH PRIVATE KEY", []byte{1}), `of the type "OPENSSH PRIVATE KEY"`},
		"RSA-1024":                {pemOf("RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(rsaKey(t, 1024))), "of 1024 bits"},
		"P-224":                   {pemOf("EC PRIVATE KEY", sec1), "curve P-224"},
		"two keys":                {goodPEM + goodPEM, "more after the first PEM block"},
		"trailing text":           {goodPEM + "x", "more after the first PEM block"},
		"trailing DER":            {pemOf("PRIVATE KEY", append(pkcs8Of(t, good), 0)), "not one DER value"},
		"a damaged key":           {pemOf("PRIVATE KEY", []byte{0x30, 0x01, 0x02}), "it is damaged"},
		"over 16 KiB":             {strings.Repeat("\n", 16<<10) + goodPEM, "bytes long"},
		"PKCS#8 labelled PKCS#1":  {pemOf("RSA PRIVATE KEY", pkcs8Of(t, good)), "a block of the type RSA PRIVATE KEY"},
		"numbers that do not fit": {pemOf("RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(&unfit)), "it is damaged"},
		"an X25519 key":           {string(fixture(t, "x25519.pem")), "is not a key that can sign"},
		"three primes":            {string(fixture(t, "three-primes.pem")), "of 3 primes"},
		"RSA-16384":               {pemOf("RSA PRIVATE KEY", hugeRSA(t)), "of 16384 bits"},
		"public exponent 3":       {string(fixture(t, "exponent-3.pem")), "public exponent 3"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := ParsePEM(test.pem)
			require.ErrorContains(t, err, test.says)
			require.NotContains(t, err.Error(), "MII")
			require.Less(t, len(err.Error()), 200)
		})
	}
}

func FuzzParsePEM(f *testing.F) {
	f.Add("-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VuBCIEIAj5cV8iyoC8eGP8yJqSlu1Z0JHXX7EQo6X2+md9xOtz\n-----END PRIVATE KEY-----\n")
	f.Add("-----BEGIN RSA PRIVATE KEY-----\nDEK-Info: x\n\nAQID\n-----END RSA PRIVATE KEY-----\n")
	f.Fuzz(func(t *testing.T, text string) {
		material, err := ParsePEM(text)
		if err == nil && !material.Type().Valid() {
			t.Fatalf("a key of the type %q was taken", material.Type())
		}
	})
}
