package keyring

import (
	"fmt"
	"slices"
	"time"
)

// State is a version's place in its lifecycle.
type State string

// A version is staged until its activation time, active while it is the newest version whose time
// has come, and retired once a newer one is active.
const (
	Staged  State = "staged"
	Active  State = "active"
	Retired State = "retired"
)

// State returns the state of a version. It follows from stored instants alone, so that it is right
// without background work.
func (k *Key) State(v *Version, now time.Time) State {
	active := k.Active(now)
	switch {
	case v.Number() > active.Number():
		return Staged
	case v.Number() == active.Number():
		return Active
	default:
		return Retired
	}
}

// Active returns the version that signs: the newest whose activation time has come. If the clock
// was set back to before all of them it is the oldest, so that one is always active.
func (k *Key) Active(now time.Time) *Version {
	for _, v := range slices.Backward(k.versions) {
		if v.activatedAt(now) {
			return v
		}
	}
	return k.versions[0]
}

// Staged returns the newest version if it is not active yet, or nil.
func (k *Key) Staged(now time.Time) *Version {
	if newest := k.newest(); newest.Number() > k.Active(now).Number() {
		return newest
	}
	return nil
}

// Live returns the versions that have not expired, newest first: they are usable and published.
func (k *Key) Live(now time.Time) []*Version {
	return slices.DeleteFunc(k.Versions(), func(v *Version) bool { return k.expired(v, now) })
}

// ExpireTime returns when a retired version expires: OverlapPeriod after the provider first
// accepted a version that became active after it. It is zero for other versions and while none of
// those is accepted, so that the key the provider knows is never lost.
func (k *Key) ExpireTime(v *Version, now time.Time) time.Time {
	var accepted time.Time
	active := k.Active(now)
	for _, newer := range k.versions {
		if newer.Number() <= v.Number() || newer.Number() > active.Number() ||
			newer.AcceptedTime().IsZero() {
			continue
		}
		if accepted.IsZero() || newer.AcceptedTime().Before(accepted) {
			accepted = newer.AcceptedTime()
		}
	}
	if accepted.IsZero() {
		return time.Time{}
	}
	return accepted.Add(k.settings.OverlapPeriod)
}

func (k *Key) expired(v *Version, now time.Time) bool {
	end := k.ExpireTime(v, now)
	return !end.IsZero() && !end.After(now)
}

// Summary is a key without its key pairs.
type Summary struct {
	Type     Type
	Settings Settings
	Active   int  // number of the version that signs
	Staged   int  // number of the version that becomes active next; 0 if there is none
	Accepted bool // whether the provider has accepted the active version
}

// Summary returns the key's summary.
func (k *Key) Summary(now time.Time) *Summary {
	active := k.Active(now)
	summary := &Summary{
		Type: k.keyType, Settings: k.settings, Active: active.Number(),
		Accepted: !active.AcceptedTime().IsZero(),
	}
	if staged := k.Staged(now); staged != nil {
		summary.Staged = staged.Number()
	}
	return summary
}

// NextDue returns when background work is next due on the key: an expiry, a rotation, or a
// scheduled activation, which may lead to either; zero: never while the key does not change.
func (k *Key) NextDue(now time.Time) time.Time {
	next := k.RotationDue(now)
	if staged := k.Staged(now); staged != nil {
		next = staged.ActivationTime()
	}
	for _, v := range k.versions {
		if end := k.ExpireTime(v, now); !end.IsZero() && (next.IsZero() || end.Before(next)) {
			next = end
		}
	}
	return next
}

// Activate returns the key with this version active from now on. Newer ones are staged again.
func (k *Key) Activate(number int, by Activator, now time.Time) *Key {
	return k.edit(func(v *Version) {
		switch {
		case v.Number() == number:
			v.record.ActivationTime, v.record.ActivatedBy = storedTime(now), by
		case v.Number() > number:
			v.record.ActivationTime, v.record.ActivatedBy = time.Time{}, ""
			v.record.AcceptedTime = time.Time{}
		}
	})
}

