package keyring

import (
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/stretchr/testify/require"
)

// keyOf makes a key without key pairs, for tests of instants alone.
func keyOf(settings Settings, versions ...Version) *Key {
	key := &Key{name: "myapi", id: "ID", keyType: ED25519, settings: settings}
	for i := range versions {
		versions[i].number = i + 1
		key.versions = append(key.versions, &versions[i])
	}
	key.lastNumber = len(versions)
	return key
}

func numbers(versions []*Version) []int {
	found := []int{}
	for _, v := range versions {
		found = append(found, v.number)
	}
	return found
}

func rotatable(t *testing.T, settings Settings) *Key {
	t.Helper()
	settings.Algorithm, settings.CommonName = jose.EdDSA, "myapi"
	key, err := New("myapi", ED25519, settings, start())
	require.NoError(t, err)
	return key
}

func rotate(t *testing.T, key *Key, now time.Time) *Key {
	t.Helper()
	rotated, err := key.Rotate(now)
	require.NoError(t, err)
	return rotated
}

func TestManualRotationStagesAVersionWithoutADate(t *testing.T) {
	t.Parallel()
	before := rotatable(t, Settings{Registration: Manual, ActivationDelay: time.Minute})
	key := rotate(t, before, start().Add(time.Hour))
	require.Len(t, before.versions, 1, "the snapshot before is left alone")
	require.Equal(t, 2, key.Staged(start().Add(1000*time.Hour)).Number())
	require.Equal(t, 1, key.Active(start().Add(1000*time.Hour)).Number())
	require.NotEqual(t, key.versions[0].KeyID(), key.versions[1].KeyID())
}

func TestJWKSRotationActivatesAfterTheDelay(t *testing.T) {
	t.Parallel()
	key := rotate(t, rotatable(t, Settings{Registration: ByJWKS, ActivationDelay: 5 * time.Minute}), start())
	require.Equal(t, BySchedule, key.Version(2).ActivatedBy())
	require.Equal(t, 1, key.Active(start().Add(5*time.Minute-time.Second)).Number())
	require.Equal(t, 2, key.Active(start().Add(5*time.Minute)).Number())
}

func TestJWKSRotationNeverActivatesBeforeItsPredecessor(t *testing.T) {
	t.Parallel()
	key := rotate(t, rotatable(t, Settings{Registration: ByJWKS, ActivationDelay: time.Hour}), start())
	sooner := key.Settings()
	sooner.ActivationDelay = 0
	key, err := key.WithSettings(sooner)
	require.NoError(t, err)
	key = rotate(t, key, start().Add(time.Minute))
	require.Equal(t, key.Version(2).ActivationTime(), key.Version(3).ActivationTime())
}

func TestVersionNumbersAreNeverReused(t *testing.T) {
	t.Parallel()
	key := rotate(t, rotatable(t, Settings{}), start()).Destroy(2)
	require.Nil(t, key.Version(2))
	require.Equal(t, 3, rotate(t, key, start()).Staged(start()).Number())
}

func TestAnEleventhVersionIsRefused(t *testing.T) {
	t.Parallel()
	key := rotatable(t, Settings{})
	for range MaxVersions - 1 {
		key = rotate(t, key, start())
	}
	_, err := key.Rotate(start())
	require.ErrorIs(t, err, ErrTooManyVersions)
	rotate(t, key.Destroy(2), start())
}

func TestARetiredVersionExpiresOnceTheActiveOneWasAccepted(t *testing.T) {
	t.Parallel()
	hour := time.Hour
	key := keyOf(Settings{RetireAfter: hour},
		Version{activationTime: start().Add(-10 * hour), acceptedTime: start().Add(-9 * hour)},
		Version{activationTime: start().Add(-5 * hour)})

	require.Zero(t, key.ExpireTime(key.Version(1), start()), "the one that the provider knows is not lost by time")
	require.Equal(t, []int{2, 1}, numbers(key.Live(start().Add(1000*hour))))

	key = key.Accept(2, start())
	require.Equal(t, start().Add(hour), key.ExpireTime(key.Version(1), start()))
	require.Equal(t, []int{2, 1}, numbers(key.Live(start().Add(hour-time.Second))))
	require.Equal(t, []int{2}, numbers(key.Live(start().Add(hour))))
	require.Same(t, key, key.Expire(start()), "nothing to do is nothing to write")
	require.Equal(t, []int{2}, numbers(key.Expire(start().Add(hour)).versions))

	require.Zero(t, key.Refuse(2).ExpireTime(key.Version(1), start()), "a refusal stops it")
}

