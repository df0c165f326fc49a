package keyring

import (
	"slices"
	"time"
)

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
