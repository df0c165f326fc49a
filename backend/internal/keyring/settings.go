package keyring

import (
	"time"

	"github.com/go-jose/go-jose/v4"
)

// Settings holds what an operator can change on a key. The tags are the names in storage. Callers
// enforce DeletionAllowed and Disabled.
type Settings struct {
	// CommonName is the subject of the next version's certificate.
	CommonName string `json:"common_name"`
	// DeletionAllowed permits deletion of the key.
	DeletionAllowed bool `json:"deletion_allowed"`
	// Disabled stops all signing immediately.
	Disabled bool `json:"disabled"`
	// ClientID identifies the OAuth client: the assertion's iss and sub (RFC 7523 §3).
	ClientID string `json:"client_id"`
	// Issuer is the authorization server's issuer identifier, kept verbatim (RFC 8414 §2).
	Issuer string `json:"issuer"`
	// TokenEndpoint is the URL assertions are sent to; empty: from the issuer's discovery document.
	TokenEndpoint string `json:"token_endpoint"`
	// RevocationEndpoint is the RFC 7009 URL; empty: from the issuer's discovery document, if any.
	RevocationEndpoint string `json:"revocation_endpoint"`
	// Audience is the assertion's aud; empty: the issuer.
	Audience string `json:"audience"`
	// Algorithm is the JWS algorithm of assertions.
	Algorithm jose.SignatureAlgorithm `json:"algorithm"`
	// AssertionTTL is the lifetime of an assertion, from iat to exp.
	AssertionTTL time.Duration `json:"assertion_ttl"`
	// SendKeyID adds the kid header to assertions.
	SendKeyID bool `json:"send_key_id"`
	// Registration is how the provider learns of a new version.
	Registration Registration `json:"registration"`
	// AutoRotatePeriod is the age of the newest version at which the next one is created; 0: never.
	// Only with ByJWKS.
	AutoRotatePeriod time.Duration `json:"auto_rotate_period"`
	// ActivationDelay is how long a version is published before it signs. Only with ByJWKS.
	ActivationDelay time.Duration `json:"activation_delay"`
	// RetireAfter is how long a version stays usable and published after the provider first
	// accepted a successor.
	RetireAfter time.Duration `json:"retire_after"`
}

// Registration is how the provider learns of a new version.
type Registration string

// With Manual a person registers each new public key, and the provider's acceptance decides which
// version signs. With ByJWKS the provider fetches the keys from this mount, and a schedule decides.
const (
	Manual Registration = "manual"
	ByJWKS Registration = "jwks"
)