// Accept returns the key with this version accepted by the provider now, unless it already was.
func (k *Key) Accept(number int, now time.Time) *Key {
	return k.edit(func(v *Version) {
		if v.Number() == number && v.AcceptedTime().IsZero() {
			v.record.AcceptedTime = storedTime(now)
		}
	})
}

// ClearAccepted returns the key with this version no longer accepted, which keeps its predecessors
// from expiring.
func (k *Key) ClearAccepted(number int) *Key {
	return k.edit(func(v *Version) {
		if v.Number() == number {
			v.record.AcceptedTime = time.Time{}
		}
	})
}

// Destroy returns the key without this version.
func (k *Key) Destroy(number int) *Key {
	return k.without(func(v *Version) bool { return v.Number() == number })
}

// Expire returns the key without its expired versions; the same key if there are none.
func (k *Key) Expire(now time.Time) *Key {
	if len(k.Live(now)) == len(k.versions) {
		return k
	}
	return k.without(func(v *Version) bool { return k.expired(v, now) })
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

func (k *Key) without(unwanted func(*Version) bool) *Key {
	rest := *k
	rest.versions = slices.DeleteFunc(slices.Clone(k.versions), unwanted)
	return &rest
}

// MaxVersions is the maximum number of versions of a key.
const MaxVersions = 10

var errTooManyVersions = fmt.Errorf("the key has %d versions, the maximum", MaxVersions)

// Rotate returns the key with a new version that has this private key: staged, or with ByJWKS
// active once it has been published for PrepublishPeriod, and never before its predecessor.
func (k *Key) Rotate(material *Material, now time.Time) (*Key, error) {
	if len(k.versions) >= MaxVersions {
		return nil, errTooManyVersions
	}
	if material.keyType != k.keyType {
		return nil, fmt.Errorf("rotate key %q: it is %s, but the private key %s; try again",
			k.name, k.keyType, material.keyType)
	}
	next, err := newVersion(k.lastNumber+1, material, k.settings.CommonName, now)
	if err != nil {
		return nil, fmt.Errorf("rotate key %q: %w", k.name, err)
	}
	if k.settings.Registration == ByJWKS {
		next.record.ActivatedBy = BySchedule
		next.record.ActivationTime = next.CreationTime().Add(k.settings.PrepublishPeriod)
		if before := k.newest().ActivationTime(); before.After(next.ActivationTime()) {
			next.record.ActivationTime = before
		}
	}
	rotated := *k
	rotated.versions = append(slices.Clone(k.versions), next)
	rotated.lastNumber = next.Number()
	return rotated.withSettings(k.settings)
}

// RotationDue returns when automatic rotation is due; zero: never, or not until the provider
// accepts the newest version and the key has fewer than MaxVersions.
func (k *Key) RotationDue(now time.Time) time.Time {
	if !k.rotates(now) || k.newest().AcceptedTime().IsZero() || len(k.versions) >= MaxVersions {
		return time.Time{}
	}
	return k.newest().CreationTime().Add(k.settings.AutoRotatePeriod)
}

func (k *Key) rotates(now time.Time) bool {
	return k.settings.AutoRotatePeriod > 0 && k.Staged(now) == nil
}

// RotationWaitsForAcceptance reports whether rotation is overdue because the provider has not
// accepted the newest version yet.
func (k *Key) RotationWaitsForAcceptance(now time.Time) bool {
	return k.rotationOverdue(now) && k.newest().AcceptedTime().IsZero()
}

// RotationWaitsForRoom reports whether rotation is overdue because the key has MaxVersions.
func (k *Key) RotationWaitsForRoom(now time.Time) bool {
	return k.rotationOverdue(now) && len(k.versions) >= MaxVersions
}

func (k *Key) rotationOverdue(now time.Time) bool {
	return k.rotates(now) && !k.newest().CreationTime().Add(k.settings.AutoRotatePeriod).After(now)
}
