package keyring

import (
	"time"

	"github.com/go-jose/go-jose/v4"
)

// Settings are what an operator may change on a key.
type Settings struct {
	// CommonName is the subject of the next version's certificate.
	CommonName string
	// DeletionAllowed opens the deletion of the key.
	DeletionAllowed bool
	// Disabled stops every signature at once.
	Disabled bool
	// ClientID identifies the OAuth client: the assertion's iss and sub (RFC 7523 §3).
	ClientID string
	// Issuer is the authorization server's issuer identifier, kept to the letter (RFC 8414 §2).
	Issuer string
	// TokenEndpoint is the URL assertions go to; empty: the one that the issuer's discovery document names.
	TokenEndpoint string
	// RevocationEndpoint is the RFC 7009 URL; empty: the one that the issuer's discovery document names, if any.
	RevocationEndpoint string
	// Audience is the assertion's aud; empty: the issuer.
	Audience string
	// Algorithm is the JWS algorithm that assertions are signed with.
	Algorithm jose.SignatureAlgorithm
	// AssertionTTL is the life of an assertion, from iat to exp.
	AssertionTTL time.Duration
	// SendKeyID puts the kid header into assertions.
	SendKeyID bool
	// Registration is how the provider gets to know a new version.
	Registration Registration
	// AutoRotatePeriod is the age of the newest version at which another one is made; 0: never. Only with ByJWKS.
	AutoRotatePeriod time.Duration
	// ActivationDelay is how long a version is published before it signs. Only with ByJWKS.
	ActivationDelay time.Duration
	// RetireAfter is how long a version stays usable and published after its successor was first accepted.
	RetireAfter time.Duration
}

// Registration is how the provider gets to know a new version.
type Registration string

// With Manual a person registers each new public key, and the provider's acceptance decides which version signs. With
// ByJWKS the provider fetches the keys from this mount, and a schedule decides.
const (
	Manual Registration = "manual"
	ByJWKS Registration = "jwks"
)
