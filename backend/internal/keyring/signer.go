package keyring

import (
	"crypto"
	"fmt"
	"io"

	"github.com/go-jose/go-jose/v4"
)

// Signer signs JWTs with one version's private key and one algorithm, safe for concurrent use.
type Signer struct {
	redacted

	keyID string
	jws   jose.Signer
}

// newSigner keeps the parsed private key and its precomputed values in the signer, so that a
// signature costs no more than the arithmetic.
func newSigner(
	private crypto.Signer, algorithm jose.SignatureAlgorithm, keyID string, sendKeyID bool,
) (*Signer, error) {
	jwk := jose.JSONWebKey{Key: private}
	if sendKeyID {
		jwk.KeyID = keyID
	}
	options := new(jose.SignerOptions).WithType("JWT")
	jws, err := jose.NewSigner(jose.SigningKey{Algorithm: algorithm, Key: jwk}, options)
	if err != nil {
		return nil, fmt.Errorf("algorithm %q: %w", algorithm, err)
	}
	return &Signer{keyID: keyID, jws: jws}, nil
}

// KeyID returns the id of the signing key, even if the kid header is not sent.
func (s *Signer) KeyID() string { return s.keyID }

// Sign returns the payload as a compact JWS (RFC 7515 §7.1) with the headers alg, typ and, if the
// key's settings include it, kid.
func (s *Signer) Sign(payload []byte) (string, error) {
	signed, err := s.jws.Sign(payload)
	if err != nil {
		return "", fmt.Errorf("sign: %w", err)
	}
	return signed.CompactSerialize()
}

// redacted is embedded in what holds a private key, which then prints and marshals as [private]:
// fmt would otherwise reach the key through unexported fields.
type redacted struct{}

// Format prints [private], whatever the verb.
func (redacted) Format(f fmt.State, _ rune) {
	_, _ = io.WriteString(f, "[private]") // a fmt.State keeps its own errors
}

// MarshalJSON returns "[private]".
func (redacted) MarshalJSON() ([]byte, error) { return []byte(`"[private]"`), nil }
