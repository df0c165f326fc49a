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
)

// Key is one OAuth client at one issuer: the versions of its key pair and the client's registration. A Key is an
// immutable snapshot, safe for concurrent use; the With methods return changed copies.
type Key struct {
	redacted

	name     string
	id       string
	keyType  Type
	settings Settings
	versions []*Version // ascending by number
	// lastNumber is the highest version number ever given: numbers are not reused.
	lastNumber int
}

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

// Version returns the version with this number; nil when there is none.
func (k *Key) Version(number int) *Version {
	for _, v := range k.versions {
		if v.number == number {
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

// NewFrom makes a key whose first version is imported material, active from now on.
func NewFrom(material *Material, name string, settings Settings, now time.Time) (*Key, error) {
	return newKey(name, material.keyType, material.private, Imported, settings, now)
}
