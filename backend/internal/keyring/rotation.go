package keyring

import (
	"fmt"
	"slices"
	"time"
)

// MaxVersions is the maximum number of versions of a key.
const MaxVersions = 10

// ErrTooManyVersions is returned for a key that has MaxVersions already.
var ErrTooManyVersions = fmt.Errorf("the key has %d versions, the maximum", MaxVersions)

// Rotate returns the key with a new version: staged, or with ByJWKS active once it has been
// published for ActivationDelay, and never before its predecessor.
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

// RotationDue returns when automatic rotation is due; zero: never, or not until the provider
// accepts the newest version and the key has fewer than MaxVersions.
func (k *Key) RotationDue(now time.Time) time.Time {
	if !k.rotates(now) || k.newest().acceptedTime.IsZero() || len(k.versions) >= MaxVersions {
		return time.Time{}
	}
	return k.newest().creationTime.Add(k.settings.AutoRotatePeriod)
}

func (k *Key) rotates(now time.Time) bool {
	return k.settings.AutoRotatePeriod > 0 && k.Staged(now) == nil
}

// RotationWaitsForAcceptance reports whether rotation is overdue because the provider has not
// accepted the newest version yet.
func (k *Key) RotationWaitsForAcceptance(now time.Time) bool {
	return k.rotationOverdue(now) && k.newest().acceptedTime.IsZero()
}

// RotationWaitsForRoom reports whether rotation is overdue because the key has MaxVersions.
func (k *Key) RotationWaitsForRoom(now time.Time) bool {
	return k.rotationOverdue(now) && len(k.versions) >= MaxVersions
}

func (k *Key) rotationOverdue(now time.Time) bool {
	return k.rotates(now) && !k.newest().creationTime.Add(k.settings.AutoRotatePeriod).After(now)
}
