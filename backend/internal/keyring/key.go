// Package keyring holds the private keys of the secrets engine: their versions and the life of those, signing, public
// material, and storage. A private key enters it when it is made and never leaves it: nothing here returns, prints,
// marshals or logs one, but for the storage entry, whose encoding is unexported.
package keyring

import (
	"crypto"
	"crypto/rand"
	"fmt"
	"slices"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// Key is one OAuth client at one issuer: the versions of its key pair and the client's registration. A Key is an
// immutable snapshot, safe for concurrent use; the With methods return changed copies.
type Key struct {
	name     string
	id       string
	keyType  Type
	settings Settings
	versions []*Version // ascending by number
	// lastNumber is the highest version number ever given: numbers are not reused.
	lastNumber int
}

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

// New makes a key with a first version, active from now on.
func New(name string, keyType Type, settings Settings, now time.Time) (*Key, error) {
	private, err := keyType.generate()
	if err != nil {
		return nil, fmt.Errorf("make key %q: %w", name, err)
	}
	return newKey(name, keyType, private, Generated, settings, now)
}

func newKey(name string, keyType Type, private crypto.Signer, origin Origin, settings Settings, now time.Time) (*Key, error) {
	first, err := newVersion(1, private, origin, settings.CommonName, now)
	if err != nil {
		return nil, fmt.Errorf("make key %q: %w", name, err)
	}
	first.activationTime, first.activatedBy = first.creationTime, ByCreation
	key := &Key{name: name, id: rand.Text(), keyType: keyType, versions: []*Version{first}, lastNumber: first.number}
	return key.WithSettings(settings)
}

// WithSettings returns a copy of the key with these settings. It fails when the algorithm does not fit the key's type.
func (k *Key) WithSettings(settings Settings) (*Key, error) {
	if !slices.Contains(k.keyType.Algorithms(), settings.Algorithm) {
		return nil, fmt.Errorf("key %q: algorithm %q does not fit the type %s", k.name, settings.Algorithm, k.keyType)
	}
	changed := *k
	changed.settings = settings
	changed.versions = make([]*Version, len(k.versions))
	for i, v := range k.versions {
		version := *v
		var err error
		if version.signer, err = newSigner(v.private, settings.Algorithm, v.keyID, settings.SendKeyID); err != nil {
			return nil, fmt.Errorf("key %q version %d: %w", k.name, v.number, err)
		}
		changed.versions[i] = &version
	}
	return &changed, nil
}

// Name is the key's name within its mount.
func (k *Key) Name() string { return k.name }

// ID is the key's own random id. It does not pass to a later key of the same name.
func (k *Key) ID() string { return k.id }

// Type is the kind of every version's key pair.
func (k *Key) Type() Type { return k.keyType }

// Settings returns the key's settings.
func (k *Key) Settings() Settings { return k.settings }

// Audience is what assertions name as aud: the setting, or the issuer (RFC 7523 §3, as rfc7523bis narrows it).
func (k *Key) Audience() string {
	if k.settings.Audience != "" {
		return k.settings.Audience
	}
	return k.settings.Issuer
}

// Format prints nothing of a key, whatever the verb: fmt would reach the private key through the unexported fields.
func (k Key) Format(f fmt.State, _ rune) { redact(f) }

// MarshalJSON gives nothing away.
func (k Key) MarshalJSON() ([]byte, error) { return redactedJSON() }
