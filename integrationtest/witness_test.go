package integrationtest

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
)

// Kinds of secrets that must not come out.
const (
	privateKeyPart = "private key material"
	assertionPart  = "an assertion"
	tokenPart      = "an access token"
	wrappedKeyPart = "a wrapped private key"
)

const (
	// fragment is how much of an encoded secret is enough to be recognised, in bytes: more than 50 random bits in each encoding.
	fragment = 24
	// stride lies between the fragments that are known of a secret, so that each stretch of fragment + stride - 1 bytes holds one, whatever was before it: a line
	// break of a PEM block, or a cut.
	stride = 4
	// stretch is how much is searched at a time: what passes at a provider meanwhile waits, and with it the reads of other tests.
	stretch = 64 << 10
)

// witness knows the secrets that the tests made and what the servers let them see, and tells whether the one is in the other. It is safe for concurrent use.
type witness struct {
	mu        sync.Mutex
	fragments map[[fragment]byte]string // to the secret's kind
	tokens    map[string]bool           // whole access tokens
	sights    []sight
}

// sight is something that came out.
type sight struct {
	where string
	text  []byte
	// isToken marks the one place where an access token belongs: the answer to a read of creds.
	isToken bool
}

func newWitness() *witness {
	return &witness{fragments: map[[fragment]byte]string{}, tokens: map[string]bool{}}
}

// addPrivateKey makes a private key known. Only its secret numbers count: the rest of an encoded key is its public half.
func (w *witness) addPrivateKey(key crypto.Signer) error {
	numbers, err := secretNumbers(key)
	if err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, number := range numbers {
		for _, encoded := range encodings(number) {
			w.add(privateKeyPart, encoded)
		}
	}
	return nil
}

// secretNumbers are, as big-endian bytes, what makes a private key private.
func secretNumbers(key crypto.Signer) ([][]byte, error) {
	switch key := key.(type) {
	case *rsa.PrivateKey:
		key.Precompute()
		numbers := [][]byte{key.D.Bytes(), key.Precomputed.Dp.Bytes(), key.Precomputed.Dq.Bytes(), key.Precomputed.Qinv.Bytes()}
		for _, prime := range key.Primes {
			numbers = append(numbers, prime.Bytes())
		}
		return numbers, nil
	case *ecdsa.PrivateKey:
		encoded, err := key.Bytes()
		return [][]byte{encoded}, err
	case ed25519.PrivateKey:
		return [][]byte{key.Seed()}, nil
	}
	return nil, fmt.Errorf("no secret numbers known of a %T", key)
}

// encodings are the ways in which a program may write secret bytes, on their own or in the middle of an encoded structure.
func encodings(secret []byte) [][]byte {
	all := [][]byte{
		secret,
		[]byte(hex.EncodeToString(secret)),
		[]byte(new(big.Int).SetBytes(secret).String()),
		fmt.Appendf(nil, "%d", secret),              // [48 130 …], as Go prints bytes
		[]byte(strings.Join(decimals(secret), ",")), // and other languages, without a space
		[]byte(strings.Join(decimals(secret), ", ")),
		fmt.Appendf(nil, "%#v", secret), // in Go syntax
		fmt.Appendf(nil, "% x", secret),
		[]byte(strings.ReplaceAll(fmt.Sprintf("% x", secret), " ", ":")), // as OpenSSL prints numbers
	}
	for _, alphabet := range []*base64.Encoding{base64.RawStdEncoding, base64.RawURLEncoding} {
		// The bytes before it shift a secret in the text, and share a character with it at either end.
		for offset, sharedUpTo := range []int{0, 2, 3} {
			text := alphabet.EncodeToString(append(make([]byte, offset), secret...))
			all = append(all, []byte(text[sharedUpTo:len(text)-1]))
		}
	}
	return all
}

func decimals(secret []byte) []string {
	texts := make([]string, len(secret))
	for i, b := range secret {
		texts[i] = fmt.Sprint(b)
	}
	return texts
}

// addToken makes a compact JWS known, as what it is, or anything else that stands for one. A header tells nothing.
func (w *witness) addToken(kind, token string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if kind == tokenPart {
		w.tokens[token] = true
	}
	secret := token
	if header, rest, found := strings.Cut(token, "."); found && header != "" {
		secret = rest
	}
	w.add(kind, []byte(secret))
}

