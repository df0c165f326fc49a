package backend

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/hashicorp/vault/sdk/helper/consts"
	"github.com/hashicorp/vault/sdk/logical"
	"github.com/stretchr/testify/require"
)

// verb is a storage operation.
type verb string

const (
	get    verb = "get"
	list   verb = "list"
	put    verb = "put"
	remove verb = "delete"
)

func (v verb) writes() bool { return v == put || v == remove }

var errStorage = errors.New("storage is down")

// countingStorage counts calls, and lets a test act before each.
type countingStorage struct {
	*logical.InmemStorage

	mu     sync.Mutex
	counts map[verb]int
	before func(v verb, path string) error
}

func newStorage() *countingStorage {
	return &countingStorage{InmemStorage: &logical.InmemStorage{}, counts: map[verb]int{}}
}

func (s *countingStorage) count(v verb, path string) error {
	s.mu.Lock()
	s.counts[v]++
	before := s.before
	s.mu.Unlock()
	if before == nil {
		return nil
	}
	return before(v, path)
}

func (s *countingStorage) Get(ctx context.Context, path string) (*logical.StorageEntry, error) {
	if err := s.count(get, path); err != nil {
		return nil, err
	}
	return s.InmemStorage.Get(ctx, path)
}

func (s *countingStorage) List(ctx context.Context, prefix string) ([]string, error) {
	if err := s.count(list, prefix); err != nil {
		return nil, err
	}
	return s.InmemStorage.List(ctx, prefix)
}

func (s *countingStorage) Put(ctx context.Context, entry *logical.StorageEntry) error {
	if err := s.count(put, entry.Key); err != nil {
		return err
	}
	return s.InmemStorage.Put(ctx, entry)
}

func (s *countingStorage) Delete(ctx context.Context, path string) error {
	if err := s.count(remove, path); err != nil {
		return err
	}
	return s.InmemStorage.Delete(ctx, path)
}

// intercept runs before each call from now on; nil removes it.
func (s *countingStorage) intercept(before func(v verb, path string) error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.before = before
}

// failNth fails the n-th of the calls that match, counted from 1 and from now, and reports whether that has happened.
func (s *countingStorage) failNth(n int, matches func(verb) bool) (failed func() bool) {
	var seen atomic.Int64
	s.intercept(func(v verb, _ string) error {
		if matches(v) && seen.Add(1) == int64(n) {
			return errStorage
		}
		return nil
	})
	return func() bool { return seen.Load() >= int64(n) }
}

// failEach fails every call that matches, from now on.
func (s *countingStorage) failEach(matches func(verb) bool) {
	s.intercept(func(v verb, _ string) error {
		if matches(v) {
			return errStorage
		}
		return nil
	})
}

func (s *countingStorage) writes() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.counts[put] + s.counts[remove]
}

func (s *countingStorage) calls() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.counts[get] + s.counts[list] + s.counts[put] + s.counts[remove]
}

// entries returns everything that is stored, byte for byte.
func (s *countingStorage) entries(tb testing.TB) map[string]string {
	tb.Helper()
	paths, err := logical.CollectKeys(context.Background(), s.InmemStorage)
	require.NoError(tb, err)
	entries := map[string]string{}
	for _, path := range paths {
		entry, err := s.InmemStorage.Get(context.Background(), path)
		require.NoError(tb, err)
		entries[path] = string(entry.Value)
	}
	return entries
}

// countingSystem counts the calls to Vault. The interface in it is nil, so that a call that is not listed here panics:
// nothing else of Vault is called.
type countingSystem struct {
	logical.SystemView
	calls atomic.Int64
	state consts.ReplicationState
}

func (s *countingSystem) ReplicationState() consts.ReplicationState {
	s.calls.Add(1)
	return s.state
}

func (s *countingSystem) LocalMount() bool {
	s.calls.Add(1)
	return false
}

func (s *countingSystem) GetConsumptionBillingManager() logical.ConsumptionBillingManager {
	s.calls.Add(1)
	return nil
}

func (s *countingSystem) PluginEnv(context.Context) (*logical.PluginEnvironment, error) {
	s.calls.Add(1)
	return &logical.PluginEnvironment{VaultVersion: "1.21.0"}, nil
}
