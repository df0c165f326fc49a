package backend

import (
	"context"
	"sync"

	"github.com/hashicorp/vault/sdk/logical"
)

// snapshots keeps what was read from storage, so that a warm read costs no storage round trip. Its values are immutable.
type snapshots[T any] struct {
	load    func(ctx context.Context, storage logical.Storage, name string) (*T, error)
	discard func(*T) // may be nil

	mu         sync.RWMutex
	values     map[string]*T
	generation uint64 // counts drops: a value that was loaded while one happened may be stale
}

// get returns the value of a name, or nil when there is none.
func (s *snapshots[T]) get(ctx context.Context, storage logical.Storage, name string) (*T, error) {
	for {
		s.mu.RLock()
		value, ok := s.values[name]
		generation := s.generation
		s.mu.RUnlock()
		if ok {
			return value, nil
		}
		value, err := s.load(ctx, storage, name)
		if err != nil || value == nil {
			return nil, err
		}
		kept, ok := s.keep(name, value, generation)
		if kept != value && s.discard != nil {
			s.discard(value)
		}
		if ok {
			return kept, nil
		}
	}
}

// keep stores a loaded value and returns the one that is in place; false where a drop overtook the loading.
func (s *snapshots[T]) keep(name string, value *T, generation uint64) (*T, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.generation != generation {
		return nil, false
	}
	if kept, ok := s.values[name]; ok {
		return kept, true
	}
	if s.values == nil {
		s.values = make(map[string]*T)
	}
	s.values[name] = value
	return value, true
}

// drop forgets a name; the next get reads it from storage.
func (s *snapshots[T]) drop(name string) {
	s.mu.Lock()
	value := s.values[name]
	delete(s.values, name)
	s.generation++
	s.mu.Unlock()
	if value != nil && s.discard != nil {
		s.discard(value)
	}
}

// clear forgets all.
func (s *snapshots[T]) clear() {
	s.mu.Lock()
	values := s.values
	s.values = nil
	s.generation++
	s.mu.Unlock()
	if s.discard == nil {
		return
	}
	for _, value := range values {
		s.discard(value)
	}
}
