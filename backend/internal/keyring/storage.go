package keyring

import (
	"context"
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/bcgov/vault-plugin-bcgov-jwt/backend/internal/storage"
	"github.com/hashicorp/vault/sdk/logical"
)

// A key is one entry, so that a change is atomic. The indexes only find it: where one disagrees,
// the entry is right. So an index is written before, and deleted after, what it points to.
const (
	// StoragePrefix precedes the name in a key's storage path. It ends in a slash, which Vault's
	// seal wrapping needs to match the paths below.
	StoragePrefix = "key/"
	// IDPrefix precedes the ID in the storage path of an index by ID.
	IDPrefix   = "key-id/"
	spkiPrefix = "spki/"
)

// entryFormat is the format that this version writes, and the newest that it reads.
const entryFormat = 1

type keyEntry struct {
	Format     int            `json:"format"`
	ID         string         `json:"id"`
	Type       Type           `json:"type"`
	Settings   Settings       `json:"settings"`
	Versions   []versionEntry `json:"versions"`
	LastNumber int            `json:"last_number"`
}

type versionEntry struct {
	versionRecord

	PrivateKey []byte `json:"private_key"` // PKCS#8 (RFC 5208)
}

type indexEntry struct {
	Name string `json:"name"`
}

// Load returns the key with this name, or nil.
func Load(ctx context.Context, s logical.Storage, name string) (*Key, error) {
	entry := keyEntry{Settings: Settings{AllowedRoles: []string{"*"}}} // for older entries
	found, err := storage.Get(ctx, s, StoragePrefix+name, entryFormat, &entry)
	if err != nil {
		return nil, fmt.Errorf("key %q: %w", name, err)
	}
	if !found {
		return nil, nil
	}
	key, err := entry.key(name)
	if err != nil {
		damaged := &storage.DamagedError{Path: StoragePrefix + name}
		return nil, fmt.Errorf("key %q: %w: %w", name, damaged, err)
	}
	return key, nil
}

func (e *keyEntry) key(name string) (*Key, error) {
	key := &Key{name: name, id: e.ID, keyType: e.Type, lastNumber: e.LastNumber}
	for _, stored := range e.Versions {
		version, err := stored.version()
		if err != nil {
			return nil, fmt.Errorf("version %d: %w", stored.Number, err)
		}
		key.versions = append(key.versions, version)
	}
	if len(key.versions) == 0 {
		return nil, errors.New("it has no versions")
	}
	return key.withSettings(e.Settings)
}

func (e *versionEntry) version() (*Version, error) {
	parsed, err := x509.ParsePKCS8PrivateKey(e.PrivateKey)
	if err != nil {
		return nil, errors.New("the private key cannot be parsed")
	}
	private, ok := parsed.(crypto.Signer)
	if !ok {
		return nil, errors.New("the private key cannot sign")
	}
	v := &Version{record: e.versionRecord}
	return v, v.setPrivateKey(private)
}

// LoadSummary returns the summary of the key with this name, or nil. It decodes no private key.
func LoadSummary(
	ctx context.Context, s logical.Storage, name string, now time.Time,
) (*Summary, error) {
	var entry struct {
		Type     Type            `json:"type"`
		Settings Settings        `json:"settings"`
		Versions []versionRecord `json:"versions"`
	}
	found, err := storage.Get(ctx, s, StoragePrefix+name, entryFormat, &entry)
	if err == nil && found && len(entry.Versions) == 0 {
		err = &storage.DamagedError{Path: StoragePrefix + name}
	}
	if err != nil {
		return nil, fmt.Errorf("key %q: %w", name, err)
	}
	if !found {
		return nil, nil
	}
	key := &Key{keyType: entry.Type, settings: entry.Settings}
	for _, record := range entry.Versions {
		key.versions = append(key.versions, &Version{record: record})
	}
	return key.Summary(now), nil
}

// Create stores a new key with its indexes.
func Create(ctx context.Context, s logical.Storage, key *Key) error {
	if err := storage.Put(ctx, s, IDPrefix+key.id, indexEntry{Name: key.name}); err != nil {
		return err
	}
	return Update(ctx, s, &Key{}, key)
}

// Update stores a changed key in one write, and the indexes of the versions added and removed.
func Update(ctx context.Context, s logical.Storage, before, after *Key) error {
	index := indexEntry{Name: after.name}
	for _, v := range after.versionsNotIn(before) {
		if err := storage.Put(ctx, s, spkiPrefix+v.keyID, index); err != nil {
			return err
		}
	}
	entry, err := after.entry()
	if err != nil {
		return err
	}
	if err := storage.Put(ctx, s, StoragePrefix+after.name, entry); err != nil {
		return err
	}
	for _, v := range before.versionsNotIn(after) {
		if err := s.Delete(ctx, spkiPrefix+v.keyID); err != nil {
			return fmt.Errorf("delete index of key %q version %d: %w", after.name, v.Number(), err)
		}
	}
	return nil
}

