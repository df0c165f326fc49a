package integrationtest

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

// TestWitnessFindsAPlantedKey in each form in which a program may write one, and none in what is public.
func TestWitnessFindsAPlantedKey(t *testing.T) {
	t.Parallel()
	_, edKey, err := ed25519.GenerateKey(rand.Reader)
	require.NoError(t, err)
	ecKey, err := ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	require.NoError(t, err)
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	require.NoError(t, err)
	for name, key := range map[string]crypto.Signer{"rsa": rsaKey, "ecdsa": ecKey, "ed25519": edKey} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWitness()
			require.NoError(t, w.addPrivateKey(key))
			for form, text := range writtenForms(t, key) {
				for _, around := range []string{"%s", "something before %s and after", `{"in":"JSON %s"}`} {
					require.Equal(t, []string{"private key material in it"}, w.find(sight{where: "it", text: fmt.Appendf(nil, around, text)}), form)
				}
			}
			public, err := json.Marshal(jose.JSONWebKey{Key: key.Public()})
			require.NoError(t, err)
			for _, text := range []string{publicPEM(t, key), string(public), fmt.Sprint(key.Public())} {
				require.Empty(t, w.find(sight{text: []byte(text)}))
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
		"JWK": string(jwk), "PEM": pemText, "PEM in JSON": strings.ReplaceAll(pemText, "\n", `\n`), "PEM with CRLF": strings.ReplaceAll(pemText, "\n", "\r\n"),
		"Go's %v": fmt.Sprintf("%v", key), "Go's %#v of bytes": fmt.Sprintf("%#v", pkcs8), "Go's %d": fmt.Sprintf("%d", pkcs8),
	}
	addEncodings(forms, "PKCS#8", pkcs8)
	switch key := key.(type) {
	case *rsa.PrivateKey:
		delete(forms, "Go's %v") // prints pointers for numbers
		addEncodings(forms, "PKCS#1", x509.MarshalPKCS1PrivateKey(key))
		for name, number := range map[string]fmt.Stringer{"d": key.D, "p": key.Primes[0], "q": key.Primes[1]} {
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
		forms[fmt.Sprintf("%s in base64 at offset %d", name, offset)] = base64.StdEncoding.EncodeToString(shifted)
		forms[fmt.Sprintf("%s in base64url at offset %d", name, offset)] = base64.RawURLEncoding.EncodeToString(shifted)
	}
}

// TestWitnessFindsAPlantedToken, whole or cut, but not where it belongs.
func TestWitnessFindsAPlantedToken(t *testing.T) {
	t.Parallel()
	compact := func() string {
		return "eyJhbGciOiJSUzI1NiJ9." + rand.Text() + rand.Text() + "." + rand.Text() + rand.Text()
	}
	assertion, token := compact(), compact()
	w := newWitness()
	w.addToken(assertionPart, assertion)
	w.addToken(tokenPart, token)

	for _, text := range []string{assertion, "cut: " + assertion[:60], "cut: " + assertion[60:], strings.ToLower(assertion)} {
		require.Equal(t, []string{"an assertion in it"}, w.find(sight{where: "it", text: []byte(text)}))
		require.Equal(t, []string{"an assertion in it"}, w.find(sight{where: "it", text: []byte(text), isToken: true}))
	}
	require.Equal(t, []string{"an access token in it"}, w.find(sight{where: "it", text: []byte("Bearer " + token)}))
	require.Empty(t, w.find(sight{text: []byte("access_token " + token), isToken: true}))
	require.Empty(t, w.find(sight{text: []byte("eyJhbGciOiJSUzI1NiJ9. and nothing else")}))
	require.JSONEq(t, `{"data":{"scope":"x"},"warnings":["`+token+`"]}`,
		w.without(tokenPart, "access_token", []byte(`{"data":{"access_token":"`+token+`","scope":"x"},"warnings":["`+token+`"]}`)))
}
