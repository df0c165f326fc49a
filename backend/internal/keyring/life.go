package keyring

import (
	"errors"
	"fmt"
	"slices"
	"time"
)

// MaxVersions is how many versions a key keeps at most.
const MaxVersions = 10

// State is where a version is in its life.
type State string

// A version is staged until its activation time has come, active while it is the newest such version, and retired once
// a newer one is active.
const (
	Staged  State = "staged"
	Active  State = "active"
	Retired State = "retired"
)

// State computes where a version is in its life at this instant. It follows from stored instants alone, so that no
// background work has to run for it to be right.
func (k *Key) State(v *Version, now time.Time) State {
	active := k.Active(now)
	switch {
	case v.number > active.number:
		return Staged
	case v.number == active.number:
		return Active
	default:
		return Retired
	}
}

// Active returns the version that signs at this instant: the newest whose activation time has come. Where the clock was
// set back to before all of them it is the oldest one, so that there always is one.
func (k *Key) Active(now time.Time) *Version {
	for _, v := range slices.Backward(k.versions) {
		if v.activatedAt(now) {
			return v
		}
	}
	return k.versions[0]
}

// Staged returns the newest version that is to become active; nil when there is none.
func (k *Key) Staged(now time.Time) *Version {
	if newest := k.newest(); newest.number > k.Active(now).number {
		return newest
	}
	return nil
}

func (k *Key) newest() *Version { return k.versions[len(k.versions)-1] }

// Version returns the version with this number; nil when there is none.
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

// Live returns the versions that are usable and published at this instant, newest first: all that have not expired.
func (k *Key) Live(now time.Time) []*Version {
	return slices.DeleteFunc(k.Versions(), func(v *Version) bool { return k.expired(v, now) })
}

// ExpireTime is when a retired version ends: RetireAfter after the provider first accepted a version that became active
// after it. It is zero for other versions, and while none has been accepted: the key that the provider knows is never lost.
func (k *Key) ExpireTime(v *Version, now time.Time) time.Time {
	var accepted time.Time
	active := k.Active(now)
	for _, newer := range k.versions {
		if newer.number > v.number && newer.number <= active.number && !newer.acceptedTime.IsZero() &&
			(accepted.IsZero() || newer.acceptedTime.Before(accepted)) {
			accepted = newer.acceptedTime
		}
	}
	if accepted.IsZero() {
		return time.Time{}
	}
	return accepted.Add(k.settings.RetireAfter)
}

func (k *Key) expired(v *Version, now time.Time) bool {
	end := k.ExpireTime(v, now)
	return !end.IsZero() && !end.After(now)
}

// RotationDue is when the next version is to be made by itself; zero: not by itself, or not before the provider has
// accepted the newest one and there is room for another.
func (k *Key) RotationDue(now time.Time) time.Time {
	if !k.rotates(now) || k.newest().acceptedTime.IsZero() || len(k.versions) >= MaxVersions {
		return time.Time{}
	}
	return k.newest().creationTime.Add(k.settings.AutoRotatePeriod)
}

func (k *Key) rotates(now time.Time) bool {
	return k.settings.AutoRotatePeriod > 0 && k.Staged(now) == nil
}

// RotationWaitsForAcceptance says that a rotation would be due, but the provider has not accepted the newest version yet.
func (k *Key) RotationWaitsForAcceptance(now time.Time) bool {
	return k.rotationOverdue(now) && k.newest().acceptedTime.IsZero()
}

// RotationWaitsForRoom says that a rotation would be due, but the key keeps as many versions as it can.
func (k *Key) RotationWaitsForRoom(now time.Time) bool {
	return k.rotationOverdue(now) && len(k.versions) >= MaxVersions
}

func (k *Key) rotationOverdue(now time.Time) bool {
	return k.rotates(now) && !k.newest().creationTime.Add(k.settings.AutoRotatePeriod).After(now)
}

// NextDue is when background work is next due on this key: an expiry or a rotation, or a scheduled activation, after which
// there may be either; zero: never as it is now.
func (k *Key) NextDue(now time.Time) time.Time {
	next := k.RotationDue(now)
	if staged := k.Staged(now); staged != nil {
		next = staged.activationTime
	}
	for _, v := range k.versions {
		if end := k.ExpireTime(v, now); !end.IsZero() && (next.IsZero() || end.Before(next)) {
			next = end
		}
	}
	return next
}

// ErrTooManyVersions refuses an eleventh version.
var ErrTooManyVersions = errors.New("it keeps 10 versions already")

// Rotate returns the key with a further version: staged, or with ByJWKS active once it has been published for
// ActivationDelay, and never before its predecessor.
func (k *Key) Rotate(now time.Time) (*Key, error) {
	if len(k.versions) >= MaxVersions {
		return nil, ErrTooManyVersions
	}
	private, err := k.keyType.generate()
	if err != nil {
		return nil, fmt.Errorf("rotate key %q: %w", k.name, err)
	}
	next, err := newVersion(k.lastNumber+1, private, Generated, k.settings.CommonName, now)
	if err != nil {
		return nil, fmt.Errorf("rotate key %q: %w", k.name, err)
	}
	if k.settings.Registration == ByJWKS {
		next.activatedBy = BySchedule
		next.activationTime = next.creationTime.Add(k.settings.ActivationDelay)
		if before := k.newest().activationTime; before.After(next.activationTime) {
			next.activationTime = before
		}
	}
	rotated := *k
	rotated.versions = append(slices.Clone(k.versions), next)
	rotated.lastNumber = next.number
	return rotated.WithSettings(k.settings)
}

// Activate returns the key with this version as the active one from now on. Newer ones are staged again.
func (k *Key) Activate(number int, by Activator, now time.Time) *Key {
	return k.edit(func(v *Version) {
		switch {
		case v.number == number:
			v.activationTime, v.activatedBy = stored(now), by
		case v.number > number:
			v.activationTime, v.activatedBy, v.acceptedTime = time.Time{}, "", time.Time{}
		}
	})
}

// Accept returns the key with the instant at which the provider first gave a token for this version.
func (k *Key) Accept(number int, now time.Time) *Key {
	return k.edit(func(v *Version) {
		if v.number == number && v.acceptedTime.IsZero() {
			v.acceptedTime = stored(now)
		}
	})
}

// Refuse returns the key with this version as not accepted, which keeps its predecessors from expiring.
func (k *Key) Refuse(number int) *Key {
	return k.edit(func(v *Version) {
		if v.number == number {
			v.acceptedTime = time.Time{}
		}
	})
}

// Destroy returns the key without this version.
func (k *Key) Destroy(number int) *Key {
	return k.keep(func(v *Version) bool { return v.number != number })
}

// Expire returns the key without the versions whose time is over; the same key when there is none.
func (k *Key) Expire(now time.Time) *Key {
	if len(k.Live(now)) == len(k.versions) {
		return k
	}
	return k.keep(func(v *Version) bool { return !k.expired(v, now) })
}

func (k *Key) edit(change func(*Version)) *Key {
	edited := *k
	edited.versions = make([]*Version, len(k.versions))
	for i, v := range k.versions {
		version := *v
		change(&version)
		edited.versions[i] = &version
	}
	return &edited
}

func (k *Key) keep(wanted func(*Version) bool) *Key {
	kept := *k
	kept.versions = nil
	for _, v := range k.versions {
		if wanted(v) {
			kept.versions = append(kept.versions, v)
		}
	}
	return &kept
}

// stored is an instant as entries hold it. A rounded-up one would lie in the future of its own request.
func stored(t time.Time) time.Time { return t.UTC().Truncate(time.Second) }
