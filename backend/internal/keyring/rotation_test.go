package keyring

import (
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/stretchr/testify/require"
)

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

func TestRotation_ManualStagesVersionWithoutDate(t *testing.T) {
	t.Parallel()
	before := rotatable(t, Settings{Registration: Manual, ActivationDelay: time.Minute})
	key := rotate(t, before, start().Add(time.Hour))
	require.Len(t, before.versions, 1, "the original is unchanged")
	require.Equal(t, 2, key.Staged(start().Add(1000*time.Hour)).Number())
	require.Equal(t, 1, key.Active(start().Add(1000*time.Hour)).Number())
	require.NotEqual(t, key.versions[0].KeyID(), key.versions[1].KeyID())
}

func TestRotation_JWKSActivatesAfterDelay(t *testing.T) {
	t.Parallel()
	settings := Settings{Registration: ByJWKS, ActivationDelay: 5 * time.Minute}
	key := rotate(t, rotatable(t, settings), start())
	require.Equal(t, BySchedule, key.Version(2).ActivatedBy())
	require.Equal(t, 1, key.Active(start().Add(5*time.Minute-time.Second)).Number())
	require.Equal(t, 2, key.Active(start().Add(5*time.Minute)).Number())
}

func TestRotation_JWKSNeverActivatesBeforePredecessor(t *testing.T) {
	t.Parallel()
	settings := Settings{Registration: ByJWKS, ActivationDelay: time.Hour}
	key := rotate(t, rotatable(t, settings), start())
	sooner := key.Settings()
	sooner.ActivationDelay = 0
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
	_, err := key.Rotate(start())
	require.ErrorIs(t, err, ErrTooManyVersions)
	rotate(t, key.Destroy(2), start())
}

func TestRotation_DueOnceNewestIsOldAndAccepted(t *testing.T) {
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
