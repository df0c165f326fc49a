// Package keyring holds the private keys of the secrets engine: the lifecycle of their versions,
// signing, public keys and storage. A private key is generated or imported here and never leaves:
// nothing returns, prints, marshals or logs one, except the storage entry, which is unexported.
package keyring

import (
	"cmp"
	"crypto/rand"
	"fmt"
	"reflect"
	"slices"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// Key is the key pair of one OAuth client at one issuer, in numbered versions, with its settings.
// A Key is immutable and safe for concurrent use: methods that change it return a copy.
type Key struct {
	redacted

	name     string
	id       string
	keyType  Type
	settings Settings
	versions []*Version // ascending by number
	// lastNumber is the highest version number ever assigned: numbers are not reused.
	lastNumber int
}

// New creates a key with this private key as its first version, which is immediately active.
func New(material *Material, name string, settings Settings, now time.Time) (*Key, error) {
	first, err := newVersion(1, material, settings.CommonName, now)
	if err != nil {
		return nil, fmt.Errorf("create key %q: %w", name, err)
	}
	first.record.ActivationTime, first.record.ActivatedBy = first.CreationTime(), ByCreation
	key := &Key{
		name: name, id: rand.Text(), keyType: material.keyType,
		versions: []*Version{first}, lastNumber: 1,
	}
	return key.withSettings(settings)
}

// WithSettings returns the key with these settings, whose algorithm must be one of its type's. What
// a provider accepted is known only of the client it was accepted for: another client's key has no
// accepted version.
func (k *Key) WithSettings(settings Settings) (*Key, error) {
	changed, err := k.withSettings(settings)
	if err != nil || changed.Client() == k.Client() {
		return changed, err
	}
	return changed.edit(func(v *Version) { v.record.AcceptedTime = time.Time{} }), nil
}

func (k *Key) withSettings(settings Settings) (*Key, error) {
	if !slices.Contains(k.keyType.Algorithms(), settings.Algorithm) {
		return nil, fmt.Errorf("key %q: algorithm %q does not fit type %s",
			k.name, settings.Algorithm, k.keyType)
	}
	changed := *k
	changed.settings = settings
	changed.versions = make([]*Version, len(k.versions))
	for i, v := range k.versions {
		version := *v
		var err error
		version.signer, err = newSigner(v.private, settings.Algorithm, v.keyID, settings.SendKeyID)
		if err != nil {
			return nil, fmt.Errorf("key %q version %d: %w", k.name, v.Number(), err)
		}
		changed.versions[i] = &version
	}
	return &changed, nil
}

// Name returns the key's name within its mount.
func (k *Key) Name() string { return k.name }

// ID returns the key's random id, which a later key of the same name does not share.
func (k *Key) ID() string { return k.id }

// Type returns the type of every version's key pair.
func (k *Key) Type() Type { return k.keyType }

// Settings returns the key's settings.
func (k *Key) Settings() Settings { return k.settings }

// Client identifies an OAuth client and where it authenticates.
type Client struct {
	ID            string
	Issuer        string
	TokenEndpoint string
	Audience      string
}

// TokenEndpointKnown reports whether the token endpoint is written or may be discovered, which only
// an assertion for the issuer itself permits: whoever changed the issuer would otherwise receive
// assertions for another audience.
func (c Client) TokenEndpointKnown() bool {
	return c.TokenEndpoint != "" || c.Issuer == "" || c.Audience == "" || c.Audience == c.Issuer
}

// Client returns the client that the key belongs to.
func (k *Key) Client() Client { return k.settings.Client() }

// Client returns the client that the settings name.
func (s *Settings) Client() Client {
	return Client{s.ClientID, s.Issuer, s.TokenEndpoint, s.Audience}
}

// Equal reports whether the settings are the same.
func (s *Settings) Equal(other Settings) bool { return reflect.DeepEqual(*s, other) }

// Audience returns the aud of assertions: the setting, or by default the issuer (RFC 7523 §3, as
// rfc7523bis narrows it).
func (k *Key) Audience() string {
	return cmp.Or(k.settings.Audience, k.settings.Issuer)
}

// Version returns the version with this number, or nil.
func (k *Key) Version(number int) *Version {
	for _, v := range k.versions {
		if v.Number() == number {
			return v
		}
	}
	return nil
}

// Versions returns all stored versions, newest first.
func (k *Key) Versions() []*Version {
	newestFirst := slices.Clone(k.versions)
	slices.Reverse(newestFirst)
	return newestFirst
}

func (k *Key) newest() *Version { return k.versions[len(k.versions)-1] }

// Settings holds what an operator can change on a key. The tags are the names in storage. Callers
// enforce AllowedRoles, DeletionAllowed and Disabled.
type Settings struct {
	CommonName      string `json:"common_name"` // subject of the next version's certificate
	DeletionAllowed bool   `json:"deletion_allowed"`
	Disabled        bool   `json:"disabled"` // stops all signing immediately

	// ClientID is the assertion's iss and sub, Audience its aud, by default the issuer (RFC 7523
	// §3). Issuer is kept verbatim (RFC 8414 §2). Without a TokenEndpoint, the issuer's discovery
	// document names it; without a RevocationEndpoint (RFC 7009), no token is revoked.
	ClientID           string   `json:"client_id"`
	Issuer             string   `json:"issuer"`
	TokenEndpoint      string   `json:"token_endpoint"`
	AllowedRoles       []string `json:"allowed_roles"` // globs of names
	RevocationEndpoint string   `json:"revocation_endpoint"`
	Audience           string   `json:"audience"`

	Algorithm    jose.SignatureAlgorithm `json:"algorithm"`
	AssertionTTL time.Duration           `json:"assertion_ttl"` // from iat to exp
	SendKeyID    bool                    `json:"send_key_id"`   // as the kid header

	Registration     Registration  `json:"registration"`
	AutoRotatePeriod time.Duration `json:"auto_rotate_period"` // of the newest version; 0: never
	// PrepublishPeriod is how long a version is published before it signs, with ByJWKS.
	PrepublishPeriod time.Duration `json:"activation_delay"` // its name in format 1
	// OverlapPeriod is how long a version stays usable and published after the provider first
	// accepted a successor.
	OverlapPeriod time.Duration `json:"retire_after"` // likewise
}

// Registration is how the provider learns of a new version.
type Registration string

// With Manual a person registers each new public key, and the provider's acceptance decides which
// version signs. With ByJWKS the provider fetches the keys from this mount, and a schedule decides.
const (
	Manual Registration = "manual"
	ByJWKS Registration = "jwks"
)
