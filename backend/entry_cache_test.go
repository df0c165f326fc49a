package backend

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/hashicorp/vault/sdk/logical"
	"github.com/stretchr/testify/require"
)

func TestEntryCache_LoadsOnceUntilDropped(t *testing.T) {
	t.Parallel()
	loads := 0
	s := entryCache[int]{load: func(context.Context, logical.Storage, string) (*int, error) {
		loads++
		value := loads
		return &value, nil
	}}
	for range 3 {
		value, err := s.get(t.Context(), nil, "a")
		require.NoError(t, err)
		require.Equal(t, 1, *value)
	}
	s.drop("b")
	value, err := s.get(t.Context(), nil, "a")
	require.NoError(t, err)
	require.Equal(t, 1, *value, "another name's drop leaves it alone")
	s.drop("a")
	value, err = s.get(t.Context(), nil, "a")
	require.NoError(t, err)
	require.Equal(t, 2, *value)
	s.clear()
	value, err = s.get(t.Context(), nil, "a")
	require.NoError(t, err)
	require.Equal(t, 3, *value)
}

func TestEntryCache_AbsenceAndErrorsAreNotCached(t *testing.T) {
	t.Parallel()
	loads := 0
	present := 42
	s := entryCache[int]{load: func(context.Context, logical.Storage, string) (*int, error) {
		switch loads++; loads {
		case 1:
			return nil, nil
		case 2:
			return nil, errors.New("down")
		default:
			return &present, nil
		}
	}}
	value, err := s.get(t.Context(), nil, "a")
	require.NoError(t, err)
	require.Nil(t, value)
	_, err = s.get(t.Context(), nil, "a")
	require.EqualError(t, err, "down")
	value, err = s.get(t.Context(), nil, "a")
	require.NoError(t, err)
	require.Equal(t, &present, value)
}

func TestEntryCache_LoadOvertakenByDropIsRepeated(t *testing.T) {
	t.Parallel()
	for name, drop := range map[string]func(*entryCache[string]){
		"drop":  func(s *entryCache[string]) { s.drop("a") },
		"clear": func(s *entryCache[string]) { s.clear() },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var s entryCache[string]
			stored, loads := "old", 0
			s.load = func(context.Context, logical.Storage, string) (*string, error) {
				loads++
				value := stored
				if loads == 1 { // another node writes, and this one is notified while it is still reading
					stored = "new"
					drop(&s)
				}
				return &value, nil
			}
			value, err := s.get(t.Context(), nil, "a")
			require.NoError(t, err)
			require.Equal(t, "new", *value)
			require.Equal(t, 2, loads)
		})
	}
}

func TestEntryCache_DroppedValuesAreDiscardedOnce(t *testing.T) {
	t.Parallel()
	var discarded []string
	s := entryCache[string]{
		load:    func(_ context.Context, _ logical.Storage, name string) (*string, error) { return &name, nil },
		discard: func(value *string) { discarded = append(discarded, *value) },
	}
	for _, name := range []string{"a", "b"} {
		_, err := s.get(t.Context(), nil, name)
		require.NoError(t, err)
	}
	s.drop("a")
	s.drop("a")
	s.drop("never there")
	s.clear()
	s.clear()
	require.Equal(t, []string{"a", "b"}, discarded)
}

func TestEntryCache_NeverReturnsValueOlderThanLastDrop(t *testing.T) {
	t.Parallel()
	var stored, dropped atomic.Int64
	s := entryCache[int64]{load: func(context.Context, logical.Storage, string) (*int64, error) {
		value := stored.Load()
		return &value, nil
	}}
	var readers, writer sync.WaitGroup
	done := make(chan struct{})
	writer.Go(func() {
		for n := int64(1); n <= 2000; n++ {
			stored.Store(n)
			s.drop("a")
			dropped.Store(n)
		}
		close(done)
	})
	for range 4 {
		readers.Go(func() {
			for {
				least := dropped.Load()
				value, err := s.get(context.Background(), nil, "a")
				if err != nil || *value < least {
					t.Errorf("got %d, %v after %d was dropped", *value, err, least)
					return
				}
				select {
				case <-done:
					return
				default:
				}
			}
		})
	}
	writer.Wait()
	readers.Wait()
}
