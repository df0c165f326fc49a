// Package clientauth authenticates an OAuth client with a signed JWT (private_key_jwt: RFC 7521
// §4.2, RFC 7523 §2.2).
package clientauth

import (
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"time"
)

// AssertionType is the client_assertion_type of a JWT assertion (RFC 7523 §2.2).
const AssertionType = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"

// Signer signs a JWT's claims as a compact JWS (RFC 7515 §7.1).
type Signer interface {
	Sign(payload []byte) (string, error)
}

// Assertion is a signed JWT that authenticates a client once. It prints as [assertion].
type Assertion struct {
	compact string
	// JTI is the assertion's id, which a provider accepts once.
	JTI string
	// ExpiresAt is the assertion's exp.
	ExpiresAt time.Time
}

// claims holds the claims of RFC 7523 §3. The aud is a string, not a list: Keycloak rejects more
// than one, and rfc7523bis requires the issuer as its sole value.
type claims struct {
	Issuer   string `json:"iss"`
	Subject  string `json:"sub"`
	Audience string `json:"aud"`
	IssuedAt int64  `json:"iat"`
	// NotBefore repeats IssuedAt, for providers that require it, as Entra ID does.
	NotBefore int64  `json:"nbf"`
	Expiry    int64  `json:"exp"`
	ID        string `json:"jti"`
}

// backdate allows for a provider whose clock is behind: to Ory Hydra, 1 s is too far in the future.
const backdate = 5 * time.Second

// NewAssertion signs an assertion for a client, which expires ttl after its backdated issuance: it
// must not outlive the provider's memory of its jti. Sign a new one for each attempt: providers
// accept each jti once (RFC 7523 §3, item 7).
func NewAssertion(
	signer Signer, clientID, audience string, now time.Time, ttl time.Duration,
) (*Assertion, error) {
	issuedAt := now.Truncate(time.Second).Add(-backdate)
	expiresAt := issuedAt.Add(ttl)
	jti := rand.Text()
	payload, err := json.Marshal(claims{
		Issuer:    clientID,
		Subject:   clientID,
		Audience:  audience,
		IssuedAt:  issuedAt.Unix(),
		NotBefore: issuedAt.Unix(),
		Expiry:    expiresAt.Unix(),
		ID:        jti,
	})
	if err != nil {
		return nil, fmt.Errorf("encode the assertion's claims: %w", err)
	}
	compact, err := signer.Sign(payload)
	if err != nil {
		return nil, fmt.Errorf("sign the assertion: %w", err)
	}
	return &Assertion{compact: compact, JTI: jti, ExpiresAt: expiresAt}, nil
}

// Compact returns the assertion as the client_assertion parameter carries it. It is a secret.
func (a *Assertion) Compact() string { return a.compact }

// Format prints nothing of an assertion, whatever the verb.
func (a Assertion) Format(f fmt.State, _ rune) {
	_, _ = io.WriteString(f, "[assertion]") // a fmt.State keeps its own errors
}