func TestALaterRotationDoesNotPutOffAnExpiry(t *testing.T) {
	t.Parallel()
	hour := time.Hour
	key := keyOf(Settings{RetireAfter: 3 * hour},
		Version{activationTime: start(), acceptedTime: start()},
		Version{activationTime: start().Add(hour), acceptedTime: start().Add(hour)},
		Version{activationTime: start().Add(2 * hour)})
	now := start().Add(2 * hour)
	require.Equal(t, start().Add(4*hour), key.ExpireTime(key.Version(1), now), "its successor was accepted")
	require.Zero(t, key.ExpireTime(key.Version(2), now), "the newest that was accepted stays")
	key = key.Accept(3, now)
	require.Equal(t, start().Add(4*hour), key.ExpireTime(key.Version(1), now))
	require.Equal(t, start().Add(5*hour), key.ExpireTime(key.Version(2), now))
}

func TestActiveAndStagedVersionsNeverExpire(t *testing.T) {
	t.Parallel()
	key := keyOf(Settings{},
		Version{activationTime: start(), acceptedTime: start()},
		Version{})
	require.Equal(t, []int{2, 1}, numbers(key.Live(start().Add(10000*time.Hour))))
}

func TestAcceptanceKeepsItsFirstInstant(t *testing.T) {
	t.Parallel()
	key := keyOf(Settings{}, Version{activationTime: start()}).Accept(1, start()).Accept(1, start().Add(time.Hour))
	require.Equal(t, start(), key.Version(1).AcceptedTime())
}

func TestActivationForwardRetiresAndBackwardStagesAgain(t *testing.T) {
	t.Parallel()
	key := keyOf(Settings{},
		Version{activationTime: start().Add(-time.Hour), acceptedTime: start().Add(-time.Hour)},
		Version{})
	forward := key.Activate(2, ByProvider, start()).Accept(2, start())
	require.Equal(t, 2, forward.Active(start()).Number())
	require.Equal(t, Retired, forward.State(forward.Version(1), start()))
	require.Equal(t, ByProvider, forward.Version(2).ActivatedBy())

	backward := forward.Activate(1, ByProvider, start().Add(time.Minute))
	require.Equal(t, 1, backward.Active(start().Add(time.Minute)).Number())
	require.Equal(t, 2, backward.Staged(start().Add(time.Minute)).Number())
	require.Zero(t, backward.Version(2).AcceptedTime())
	require.Equal(t, Active, forward.State(forward.Version(2), start()), "the snapshot before is left alone")
}

func TestRotationIsDueOnceTheNewestVersionIsOldAndAccepted(t *testing.T) {
	t.Parallel()
	settings := Settings{Registration: ByJWKS, AutoRotatePeriod: 24 * time.Hour}
	fresh := Version{creationTime: start(), activationTime: start()}
	accepted := fresh
	accepted.acceptedTime = start().Add(time.Minute)
	due := start().Add(24 * time.Hour)

	require.Equal(t, due, keyOf(settings, accepted).RotationDue(start()))
	require.Zero(t, keyOf(Settings{}, accepted).RotationDue(start()), "no period")
	require.Zero(t, keyOf(settings, fresh).RotationDue(start()), "not accepted")
	require.Zero(t, keyOf(settings, accepted, Version{}).RotationDue(start()), "one is staged")

	require.False(t, keyOf(settings, fresh).RotationWaitsForAcceptance(due.Add(-time.Second)))
	require.True(t, keyOf(settings, fresh).RotationWaitsForAcceptance(due))
	require.False(t, keyOf(settings, accepted).RotationWaitsForAcceptance(due))
}

func TestAScheduledActivationIsDue(t *testing.T) {
	t.Parallel()
	key := keyOf(Settings{Registration: ByJWKS, AutoRotatePeriod: time.Hour},
		Version{activationTime: start(), acceptedTime: start()},
		Version{activationTime: start().Add(time.Minute)})
	require.Equal(t, start().Add(time.Minute), key.NextDue(start()), "there may be something to do after it")
}

func TestNextDueIsTheEarliestOfExpiryAndRotation(t *testing.T) {
	t.Parallel()
	retired := Version{creationTime: start(), activationTime: start(), acceptedTime: start()}
	active := Version{creationTime: start().Add(time.Hour), activationTime: start().Add(time.Hour), acceptedTime: start().Add(time.Hour)}
	now := start().Add(2 * time.Hour)

	require.Zero(t, keyOf(Settings{RetireAfter: time.Hour}, retired).NextDue(now))
	require.Equal(t, start().Add(4*time.Hour), keyOf(Settings{RetireAfter: 3 * time.Hour}, retired, active).NextDue(now))
	require.Equal(t, start().Add(3*time.Hour),
		keyOf(Settings{RetireAfter: 3 * time.Hour, AutoRotatePeriod: 2 * time.Hour, Registration: ByJWKS}, retired, active).NextDue(now))
}
