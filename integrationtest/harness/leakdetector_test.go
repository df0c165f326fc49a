package harness

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"strings"
	"testing"

	"github.com/go-jose/go-jose/v4"
	"github.com/stretchr/testify/require"
)

// TestLeakDetector_FindsPrivateKey covers each form in which a program may write a private key, and
// finds none in what is public.
func TestLeakDetector_FindsPrivateKey(t *testing.T) {
	t.Parallel()
	_, edKey, err := ed25519.GenerateKey(rand.Reader)
	require.NoError(t, err)
	ecKey, err := ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	require.NoError(t, err)
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	require.NoError(t, err)
	for name, key := range map[string]crypto.Signer{
		"rsa": rsaKey, "ecdsa": ecKey, "ed25519": edKey,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			detector := newLeakDetector()
			require.NoError(t, detector.AddPrivateKey(key))
			for form, text := range writtenForms(t, key) {
				for _, around := range []string{
					"%s", "something before %s and after", `{"in":"JSON %s"}`,
				} {
					found := detector.Find("it", fmt.Appendf(nil, around, text))
					require.Equal(t, []string{"private key material in it"}, found, form)
				}
			}
			public, err := json.Marshal(jose.JSONWebKey{Key: key.Public()})
			require.NoError(t, err)
			for _, text := range []string{
				PublicPEM(t, key), string(public), fmt.Sprint(key.Public()),
			} {
				require.Empty(t, detector.Find("it", []byte(text)))
			}
		})
	}
}

func writtenForms(t *testing.T, key crypto.Signer) map[string]string {
	t.Helper()
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	require.NoError(t, err)
	jwk, err := json.Marshal(jose.JSONWebKey{Key: key})
	require.NoError(t, err)
	pemText := string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8}))
	forms := map[string]string{
		"JWK":               string(jwk),
		"PEM":               pemText,
		"PEM in JSON":       strings.ReplaceAll(pemText, "\n", `\n`),
		"PEM with CRLF":     strings.ReplaceAll(pemText, "\n", "\r\n"),
		"Go's %v":           fmt.Sprintf("%v", key),
		"Go's %#v of bytes": fmt.Sprintf("%#v", pkcs8),
		"Go's %d":           fmt.Sprintf("%d", pkcs8),
	}
	addEncodings(forms, "PKCS#8", pkcs8)
	switch key := key.(type) {
	case *rsa.PrivateKey:
		delete(forms, "Go's %v") // prints pointers for numbers
		addEncodings(forms, "PKCS#1", x509.MarshalPKCS1PrivateKey(key))
		for name, number := range map[string]fmt.Stringer{
			"d": key.D, "p": key.Primes[0], "q": key.Primes[1],
		} {
			forms[name+" in decimal"] = number.String()
			forms[name+" in hex"] = fmt.Sprintf("%x", number)
			forms[name+" in upper-case hex"] = fmt.Sprintf("%X", number)
		}
	case *ecdsa.PrivateKey:
		delete(forms, "Go's %v")
		sec1, err := x509.MarshalECPrivateKey(key)
		require.NoError(t, err)
		addEncodings(forms, "SEC 1", sec1)
		number, err := key.Bytes()
		require.NoError(t, err)
		addEncodings(forms, "d", number)
	case ed25519.PrivateKey:
		addEncodings(forms, "seed", key.Seed())
	}
	return forms
}

func addEncodings(forms map[string]string, name string, der []byte) {
	forms[name+" raw"] = string(der)
	forms[name+" in hex"] = hex.EncodeToString(der)
	forms[name+" in upper-case hex"] = strings.ToUpper(hex.EncodeToString(der))
	for offset := range 3 {
		shifted := append([]byte("..")[:offset:offset], der...)
		at := fmt.Sprintf(" at offset %d", offset)
		forms[name+" in base64"+at] = base64.StdEncoding.EncodeToString(shifted)
		forms[name+" in base64url"+at] = base64.RawURLEncoding.EncodeToString(shifted)
	}
}

// TestLeakDetector_FindsToken covers a token that is whole or cut, and none where it belongs.
func TestLeakDetector_FindsToken(t *testing.T) {
	t.Parallel()
	compact := func() string {
		return "eyJhbGciOiJSUzI1NiJ9." + rand.Text() + rand.Text() + "." + rand.Text() + rand.Text()
	}
	assertion, token := compact(), compact()
	detector := newLeakDetector()
	detector.AddToken(kindAssertion, assertion)
	detector.AddAccessToken(token)
	find := func(text string) []string { return detector.Find("it", []byte(text)) }
	findInCreds := func(text string) []string {
		return detector.find(output{where: "it", text: []byte(text), isToken: true})
	}

	for _, text := range []string{
		assertion, "cut: " + assertion[:60], "cut: " + assertion[60:], strings.ToLower(assertion),
	} {
		require.Equal(t, []string{"an assertion in it"}, find(text))
		require.Equal(t, []string{"an assertion in it"}, findInCreds(text))
	}
	require.Equal(t, []string{"an access token in it"}, find("Bearer "+token))
	require.Empty(t, findInCreds("access_token "+token))
	require.Empty(t, find("eyJhbGciOiJSUzI1NiJ9. and nothing else"))
	body := `{"data":{"access_token":"` + token + `","scope":"x"},"warnings":["` + token + `"]}`
	require.JSONEq(t, `{"data":{"scope":"x"},"warnings":["`+token+`"]}`,
		detector.extract(kindAccessToken, "access_token", []byte(body)))
}