// add wants the lock held.
func (w *witness) add(kind string, encoded []byte) {
	encoded = fold(encoded)
	for start := 0; start+fragment <= len(encoded); start += stride {
		w.fragments[[fragment]byte(encoded[start:])] = kind
	}
}

// fold makes upper case lower: a program may have done so too.
func fold(text []byte) []byte {
	folded := slices.Clone(text)
	for i, c := range folded {
		if 'A' <= c && c <= 'Z' {
			folded[i] = c - 'A' + 'a'
		}
	}
	return folded
}

// saw remembers something that came out.
func (w *witness) saw(where, text string) { w.remember(sight{where: where, text: []byte(text)}) }

// sawToken is saw for the answer to a read of creds.
func (w *witness) sawToken(where, text string) {
	w.remember(sight{where: where, text: []byte(text), isToken: true})
}

func (w *witness) remember(seen sight) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.sights = append(w.sights, seen)
}

// leaks lists where a secret came out, and never what, among the sights that concern says.
func (w *witness) leaks(concern func(where string) bool) []string {
	w.mu.Lock()
	sights := slices.Clone(w.sights)
	w.mu.Unlock()
	var found []string
	for _, seen := range sights {
		if concern(seen.where) {
			found = append(found, w.find(seen)...)
		}
	}
	slices.Sort(found)
	return slices.Compact(found)
}

// find tells which secrets are in something that came out.
func (w *witness) find(seen sight) []string {
	text := fold(seen.text)
	if seen.isToken {
		text = w.withoutTokens(text)
	}
	var found []string
	for start := 0; start < len(text); start += stretch {
		for _, kind := range w.search(text[start:min(start+stretch+fragment-1, len(text))]) {
			found = append(found, fmt.Sprintf("%s in %s", kind, seen.where))
		}
	}
	slices.Sort(found)
	return slices.Compact(found)
}

func (w *witness) withoutTokens(text []byte) []byte {
	w.mu.Lock()
	defer w.mu.Unlock()
	for token := range w.tokens {
		text = bytes.ReplaceAll(text, fold([]byte(token)), nil)
	}
	return text
}

// search returns the kinds of secrets in a stretch of folded text.
func (w *witness) search(text []byte) []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var kinds []string
	for start := 0; start+fragment <= len(text); start++ {
		if kind, known := w.fragments[[fragment]byte(text[start:])]; known {
			kinds = append(kinds, kind)
		}
	}
	return kinds
}

// transport shows every answer of the server to the witness. A nil witness does not look.
func (w *witness) transport(base http.RoundTripper) http.RoundTripper {
	if w == nil {
		return base
	}
	return observedTransport{witness: w, base: base}
}

type observedTransport struct {
	witness *witness
	base    http.RoundTripper
}

func (o observedTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := o.base.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, err
	}
	resp.Body = io.NopCloser(bytes.NewReader(body))
	where := fmt.Sprintf("the answer %d to %s %s", resp.StatusCode, req.Method, req.URL.Path)
	switch {
	case strings.HasPrefix(req.URL.Path, "/v1/sys/raw/"): // what the tests know the private keys from
	case strings.Contains(req.URL.Path, "/creds/") && resp.StatusCode == http.StatusOK:
		o.witness.saw(where, o.witness.without(tokenPart, "access_token", body))
	case strings.Contains(req.URL.Path, "/assertion/") && resp.StatusCode == http.StatusOK:
		o.witness.saw(where, o.witness.without(assertionPart, "client_assertion", body))
	default:
		o.witness.saw(where, string(body))
	}
	return resp, nil
}

// without takes a token out of the field where it belongs, and makes it known, so that it is noticed in any other place.
func (w *witness) without(kind, field string, body []byte) string {
	var answer map[string]any
	if json.Unmarshal(body, &answer) != nil {
		return string(body)
	}
	if data, ok := answer["data"].(map[string]any); ok {
		if token, ok := data[field].(string); ok {
			w.addToken(kind, token)
		}
		delete(data, field)
	}
	rest, err := json.Marshal(answer)
	if err != nil {
		return string(body)
	}
	return string(rest)
}

// leaks adds the server's own files to what was seen.
func (s *suite) leaks() ([]string, error) {
	found := s.witness.leaks(func(string) bool { return true })
	for _, file := range []string{s.Vault.logFile(), s.Vault.auditFile()} {
		text, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		if len(text) == 0 {
			return nil, errors.New(file + " is empty")
		}
		found = append(found, s.witness.find(sight{where: file, text: text})...)
	}
	return found, nil
}
