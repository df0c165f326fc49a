package storage

import (
	"context"
	"errors"
	"testing"

	"github.com/hashicorp/vault/sdk/logical"
	"github.com/stretchr/testify/require"
)

type testEntry struct {
	Format int    `json:"format"`
	Secret string `json:"secret"`
}

func stored(t *testing.T, value string) logical.Storage {
	t.Helper()
	s := &logical.InmemStorage{}
	require.NoError(t, s.Put(t.Context(), &logical.StorageEntry{Key: "a", Value: []byte(value)}))
	return s
}

func TestEntry_ReadsBackAsWritten(t *testing.T) {
	t.Parallel()
	s := &logical.InmemStorage{}
	written := testEntry{Format: 1, Secret: "hunter2"}
	require.NoError(t, Put(t.Context(), s, "a", written))
	var read testEntry
	found, err := Get(t.Context(), s, "a", 1, &read)
	require.NoError(t, err)
	require.True(t, found)
	require.Equal(t, written, read)
}

func TestEntry_AbsentPathLeavesDefaults(t *testing.T) {
	t.Parallel()
	entry := testEntry{Secret: "default"}
	found, err := Get(t.Context(), &logical.InmemStorage{}, "a", 1, &entry)
	require.NoError(t, err)
	require.False(t, found)
	require.Equal(t, testEntry{Secret: "default"}, entry)
}

func TestEntry_AbsentMemberKeepsItsDefault(t *testing.T) {
	t.Parallel()
	entry := testEntry{Secret: "default"}
	found, err := Get(t.Context(), stored(t, `{"format":1}`), "a", 1, &entry)
	require.NoError(t, err)
	require.True(t, found)
	require.Equal(t, testEntry{Format: 1, Secret: "default"}, entry)
}

func TestEntry_WithoutFormatIsRead(t *testing.T) {
	t.Parallel()
	var entry testEntry
	found, err := Get(t.Context(), stored(t, `{"secret":"b"}`), "a", 0, &entry)
	require.NoError(t, err)
	require.True(t, found)
	require.Equal(t, "b", entry.Secret)
}

func TestEntry_NewerFormatIsAnErrorEvenIfTheRestDoesNotDecode(t *testing.T) {
	t.Parallel()
	for _, value := range []string{
		`{"format":2}`,
		`{"format":2,"secret":"hunter2"}`,
		`{"format":2,"secret":{"value":"hunter2"}}`,
	} {
		_, err := Get(t.Context(), stored(t, value), "a", 1, new(testEntry))
		newer, ok := errors.AsType[*NewerFormatError](err)
		require.True(t, ok, value)
		require.False(t, IsDamaged(err))
		require.True(t, Unreadable(err))
		require.Equal(t, NewerFormatError{Format: 2, Newest: 1}, *newer)
		require.EqualError(t, err, "the entry was stored by a newer version of this plugin "+
			"(format 2; this version reads up to 1): upgrade the plugin")
	}
}

func TestEntry_DamagedIsAnErrorThatQuotesNothing(t *testing.T) {
	t.Parallel()
	for _, value := range []string{
		"", "hunter2", `{"format":"hunter2"}`, `{"format":1,"secret":hunter2}`, `["hunter2"]`,
		`{"format":1,"secret":"hunter2"`,
	} {
		_, err := Get(t.Context(), stored(t, value), "a", 1, new(testEntry))
		require.EqualError(t, err, "the stored entry is damaged", value)
		require.True(t, IsDamaged(err))
		require.True(t, Unreadable(err))
	}
}

var errStorage = errors.New("storage is down")

type brokenStorage struct{ logical.Storage }

func (brokenStorage) Get(context.Context, string) (*logical.StorageEntry, error) {
	return nil, errStorage
}

func (brokenStorage) Put(context.Context, *logical.StorageEntry) error { return errStorage }

func TestEntry_StorageFailureIsReported(t *testing.T) {
	t.Parallel()
	_, err := Get(t.Context(), brokenStorage{}, "a", 1, new(testEntry))
	require.ErrorIs(t, err, errStorage)
	require.EqualError(t, err, "read the entry: storage is down")
	err = Put(t.Context(), brokenStorage{}, "role/a", testEntry{})
	require.ErrorIs(t, err, errStorage)
	require.EqualError(t, err, "store role/a: storage is down")
	err = Put(t.Context(), brokenStorage{}, "role/a", func() {})
	require.ErrorContains(t, err, "encode role/a: ")
}
