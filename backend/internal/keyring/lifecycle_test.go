package keyring

import (
	"slices"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/stretchr/testify/require"
)

// keyOf returns a key without key pairs, for tests of instants alone.
func keyOf(settings Settings, versions ...versionRecord) *Key {
	key := &Key{name: "myapi", id: "ID", keyType: ED25519, settings: settings}
	for i := range versions {
		versions[i].Number = i + 1
		key.versions = append(key.versions, &Version{record: versions[i]})
	}
	key.lastNumber = len(versions)
	return key
}

func numbers(versions []*Version) []int {
	found := []int{}
	for _, v := range versions {
		found = append(found, v.Number())
	}
	return found
}

func TestLifecycle_RetiredVersionExpiresOnceActiveOneIsAccepted(t *testing.T) {
	t.Parallel()
	hour := time.Hour
	key := keyOf(Settings{OverlapPeriod: hour},
		versionRecord{ActivationTime: start().Add(-10 * hour), AcceptedTime: start().Add(-9 * hour)},
		versionRecord{ActivationTime: start().Add(-5 * hour)})

	require.Zero(t, key.ExpireTime(key.Version(1), start()), "the provider knows no other")
	require.Equal(t, []int{2, 1}, numbers(key.Live(start().Add(1000*hour))))

	key = key.Accept(2, start())
	require.Equal(t, start().Add(hour), key.ExpireTime(key.Version(1), start()))
	require.Equal(t, []int{2, 1}, numbers(key.Live(start().Add(hour-time.Second))))
	require.Equal(t, []int{2}, numbers(key.Live(start().Add(hour))))
	require.Same(t, key, key.Expire(start()), "nothing to do, nothing to write")
	require.Equal(t, []int{2}, numbers(key.Expire(start().Add(hour)).versions))

	cleared := key.ClearAccepted(2)
	require.Zero(t, cleared.ExpireTime(cleared.Version(1), start()), "a rejection stops it")
}

func TestLifecycle_LaterRotationDoesNotPostponeExpiry(t *testing.T) {
	t.Parallel()
	hour := time.Hour
	key := keyOf(Settings{OverlapPeriod: 3 * hour},
		versionRecord{ActivationTime: start(), AcceptedTime: start()},
		versionRecord{ActivationTime: start().Add(hour), AcceptedTime: start().Add(hour)},
		versionRecord{ActivationTime: start().Add(2 * hour)})
	now := start().Add(2 * hour)
	require.Equal(t, start().Add(4*hour), key.ExpireTime(key.Version(1), now),
		"its successor was accepted")
	require.Zero(t, key.ExpireTime(key.Version(2), now), "the newest accepted one stays")
	key = key.Accept(3, now)
	require.Equal(t, start().Add(4*hour), key.ExpireTime(key.Version(1), now))
	require.Equal(t, start().Add(5*hour), key.ExpireTime(key.Version(2), now))
}

func TestLifecycle_ActiveAndStagedVersionsNeverExpire(t *testing.T) {
	t.Parallel()
	key := keyOf(Settings{},
		versionRecord{ActivationTime: start(), AcceptedTime: start()},
		versionRecord{})
	require.Equal(t, []int{2, 1}, numbers(key.Live(start().Add(10000*time.Hour))))
}

func TestLifecycle_AcceptanceKeepsFirstInstant(t *testing.T) {
	t.Parallel()
	key := keyOf(Settings{}, versionRecord{ActivationTime: start()})
	key = key.Accept(1, start()).Accept(1, start().Add(time.Hour))
	require.Equal(t, start(), key.Version(1).AcceptedTime())
}

func TestLifecycle_ActivationRetiresOlderAndStagesNewer(t *testing.T) {
	t.Parallel()
	key := keyOf(Settings{},
		versionRecord{ActivationTime: start().Add(-time.Hour), AcceptedTime: start().Add(-time.Hour)},
		versionRecord{})
	forward := key.Activate(2, ByProvider, start()).Accept(2, start())
	require.Equal(t, 2, forward.Active(start()).Number())
	require.Equal(t, Retired, forward.State(forward.Version(1), start()))
	require.Equal(t, ByProvider, forward.Version(2).ActivatedBy())

	backward := forward.Activate(1, ByProvider, start().Add(time.Minute))
	require.Equal(t, 1, backward.Active(start().Add(time.Minute)).Number())
	require.Equal(t, 2, backward.Staged(start().Add(time.Minute)).Number())
	require.Zero(t, backward.Version(2).AcceptedTime())
	require.Equal(t, Active, forward.State(forward.Version(2), start()),
		"the original is unchanged")
}

