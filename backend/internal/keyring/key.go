// Package keyring holds the private keys of the secrets engine: their versions and the life of those, signing, public
// material, and storage. A private key enters it when it is made and never leaves it: nothing here returns, prints,
// marshals or logs one, but for the storage entry, whose encoding is unexported.
package keyring

import (
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
}

// New makes a key with a first version, active from now on.
func New(name string, keyType Type, settings Settings, now time.Time) (*Key, error) {
	first, err := newVersion(1, keyType, settings.CommonName, now)
	if err != nil {
		return nil, fmt.Errorf("make key %q: %w", name, err)
	}
	first.activationTime = first.creationTime
	key := &Key{name: name, id: rand.Text(), keyType: keyType, versions: []*Version{first}}
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

// State is where a version is in its life.
type State string

// A version is staged until its activation time has come, active while it is the newest such version, and retired once
// a newer one is active.
const (
	Staged  State = "staged"
	Active  State = "active"
	Retired State = "retired"
)

// Versions returns all versions, newest first.
func (k *Key) Versions() []*Version {
	newestFirst := slices.Clone(k.versions)
	slices.Reverse(newestFirst)
	return newestFirst
}

// Active returns the version that signs at this instant: the newest whose activation time has come. Where the clock was
// set back to before all of them it is the oldest one, so that there always is one.
func (k *Key) Active(now time.Time) *Version {
	for _, v := range slices.Backward(k.versions) {
		if v.activatedAt(now) {
			return v
		}
	}
	return k.versions[0]
}

// Staged returns the newest version that is to become active; nil when there is none.
func (k *Key) Staged(now time.Time) *Version {
	if newest := k.versions[len(k.versions)-1]; newest.number > k.Active(now).number {
		return newest
	}
	return nil
}

// State computes where a version is in its life at this instant. It follows from stored instants alone, so that no
// background work has to run for it to be right.
func (k *Key) State(v *Version, now time.Time) State {
	active := k.Active(now)
	switch {
	case v.number > active.number:
		return Staged
	case v.number == active.number:
		return Active
	default:
		return Retired
	}
}

// Format prints nothing of a key, whatever the verb: fmt would reach the private key through the unexported fields.
func (k Key) Format(f fmt.State, _ rune) { redact(f) }

// MarshalJSON gives nothing away.
func (k Key) MarshalJSON() ([]byte, error) { return redactedJSON() }
