package backend

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/bcgov/vault-plugin-bcgov-jwt/backend/internal/keyring"
	"github.com/hashicorp/vault/sdk/logical"
)

// periodic runs about once a minute: it deletes expired versions and creates those that
// auto_rotate_period calls for. Keys with nothing due cost no storage read. No version's state
// depends on it.
func (b *backend) periodic(ctx context.Context, req *logical.Request) error {
	if !b.WriteSafeReplicationState() {
		b.schedule.clear()
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
			b.Logger().Error("key maintenance failed; retrying in a minute",
				"key", name, "error", err)
		}
	}
	return ctx.Err()
}

// maintain does what is due for a key, in one write.
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
	var material *keyring.Material
	if rotationDue(key, now) {
		if material, err = b.generate(key.Type()); err != nil {
			return err
		}
	}
	unlock, err := b.keyLocks.lock(ctx, name)
	if err != nil {
		return err
	}
	defer unlock()
	before, err := keyring.Load(ctx, storage, name)
	if err != nil || before == nil {
		return err
	}
	after, err := maintained(before, material, now)
	if err != nil {
		return err
	}
	if after == before { // the cached key was older
		b.schedule.check(name)
		return nil
	}
	if err := b.storeKey(ctx, storage, before, after); err != nil {
		return err
	}
	b.logMaintenance(before, after)
	return nil
}

func rotationDue(key *keyring.Key, now time.Time) bool {
	due := key.Expire(now).RotationDue(now)
	return !due.IsZero() && !due.After(now)
}

// maintained returns the key without expired versions, and rotated if that is due and there is a
// private key for it.
func maintained(
	key *keyring.Key, material *keyring.Material, now time.Time,
) (*keyring.Key, error) {
	after := key.Expire(now)
	if material == nil || !rotationDue(after, now) {
		return after, nil
	}
	rotated, err := after.Rotate(material, now)
	if err != nil {
		return nil, fmt.Errorf("automatic rotation: %w", err)
	}
	return rotated, nil
}

func (b *backend) logMaintenance(before, after *keyring.Key) {
	for _, v := range before.Versions() {
		if after.Version(v.Number()) == nil {
			b.Logger().Info("expired key version deleted",
				"key", after.Name(), "version", v.Number())
		}
	}
	if newest := after.Versions()[0]; before.Version(newest.Number()) == nil {
		b.Logger().Info("key version created by auto_rotate_period",
			"key", after.Name(), "version", newest.Number())
	}
}

// schedule holds when each key is due for maintenance. Keys without an entry have nothing due.
type schedule struct {
	seeded atomic.Bool
	due    sync.Map // of time.Time, by name
}

// seed schedules every key once after the start.
func (s *schedule) seed(ctx context.Context, storage logical.Storage) error {
	if s.seeded.Load() {
		return nil
	}
	names, err := keyring.List(ctx, storage)
	if err != nil {
		return err
	}
	for _, name := range names {
		s.check(name)
	}
	s.seeded.Store(true)
	return nil
}

// clear frees what a node that does not write has no use for. Once it writes it seeds again.
func (s *schedule) clear() {
	s.due.Clear()
	s.seeded.Store(false)
}

// check schedules a key for the next run.
func (s *schedule) check(name string) { s.due.Store(name, time.Unix(0, 0)) }

// plan schedules a key for an instant; never if it is zero. It does not postpone a check requested
// in the meantime: the key has changed since.
func (s *schedule) plan(name string, at time.Time) {
	if !at.IsZero() {
		s.due.LoadOrStore(name, at)
	}
}

// takeDue removes and returns the names that are due.
func (s *schedule) takeDue(now time.Time) []string {
	var names []string
	s.due.Range(func(name, at any) bool {
		if !at.(time.Time).After(now) {
			s.due.CompareAndDelete(name, at) // a check in the meantime stays for the next run
			names = append(names, name.(string))
		}
		return true
	})
	return names
}