func TestLifecycle_NextDueIsEarliestOfExpiryAndRotation(t *testing.T) {
	t.Parallel()
	retired := versionRecord{CreationTime: start(), ActivationTime: start(), AcceptedTime: start()}
	later := start().Add(time.Hour)
	active := versionRecord{CreationTime: later, ActivationTime: later, AcceptedTime: later}
	now := start().Add(2 * time.Hour)

	require.Zero(t, keyOf(Settings{OverlapPeriod: time.Hour}, retired).NextDue(now))
	settings := Settings{OverlapPeriod: 3 * time.Hour}
	require.Equal(t, start().Add(4*time.Hour), keyOf(settings, retired, active).NextDue(now))
	settings.AutoRotatePeriod, settings.Registration = 2*time.Hour, ByJWKS
	require.Equal(t, start().Add(3*time.Hour), keyOf(settings, retired, active).NextDue(now))
}

func TestLifecycle_StateFollowsStoredInstants(t *testing.T) {
	t.Parallel()
	at := func(offset time.Duration) time.Time { return start().Add(offset) }
	never := time.Time{}
	for name, test := range map[string]struct {
		activations []time.Time
		states      []State // of versions 1, 2, …
	}{
		"one version": {
			[]time.Time{at(-time.Hour)},
			[]State{Active},
		},
		"activated at this instant": {
			[]time.Time{at(0)},
			[]State{Active},
		},
		"newer without a date is staged": {
			[]time.Time{at(-time.Hour), never},
			[]State{Active, Staged},
		},
		"newer in the future is staged": {
			[]time.Time{at(-time.Hour), at(time.Second)},
			[]State{Active, Staged},
		},
		"newer whose time has come is active": {
			[]time.Time{at(-time.Hour), at(-time.Second)},
			[]State{Retired, Active},
		},
		"newest whose time has come is active": {
			[]time.Time{at(-time.Hour), at(-time.Minute), never},
			[]State{Retired, Active, Staged},
		},
		"older one reactivated": {
			[]time.Time{at(-time.Hour), never, never},
			[]State{Active, Staged, Staged},
		},
		"clock set back": {
			[]time.Time{at(time.Hour), at(2 * time.Hour)},
			[]State{Active, Staged},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			key := &Key{}
			for i, activation := range test.activations {
				v := &Version{record: versionRecord{Number: i + 1, ActivationTime: activation}}
				key.versions = append(key.versions, v)
			}
			for i, v := range key.versions {
				require.Equal(t, test.states[i], key.State(v, start()), "version %d", v.Number())
			}
			newest := key.versions[len(key.versions)-1]
			if key.State(newest, start()) == Staged {
				require.Equal(t, newest, key.Staged(start()))
			} else {
				require.Nil(t, key.Staged(start()))
			}
		})
	}
}

func TestLifecycle_NextDueIncludesScheduledActivation(t *testing.T) {
	t.Parallel()
	key := keyOf(Settings{Registration: ByJWKS, AutoRotatePeriod: time.Hour},
		versionRecord{ActivationTime: start(), AcceptedTime: start()},
		versionRecord{ActivationTime: start().Add(time.Minute)})
	require.Equal(t, start().Add(time.Minute), key.NextDue(start()),
		"there may be something to do after it")
}

func rotatable(t *testing.T, settings Settings) *Key {
	t.Helper()
	settings.Algorithm, settings.CommonName = jose.EdDSA, "myapi"
	key, err := New(generate(t, ED25519), "myapi", settings, start())
	require.NoError(t, err)
	return key
}

func rotate(t *testing.T, key *Key, now time.Time) *Key {
	t.Helper()
	rotated, err := key.Rotate(generate(t, ED25519), now)
	require.NoError(t, err)
	return rotated
}

