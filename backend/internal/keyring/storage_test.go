package keyring

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"testing"

	"github.com/bcgov/vault-plugin-bcgov-jwt/backend/internal/storage"
	"github.com/go-jose/go-jose/v4"
	"github.com/hashicorp/vault/sdk/logical"
	"github.com/stretchr/testify/require"
)

// faultyStorage fails the write with number failAt, counted from 1.
type faultyStorage struct {
	logical.Storage
	failAt, writes int
}

var errStorage = errors.New("storage is down")

func (s *faultyStorage) fail() error {
	if s.writes++; s.writes == s.failAt {
		return errStorage
	}
	return nil
}

func (s *faultyStorage) Put(ctx context.Context, entry *logical.StorageEntry) error {
	if err := s.fail(); err != nil {
		return err
	}
	return s.Storage.Put(ctx, entry)
}

func (s *faultyStorage) Delete(ctx context.Context, path string) error {
	if err := s.fail(); err != nil {
		return err
	}
	return s.Storage.Delete(ctx, path)
}

func paths(t *testing.T, storage logical.Storage) []string {
	t.Helper()
	found, err := logical.CollectKeys(t.Context(), storage)
	require.NoError(t, err)
	return found
}

func TestStorage_KeyReadsBackAsStored(t *testing.T) {
	t.Parallel()
	for _, keyType := range Types() {
		storage := &logical.InmemStorage{}
		key := testKey(t, keyType)
		require.NoError(t, Create(t.Context(), storage, key))
		loaded, err := Load(t.Context(), storage, "myapi")
		require.NoError(t, err)
		require.Equal(t, key.ID(), loaded.ID())
		require.Equal(t, key.Type(), loaded.Type())
		require.Equal(t, key.Settings(), loaded.Settings())
		before, after := key.Active(start()), loaded.Active(start())
		require.Equal(t, before.entryForTest(t), after.entryForTest(t))
		require.Equal(t, before.KeyID(), after.KeyID())
		require.Equal(t, before.CertificatePEM(), after.CertificatePEM())

		names, err := List(t.Context(), storage)
		require.NoError(t, err)
		require.Equal(t, []string{"myapi"}, names)
	}
}

func (v *Version) entryForTest(t *testing.T) versionEntry {
	t.Helper()
	entry, err := v.entry()
	require.NoError(t, err)
	return entry
}

func TestStorage_AbsentKeyIsNil(t *testing.T) {
	t.Parallel()
	key, err := Load(t.Context(), &logical.InmemStorage{}, "myapi")
	require.NoError(t, err)
	require.Nil(t, key)
}

func TestStorage_UpdateWritesOneEntry(t *testing.T) {
	t.Parallel()
	storage := &faultyStorage{Storage: &logical.InmemStorage{}}
	key := testKey(t, ED25519)
	require.NoError(t, Create(t.Context(), storage, key))
	storage.writes = 0
	changed, err := key.WithSettings(Settings{ClientID: "a", Algorithm: jose.EdDSA})
	require.NoError(t, err)
	require.NoError(t, Update(t.Context(), storage, key, changed))
	require.Equal(t, 1, storage.writes)
	loaded, err := Load(t.Context(), storage, "myapi")
	require.NoError(t, err)
	require.Equal(t, "a", loaded.Settings().ClientID)
}

func TestStorage_IndexesFollowVersions(t *testing.T) {
	t.Parallel()
	s := &faultyStorage{Storage: &logical.InmemStorage{}}
	first := testKey(t, ED25519)
	require.NoError(t, Create(t.Context(), s, first))
	rotated := rotate(t, first, start())
	require.NoError(t, Update(t.Context(), s, first, rotated))
	index := func(number int) string { return "spki/" + rotated.Version(number).KeyID() }
	require.Subset(t, paths(t, s), []string{index(1), index(2)})

	destroyed := rotated.Destroy(1)
	s.writes, s.failAt = 0, 2
	require.ErrorIs(t, Update(t.Context(), s, rotated, destroyed), errStorage)
	require.Contains(t, paths(t, s), index(1), "the entry is written first")
	require.NoError(t, Update(t.Context(), s, rotated, destroyed))
	require.NotContains(t, paths(t, s), index(1))
	require.Contains(t, paths(t, s), index(2))
}

func TestStorage_IndexesPointToKey(t *testing.T) {
	t.Parallel()
	storage := &logical.InmemStorage{}
	key := testKey(t, ED25519)
	require.NoError(t, Create(t.Context(), storage, key))
	for _, path := range []string{"key-id/" + key.ID(), "spki/" + key.Active(start()).KeyID()} {
		entry, err := storage.Get(t.Context(), path)
		require.NoError(t, err)
		require.NotNil(t, entry, path)
		require.JSONEq(t, `{"name":"myapi"}`, string(entry.Value))
	}
	require.NoError(t, Delete(t.Context(), storage, key))
	require.Empty(t, paths(t, storage))
}

