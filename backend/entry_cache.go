package backend

import (
	"context"
	"sync"

	"github.com/hashicorp/vault/sdk/logical"
)

// entryCache holds what was read from storage, so that a warm read costs no storage round trip. Its
// values are immutable.
type entryCache[T any] struct {
	load    func(ctx context.Context, storage logical.Storage, name string) (*T, error)
	discard func(*T) // may be nil

	mu         sync.RWMutex
	values     map[string]*T
	generation uint64 // counts drops: a value loaded while one happened may be stale
}

// get returns the value of a name, or nil if it does not exist.
func (c *entryCache[T]) get(ctx context.Context, storage logical.Storage, name string) (*T, error) {
	for {
		c.mu.RLock()
		value, ok := c.values[name]
		generation := c.generation
		c.mu.RUnlock()
		if ok {
			return value, nil
		}
		value, err := c.load(ctx, storage, name)
		if err != nil || value == nil {
			return nil, err
		}
		kept, ok := c.keep(name, value, generation)
		if kept != value && c.discard != nil {
			c.discard(value)
		}
		if ok {
			return kept, nil
		}
	}
}

// keep stores a loaded value and returns the one in place; false if a drop overtook the load.
func (c *entryCache[T]) keep(name string, value *T, generation uint64) (*T, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.generation != generation {
		return nil, false
	}
	if kept, ok := c.values[name]; ok {
		return kept, true
	}
	if c.values == nil {
		c.values = make(map[string]*T)
	}
	c.values[name] = value
	return value, true
}

// drop removes a name and returns its value, if any; the next get reads it from storage.
func (c *entryCache[T]) drop(name string) *T {
	c.mu.Lock()
	value := c.values[name]
	delete(c.values, name)
	c.generation++
	c.mu.Unlock()
	if value != nil && c.discard != nil {
		c.discard(value)
	}
	return value
}

func (c *entryCache[T]) clear() {
	c.mu.Lock()
	values := c.values
	c.values = nil
	c.generation++
	c.mu.Unlock()
	if c.discard == nil {
		return
	}
	for _, value := range values {
		c.discard(value)
	}
}