func TestRotation_ManualStagesVersionWithoutDate(t *testing.T) {
	t.Parallel()
	before := rotatable(t, Settings{Registration: Manual, PrepublishPeriod: time.Minute})
	key := rotate(t, before, start().Add(time.Hour))
	require.Len(t, before.versions, 1, "the original is unchanged")
	require.Equal(t, 2, key.Staged(start().Add(1000*time.Hour)).Number())
	require.Equal(t, 1, key.Active(start().Add(1000*time.Hour)).Number())
	require.NotEqual(t, key.versions[0].KeyID(), key.versions[1].KeyID())
}

func TestRotation_JWKSActivatesAfterDelay(t *testing.T) {
	t.Parallel()
	settings := Settings{Registration: ByJWKS, PrepublishPeriod: 5 * time.Minute}
	key := rotate(t, rotatable(t, settings), start())
	require.Equal(t, BySchedule, key.Version(2).ActivatedBy())
	require.Equal(t, 1, key.Active(start().Add(5*time.Minute-time.Second)).Number())
	require.Equal(t, 2, key.Active(start().Add(5*time.Minute)).Number())
}

func TestRotation_JWKSNeverActivatesBeforePredecessor(t *testing.T) {
	t.Parallel()
	settings := Settings{Registration: ByJWKS, PrepublishPeriod: time.Hour}
	key := rotate(t, rotatable(t, settings), start())
	sooner := key.Settings()
	sooner.PrepublishPeriod = 0
	key, err := key.WithSettings(sooner)
	require.NoError(t, err)
	key = rotate(t, key, start().Add(time.Minute))
	require.Equal(t, key.Version(2).ActivationTime(), key.Version(3).ActivationTime())
}

func TestRotation_NeverReusesVersionNumbers(t *testing.T) {
	t.Parallel()
	key := rotate(t, rotatable(t, Settings{}), start()).Destroy(2)
	require.Nil(t, key.Version(2))
	require.Equal(t, 3, rotate(t, key, start()).Staged(start()).Number())
}

func TestRotation_EleventhVersionIsAnError(t *testing.T) {
	t.Parallel()
	key := rotatable(t, Settings{})
	for range MaxVersions - 1 {
		key = rotate(t, key, start())
	}
	_, err := key.Rotate(generate(t, ED25519), start())
	require.ErrorIs(t, err, errTooManyVersions)
	rotate(t, key.Destroy(2), start())
}

func TestRotation_DueOnceNewestIsOldAndAccepted(t *testing.T) {
	t.Parallel()
	settings := Settings{Registration: ByJWKS, AutoRotatePeriod: 24 * time.Hour}
	fresh := versionRecord{CreationTime: start(), ActivationTime: start()}
	accepted := fresh
	accepted.AcceptedTime = start().Add(time.Minute)
	due := start().Add(24 * time.Hour)

	require.Equal(t, due, keyOf(settings, accepted).RotationDue(start()))
	require.Zero(t, keyOf(Settings{}, accepted).RotationDue(start()), "no period")
	require.Zero(t, keyOf(settings, fresh).RotationDue(start()), "not accepted")
	require.Zero(t, keyOf(settings, accepted, versionRecord{}).RotationDue(start()), "one is staged")

	require.False(t, keyOf(settings, fresh).RotationWaitsForAcceptance(due.Add(-time.Second)))
	require.True(t, keyOf(settings, fresh).RotationWaitsForAcceptance(due))
	require.False(t, keyOf(settings, accepted).RotationWaitsForAcceptance(due))
}

func TestRotation_WaitsForRoomBelowMaxVersions(t *testing.T) {
	t.Parallel()
	settings := Settings{Registration: ByJWKS, AutoRotatePeriod: 24 * time.Hour}
	accepted := versionRecord{CreationTime: start(), ActivationTime: start(), AcceptedTime: start()}
	due := start().Add(24 * time.Hour)
	roomy := keyOf(settings, slices.Repeat([]versionRecord{accepted}, MaxVersions-1)...)
	full := keyOf(settings, slices.Repeat([]versionRecord{accepted}, MaxVersions)...)

	require.Equal(t, due, roomy.RotationDue(due))
	require.False(t, roomy.RotationWaitsForRoom(due))
	require.Zero(t, full.RotationDue(due))
	require.True(t, full.RotationWaitsForRoom(due))
	require.False(t, full.RotationWaitsForRoom(due.Add(-time.Second)), "not due yet")
}
