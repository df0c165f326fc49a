package backend

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/hashicorp/vault/sdk/logical"

	"github.com/bcgov/vault-plugin-bcgov-jwt/backend/internal/keyring"
)

// periodic is called about once a minute: it deletes expired versions and makes those that auto_rotate_period asks for.
// It reads no storage for keys with nothing due. What a version is never depends on it.
func (b *backend) periodic(ctx context.Context, req *logical.Request) error {
	if !b.WriteSafeReplicationState() {
		return nil
	}
	if err := b.schedule.seed(ctx, req.Storage); err != nil {
		return err
	}
	for _, name := range b.schedule.takeDue(b.now()) {
		if ctx.Err() != nil {
			b.schedule.check(name)
			continue
		}
		if err := b.maintain(ctx, req.Storage, name); err != nil {
			b.schedule.check(name)
			b.Logger().Error("background work on a key failed, and is tried again in a minute", "key", name, "error", err)
		}
	}
	return ctx.Err()
}

// maintain does what is due on a key, in one write.
func (b *backend) maintain(ctx context.Context, storage logical.Storage, name string) error {
	key, err := b.keys.get(ctx, storage, name)
	if err != nil {
		return err
	}
	now := b.now()
	if key == nil {
		return nil
	}
	if next := key.NextDue(now); next.IsZero() || next.After(now) {
		b.schedule.plan(name, next)
		return nil
	}
	defer lock(b.keyLocks, name)()
	before, err := keyring.Load(ctx, storage, name)
	if err != nil || before == nil {
		return err
	}
	after, err := maintained(before, now)
	if err != nil {
		return err
	}
	if after == before { // changed since it was looked at
		b.schedule.check(name)
		return nil
	}
	if err := b.storeKey(ctx, storage, before, after); err != nil {
		return err
	}
	b.logMaintenance(before, after)
	return nil
}

// maintained returns the key without its expired versions, and with the next one where that is due.
func maintained(key *keyring.Key, now time.Time) (*keyring.Key, error) {
	after := key.Expire(now)
	if due := after.RotationDue(now); due.IsZero() || due.After(now) {
		return after, nil
	}
	rotated, err := after.Rotate(now)
	if err != nil {
		return nil, fmt.Errorf("automatic rotation: %w", err)
	}
	return rotated, nil
}

func (b *backend) logMaintenance(before, after *keyring.Key) {
	for _, v := range before.Versions() {
		if after.Version(v.Number()) == nil {
			b.Logger().Info("a version expired and was deleted", "key", after.Name(), "version", v.Number())
		}
	}
	if newest := after.Versions()[0]; before.Version(newest.Number()) == nil {
		b.Logger().Info("a version was made by auto_rotate_period", "key", after.Name(), "version", newest.Number())
	}
}

// schedule knows when each key is to be looked at next. A key that is not in it has nothing to come.
type schedule struct {
	mu     sync.Mutex
	seeded bool
	due    map[string]time.Time
}

// seed has every key looked at once, after the start.
func (s *schedule) seed(ctx context.Context, storage logical.Storage) error {
	s.mu.Lock()
	seeded := s.seeded
	s.mu.Unlock()
	if seeded {
		return nil
	}
	names, err := keyring.List(ctx, storage)
	if err != nil {
		return err
	}
	for _, name := range names {
		s.check(name)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.seeded = true
	return nil
}

// check has a key looked at in the next run.
func (s *schedule) check(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.put(name, time.Unix(0, 0))
}

// plan has a key looked at from this instant on; never if it is zero. A check that came meanwhile is not put off: the key
// was changed since it was looked at.
func (s *schedule) plan(name string, at time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, changed := s.due[name]; !changed && !at.IsZero() {
		s.put(name, at)
	}
}

func (s *schedule) put(name string, at time.Time) {
	if s.due == nil {
		s.due = map[string]time.Time{}
	}
	s.due[name] = at
}

// takeDue removes and returns the names whose time has come.
func (s *schedule) takeDue(now time.Time) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var names []string
	for name, at := range s.due {
		if !at.After(now) {
			names = append(names, name)
			delete(s.due, name)
		}
	}
	return names
}
