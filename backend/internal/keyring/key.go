// Package keyring holds the private keys of the secrets engine: the lifecycle of their versions,
// signing, public keys and storage. A private key is generated or imported here and never leaves:
// nothing returns, prints, marshals or logs one, except the storage entry, which is unexported.
package keyring

import (
	"crypto"
	"crypto/rand"
	"fmt"
	"slices"
	"time"
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

// New creates a key whose first version is generated and immediately active.
func New(name string, keyType Type, settings Settings, now time.Time) (*Key, error) {
	private, err := keyType.generate()
	if err != nil {
		return nil, fmt.Errorf("create key %q: %w", name, err)
	}
	return newKey(name, keyType, private, Generated, settings, now)
}

func newKey(
	name string, keyType Type, private crypto.Signer, origin Origin, settings Settings,
	now time.Time,
) (*Key, error) {
	first, err := newVersion(1, private, origin, settings.CommonName, now)
	if err != nil {
		return nil, fmt.Errorf("create key %q: %w", name, err)
	}
	first.activationTime, first.activatedBy = first.creationTime, ByCreation
	key := &Key{
		name: name, id: rand.Text(), keyType: keyType, versions: []*Version{first}, lastNumber: 1,
	}
	return key.WithSettings(settings)
}

// WithSettings returns the key with these settings, whose algorithm must be one of its type's.
func (k *Key) WithSettings(settings Settings) (*Key, error) {
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
			return nil, fmt.Errorf("key %q version %d: %w", k.name, v.number, err)
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

// Audience returns the aud of assertions: the setting, or by default the issuer (RFC 7523 §3, as
// rfc7523bis narrows it).
func (k *Key) Audience() string {
	if k.settings.Audience != "" {
		return k.settings.Audience
	}
	return k.settings.Issuer
}

// Version returns the version with this number, or nil.
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

// NewFrom creates a key whose first version is imported and immediately active.
func NewFrom(material *Material, name string, settings Settings, now time.Time) (*Key, error) {
	return newKey(name, material.keyType, material.private, Imported, settings, now)
}
