package harness

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"math/big"
	"slices"
	"strings"
	"sync"
)

// Kinds of secrets that must not be revealed.
const (
	kindPrivateKey  = "private key material"
	kindAssertion   = "an assertion"
	kindAccessToken = "an access token"
	kindWrappedKey  = "a wrapped private key"
)

const (
	// fragmentSize is how much of an encoded secret is enough to recognize it, in bytes: more than
	// 50 random bits in each encoding.
	fragmentSize = 24
	// stride is the distance between the known fragments of a secret, so that each run of
	// fragmentSize + stride - 1 bytes holds one, whatever precedes it: a line break of a PEM block,
	// or a cut.
	stride = 4
	// window is how much is searched at a time: what passes at a provider waits in the meantime,
	// and with it the reads of other tests.
	window = 64 << 10
)

// LeakDetector knows the secrets of the tests and what the servers revealed to them, and finds the
// one in the other. It is safe for concurrent use.
type LeakDetector struct {
	mu        sync.Mutex
	fragments map[[fragmentSize]byte]string // to the secret's kind
	tokens    map[string]bool               // whole access tokens
	outputs   []output
}

// output is something that was printed, stored in a file or sent to a client.
type output struct {
	where string
	text  []byte
	// isToken marks the one place where an access token belongs: the response to a read of creds.
	isToken bool
}

func newLeakDetector() *LeakDetector {
	return &LeakDetector{fragments: map[[fragmentSize]byte]string{}, tokens: map[string]bool{}}
}

// AddPrivateKey adds a private key. Only its secret numbers count: the rest of an encoded key is
// its public half.
func (d *LeakDetector) AddPrivateKey(key crypto.Signer) error {
	numbers, err := secretNumbers(key)
	if err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, number := range numbers {
		for _, encoded := range encodings(number) {
			d.add(kindPrivateKey, encoded)
		}
	}
	return nil
}

// secretNumbers returns, as big-endian bytes, what makes a private key private.
func secretNumbers(key crypto.Signer) ([][]byte, error) {
	switch key := key.(type) {
	case *rsa.PrivateKey:
		key.Precompute()
		crt := key.Precomputed
		numbers := [][]byte{key.D.Bytes(), crt.Dp.Bytes(), crt.Dq.Bytes(), crt.Qinv.Bytes()}
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
	return nil, fmt.Errorf("the secret numbers of a %T are unknown", key)
}

// encodings returns the ways in which a program may write secret bytes, on their own or in the
// middle of an encoded structure.
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
		// As OpenSSL prints numbers.
		[]byte(strings.ReplaceAll(fmt.Sprintf("% x", secret), " ", ":")),
	}
	for _, alphabet := range []*base64.Encoding{base64.RawStdEncoding, base64.RawURLEncoding} {
		// The bytes before a secret shift it in the text, and share a character with it at both
		// ends.
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

// AddAccessToken adds an access token, which belongs in the response to a read of creds.
func (d *LeakDetector) AddAccessToken(token string) { d.AddToken(kindAccessToken, token) }

// AddToken adds a secret of this kind: a compact JWS, whose header is not secret, or another text.
func (d *LeakDetector) AddToken(kind, token string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if kind == kindAccessToken {
		d.tokens[token] = true
	}
	secret := token
	if header, rest, found := strings.Cut(token, "."); found && header != "" {
		secret = rest
	}
	d.add(kind, []byte(secret))
}

// add requires the lock to be held.
func (d *LeakDetector) add(kind string, encoded []byte) {
	encoded = fold(encoded)
	for start := 0; start+fragmentSize <= len(encoded); start += stride {
		d.fragments[[fragmentSize]byte(encoded[start:])] = kind
	}
}

// fold makes upper case lower, as a program may have done.
func fold(text []byte) []byte {
	folded := slices.Clone(text)
	for i, c := range folded {
		if 'A' <= c && c <= 'Z' {
			folded[i] = c - 'A' + 'a'
		}
	}
	return folded
}

// Record records an output.
func (d *LeakDetector) Record(where, text string) {
	d.record(output{where: where, text: []byte(text)})
}

// RecordToken is Record for the response to a read of creds.
func (d *LeakDetector) RecordToken(where, text string) {
	d.record(output{where: where, text: []byte(text), isToken: true})
}

func (d *LeakDetector) record(recorded output) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.outputs = append(d.outputs, recorded)
}

// Leaks returns where a secret was revealed, and never the secret, among the outputs that a caller
// is concerned with.
func (d *LeakDetector) Leaks(concerns func(where string) bool) []string {
	d.mu.Lock()
	outputs := slices.Clone(d.outputs)
	d.mu.Unlock()
	var found []string
	for _, recorded := range outputs {
		if concerns(recorded.where) {
			found = append(found, d.find(recorded)...)
		}
	}
	slices.Sort(found)
	return slices.Compact(found)
}

// Find returns the kinds of secrets in a text, and where it is.
func (d *LeakDetector) Find(where string, text []byte) []string {
	return d.find(output{where: where, text: text})
}

func (d *LeakDetector) find(o output) []string {
	text := fold(o.text)
	if o.isToken {
		text = d.withoutTokens(text)
	}
	var found []string
	for start := 0; start < len(text); start += window {
		for _, kind := range d.search(text[start:min(start+window+fragmentSize-1, len(text))]) {
			found = append(found, fmt.Sprintf("%s in %s", kind, o.where))
		}
	}
	slices.Sort(found)
	return slices.Compact(found)
}

func (d *LeakDetector) withoutTokens(text []byte) []byte {
	d.mu.Lock()
	defer d.mu.Unlock()
	for token := range d.tokens {
		text = bytes.ReplaceAll(text, fold([]byte(token)), nil)
	}
	return text
}

// search returns the kinds of secrets in a window of folded text.
func (d *LeakDetector) search(text []byte) []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	var kinds []string
	for start := 0; start+fragmentSize <= len(text); start++ {
		if kind, known := d.fragments[[fragmentSize]byte(text[start:])]; known {
			kinds = append(kinds, kind)
		}
	}
	return kinds
}