func (k *Key) versionsNotIn(other *Key) []*Version {
	return slices.DeleteFunc(k.Versions(), func(v *Version) bool {
		return other.Version(v.Number()) != nil
	})
}

func (k *Key) entry() (*keyEntry, error) {
	entry := &keyEntry{
		Format: entryFormat, ID: k.id, Type: k.keyType,
		Settings: k.settings, LastNumber: k.lastNumber,
	}
	for _, v := range k.versions {
		stored, err := v.entry()
		if err != nil {
			return nil, fmt.Errorf("key %q version %d: %w", k.name, v.Number(), err)
		}
		entry.Versions = append(entry.Versions, stored)
	}
	return entry, nil
}

func (v *Version) entry() (versionEntry, error) {
	pkcs8, err := x509.MarshalPKCS8PrivateKey(v.private)
	if err != nil {
		return versionEntry{}, fmt.Errorf("encode the private key: %w", err)
	}
	return versionEntry{v.record, pkcs8}, nil
}

// Delete deletes a key, then its indexes.
func Delete(ctx context.Context, s logical.Storage, key *Key) error {
	paths := []string{StoragePrefix + key.name, IDPrefix + key.id}
	for _, v := range key.versions {
		paths = append(paths, spkiPrefix+v.keyID)
	}
	return deleteAll(ctx, s, key.name, paths)
}

// DeleteDamaged deletes a key that is damaged, then the indexes that its entry still names.
func DeleteDamaged(ctx context.Context, s logical.Storage, name string) error {
	var entry keyEntry
	_, err := storage.Get(ctx, s, StoragePrefix+name, entryFormat, &entry)
	if err != nil && !storage.IsDamaged(err) {
		return err
	}
	paths := []string{StoragePrefix + name}
	if entry.ID != "" {
		paths = append(paths, IDPrefix+entry.ID)
	}
	for _, stored := range entry.Versions {
		if version, err := stored.version(); err == nil {
			paths = append(paths, spkiPrefix+version.keyID)
		}
	}
	return deleteAll(ctx, s, name, paths)
}

func deleteAll(ctx context.Context, s logical.Storage, name string, paths []string) error {
	for _, path := range paths {
		if err := s.Delete(ctx, path); err != nil {
			return fmt.Errorf("delete key %q: %w", name, err)
		}
	}
	return nil
}

// NameByID returns the name of the key with this id, or nil.
func NameByID(ctx context.Context, s logical.Storage, id string) (*string, error) {
	name, err := readIndex(ctx, s, IDPrefix+id)
	if err != nil || name == "" {
		return nil, err
	}
	return &name, nil
}

// ListIDs returns the ids of all keys.
func ListIDs(ctx context.Context, s logical.Storage) ([]string, error) {
	ids, err := s.List(ctx, IDPrefix)
	if err != nil {
		return nil, fmt.Errorf("list the ids of keys: %w", err)
	}
	return ids, nil
}

// NameByKeyID returns the name of the key that has a version with this kid, or "".
func NameByKeyID(ctx context.Context, s logical.Storage, keyID string) (string, error) {
	name, err := readIndex(ctx, s, spkiPrefix+keyID)
	if storage.IsDamaged(err) { // an import writes it again
		return "", nil
	}
	if err != nil || name == "" {
		return "", err
	}
	key, err := Load(ctx, s, name)
	if err != nil || key == nil {
		return "", err
	}
	if !slices.ContainsFunc(key.versions, func(v *Version) bool { return v.keyID == keyID }) {
		return "", nil // an index that a failed write left behind
	}
	return name, nil
}

func readIndex(ctx context.Context, s logical.Storage, path string) (string, error) {
	var entry indexEntry
	if _, err := storage.Get(ctx, s, path, 0, &entry); err != nil {
		return "", fmt.Errorf("index %s: %w", path, err)
	}
	return entry.Name, nil
}

// List returns the names of all keys.
func List(ctx context.Context, s logical.Storage) ([]string, error) {
	names, err := s.List(ctx, StoragePrefix)
	if err != nil {
		return nil, fmt.Errorf("list keys: %w", err)
	}
	return names, nil
}

// NameOf returns the name in a key's storage path, and whether the path is a key's.
func NameOf(storagePath string) (string, bool) {
	return strings.CutPrefix(storagePath, StoragePrefix)
}