func TestStorage_KeyIsFoundByItsIDs(t *testing.T) {
	t.Parallel()
	s := &logical.InmemStorage{}
	key := testKey(t, ED25519)
	require.NoError(t, Create(t.Context(), s, key))
	ids, err := ListIDs(t.Context(), s)
	require.NoError(t, err)
	require.Equal(t, []string{key.ID()}, ids)

	name, err := NameByID(t.Context(), s, key.ID())
	require.NoError(t, err)
	require.Equal(t, "myapi", *name)
	name, err = NameByID(t.Context(), s, "another")
	require.NoError(t, err)
	require.Nil(t, name)

	kid := key.Version(1).KeyID()
	byKeyID := func(keyID string) string {
		t.Helper()
		name, err := NameByKeyID(t.Context(), s, keyID)
		require.NoError(t, err)
		return name
	}
	require.Equal(t, "myapi", byKeyID(kid))
	require.Empty(t, byKeyID("another"))
	for _, stale := range []indexEntry{{Name: "myapi"}, {Name: "gone"}} { // a write failed
		require.NoError(t, storage.Put(t.Context(), s, "spki/stale", stale))
		require.Empty(t, byKeyID("stale"))
	}
	damaged := &logical.StorageEntry{Key: "spki/stale", Value: []byte("{")}
	require.NoError(t, s.Put(t.Context(), damaged))
	require.Empty(t, byKeyID("stale"), "an import writes it again")
}

func TestStorage_FailedCreationLeavesNoKey(t *testing.T) {
	t.Parallel()
	for failAt := 1; failAt <= 3; failAt++ {
		storage := &faultyStorage{Storage: &logical.InmemStorage{}, failAt: failAt}
		require.ErrorIs(t, Create(t.Context(), storage, testKey(t, ED25519)), errStorage)
		key, err := Load(t.Context(), storage, "myapi")
		require.NoError(t, err)
		require.Nil(t, key, "the entry is written last")
	}
}

func TestStorage_FailedDeletionLeavesKeyWholeOrGone(t *testing.T) {
	t.Parallel()
	for failAt := 1; failAt <= 3; failAt++ {
		inner := &logical.InmemStorage{}
		key := testKey(t, ED25519)
		require.NoError(t, Create(t.Context(), inner, key))
		storage := &faultyStorage{Storage: inner, failAt: failAt}
		require.ErrorIs(t, Delete(t.Context(), storage, key), errStorage)
		loaded, err := Load(t.Context(), inner, "myapi")
		require.NoError(t, err)
		require.Equal(t, failAt == 1, loaded != nil, "the entry is deleted first")
		if loaded != nil {
			require.Len(t, paths(t, inner), 3, "with all its indexes")
		}
	}
}

func TestStorage_NewerFormatIsAnError(t *testing.T) {
	t.Parallel()
	s := &logical.InmemStorage{}
	require.NoError(t, storage.Put(t.Context(), s, "key/myapi", keyEntry{Format: 2}))
	_, err := Load(t.Context(), s, "myapi")
	require.ErrorContains(t, err, `key "myapi": the entry was stored by a newer version of this `+
		"plugin (format 2; this version reads up to 1)")
}

func TestStorage_DamagedEntryErrorQuotesNothingAndItCanBeDeleted(t *testing.T) {
	t.Parallel()
	good := testKey(t, ED25519)
	s := &logical.InmemStorage{}
	require.NoError(t, Create(t.Context(), s, good))
	raw, err := s.Get(t.Context(), "key/myapi")
	require.NoError(t, err)
	var entry map[string]any
	require.NoError(t, json.Unmarshal(raw.Value, &entry))
	secret := entry["versions"].([]any)[0].(map[string]any)["private_key"].(string)

	replace := func(before, after string) func([]byte) []byte {
		return func(b []byte) []byte { return bytes.Replace(b, []byte(before), []byte(after), 1) }
	}
	index, spki := "key-id/"+good.ID(), "spki/"+good.Active(start()).KeyID()
	for name, test := range map[string]struct {
		damage func([]byte) []byte
		left   []string // after it was deleted: the indexes that the entry no longer names
	}{
		"not JSON":                  {func(b []byte) []byte { return b[:len(b)/2] }, []string{index, spki}},
		"no versions":               {func([]byte) []byte { return []byte(`{"format":1}`) }, []string{index, spki}},
		"truncated key":             {replace(secret, secret[:40]), []string{spki}},
		"wrong type":                {replace(`"format":1`, `"format":"`+secret+`"`), []string{}},
		"algorithm of another type": {replace(`"EdDSA"`, `"RS256"`), []string{}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := &logical.InmemStorage{}
			require.NoError(t, Create(t.Context(), s, good))
			entry := &logical.StorageEntry{Key: "key/myapi", Value: test.damage(raw.Value)}
			require.NoError(t, s.Put(t.Context(), entry))
			_, err := Load(t.Context(), s, "myapi")
			require.ErrorContains(t, err, `key "myapi": the stored entry is damaged`)
			require.True(t, storage.IsDamaged(err))
			require.NotContains(t, err.Error(), secret[:20])
			require.NoError(t, DeleteDamaged(t.Context(), s, "myapi"))
			require.ElementsMatch(t, test.left, paths(t, s))
		})
	}
}

func TestStorage_NameOfPath(t *testing.T) {
	t.Parallel()
	name, ok := NameOf("key/myapi")
	require.True(t, ok)
	require.Equal(t, "myapi", name)
	for _, other := range []string{"role/myapi", "key-id/x", "spki/y", "key"} {
		_, ok := NameOf(other)
		require.False(t, ok, other)
	}
}
