package exchange

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/bcgov/vault-plugin-bcgov-jwt/backend/internal/keyring"
	"github.com/stretchr/testify/require"
)

func TestKeyUpdate_FirstAcceptanceIsStoredOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t, keyring.Manual)
	for range 5 {
		w.mustRead(1)
	}
	require.Equal(t, 1, w.stored())
	require.NotZero(t, w.current().Version(1).AcceptedTime())
	require.Len(t, w.provider.seen(), 5)
	require.Empty(t, w.log.String(), "no version was switched")
}

func TestKeyUpdate_ManualSwitchesForwardAndBackWithoutFailure(t *testing.T) {
	t.Parallel()
	w := newWorld(t, keyring.Manual)
	w.mustRead(1)
	w.rotate()
	w.mustRead(1)
	key := w.current()

	w.provider.accept(key.Version(2)) // the new key was pasted
	w.mustRead(2)
	require.Equal(t, 2, w.active())
	require.Equal(t, keyring.ByProvider, w.current().Version(2).ActivatedBy())
	require.NotZero(t, w.current().Version(2).AcceptedTime())
	require.Contains(t, w.log.String(), "key=myapi from=1 to=2 role=r request_id=id")
	writes := w.stored()
	w.mustRead(2)
	require.Equal(t, writes, w.stored(), "one stored switch")

	w.advance(2 * time.Minute)
	w.provider.accept(key.Version(1)) // the old one was pasted again
	w.mustRead(1)
	require.Equal(t, 1, w.active())
	require.Equal(t, 2, w.current().Staged(w.now()).Number())
}

func TestKeyUpdate_JWKSKeepsScheduleAndStopsRetirement(t *testing.T) {
	t.Parallel()
	w := newWorld(t, keyring.ByJWKS)
	w.mustRead(1)
	w.rotate() // active immediately, without a delay
	key := w.current()
	w.provider.accept(key.Version(1)) // its copy of the document is outdated
	w.mustRead(1)
	require.Equal(t, 2, w.active(), "the schedule stays")
	w.provider.seen()
	w.mustRead(1)
	require.Equal(t, []string{key.Version(1).KeyID()}, w.provider.seen(),
		"the accepted version is preferred")

	w.advance(12 * time.Second)
	w.provider.accept(key.Version(1), key.Version(2)) // it has fetched the document again
	w.mustRead(2)
	require.NotZero(t, w.current().Version(2).AcceptedTime())

	w.advance(2 * time.Minute)
	w.provider.accept(key.Version(1))
	w.mustRead(1)
	require.Zero(t, w.current().Version(2).AcceptedTime(),
		"a rejection stops the retirement of the predecessor")
	require.Empty(t, w.log.String(), "no version was switched")
}

// The provider's copy of the document has the second version but not the third, which the schedule
// made active meanwhile: the second is accepted all the same, so that the first may expire.
func TestKeyUpdate_JWKSVersionIsNotPassedOverBySuccessor(t *testing.T) {
	t.Parallel()
	w := newWorld(t, keyring.ByJWKS)
	w.mustRead(1)
	w.rotate()
	w.rotate()
	key := w.current()
	w.provider.accept(key.Version(1), key.Version(2))
	w.mustRead(2)
	require.NotZero(t, w.current().Version(2).AcceptedTime())
	require.NotZero(t, w.current().ExpireTime(w.current().Version(1), w.now()))
	require.Zero(t, w.current().ExpireTime(w.current().Version(2), w.now()))
}

// A staged version does not sign before its time while an older one works.
func TestFallback_JWKSTriesOlderVersionsBeforeAStagedOne(t *testing.T) {
	t.Parallel()
	w := newWorld(t, keyring.ByJWKS)
	w.mustRead(1)
	w.rotate()
	w.delayActivation(time.Hour)
	w.rotate()
	key := w.current()
	require.Equal(t, 2, w.active())
	w.provider.seen()
	w.provider.accept(key.Version(1), key.Version(3))
	w.mustRead(1)
	require.Equal(t, []string{key.Version(2).KeyID(), key.Version(1).KeyID()}, w.provider.seen())
}

// The first version is preferred, because the provider had not fetched the second; now it knows no
// longer the first.
func TestFallback_JWKSTriesActiveVersionBeforeAStagedOne(t *testing.T) {
	t.Parallel()
	w := newWorld(t, keyring.ByJWKS)
	w.mustRead(1)
	w.rotate()
	w.provider.accept(w.current().Version(1))
	w.mustRead(1)
	w.delayActivation(time.Hour)
	w.rotate()
	key := w.current()
	require.Equal(t, 2, w.active())
	w.provider.seen()
	w.provider.accept(key.Version(2), key.Version(3))
	w.mustRead(2)
	require.Equal(t, []string{key.Version(1).KeyID(), key.Version(2).KeyID()}, w.provider.seen())
	require.NotZero(t, w.current().Version(2).AcceptedTime())
}

func TestKeyUpdate_ConcurrentChangeWins(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(w *world) *keyring.Key{
		"version destroyed": func(w *world) *keyring.Key { return w.key.Destroy(2) },
		"activated by the operator": func(w *world) *keyring.Key {
			return w.key.Activate(2, keyring.ByOperator, w.now())
		},
		"acceptance withdrawn": func(w *world) *keyring.Key { return w.key.ClearAccepted(1) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, keyring.Manual)
			w.mustRead(1)
			w.rotate()
			key := w.current()
			w.provider.accept(key.Version(2))
			var once sync.Once
			var wanted *keyring.Key
			w.provider.hold = func() {
				once.Do(func() {
					w.change(func(*keyring.Key) *keyring.Key {
						wanted = change(w)
						return wanted
					})
				})
			}
			token, err := w.readWith(key)
			require.NoError(t, err)
			require.Equal(t, key.Version(2).KeyID(), token.KeyID)
			require.Same(t, wanted, w.current(), "the update did not undo it")
		})
	}
}

func TestKeyUpdate_OutlivesReaderForFiveSeconds(t *testing.T) {
	t.Parallel()
	inVirtualTime(t, func(t *testing.T, w *world) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		stored := false
		change := func(ctx context.Context, _ func(*keyring.Key) *keyring.Key) error {
			cancel()
			require.NoError(t, ctx.Err())
			deadline, limited := ctx.Deadline()
			require.True(t, limited)
			require.Equal(t, 5*time.Second, time.Until(deadline))
			stored = true
			return nil
		}
		_, err := w.exchange.Token(ctx, w.client, Request{Key: w.current(), Change: change})
		require.NoError(t, err)
		require.True(t, stored)
	})
}

func TestKeyUpdate_RecreatedKeyIsUnchanged(t *testing.T) {
	t.Parallel()
	w := newWorld(t, keyring.Manual)
	old := w.current()
	w.key = newWorld(t, keyring.Manual).key
	_, err := w.readWith(old)
	require.NoError(t, err)
	require.Zero(t, w.stored())
}

func TestKeyUpdate_AcceptedVersionIsPreferredIfNotStored(t *testing.T) {
	t.Parallel()
	w := newWorld(t, keyring.Manual)
	w.mustRead(1)
	w.rotate()
	w.storageErr = context.DeadlineExceeded
	key := w.current()
	w.provider.accept(key.Version(2))
	w.mustRead(2)
	w.provider.seen()
	for range 3 {
		w.mustRead(2)
	}
	require.Len(t, w.provider.seen(), 3, "the rejected version is not tried again")
	require.Equal(t, 1, w.active())
	require.Contains(t, w.log.String(), "could not be stored")
}

func TestHistory_BeginsAnewWithAnotherClient(t *testing.T) {
	t.Parallel()
	w := newWorld(t, keyring.Manual)
	w.storageErr = errors.New("storage is down") // so that only memory knows
	key := w.current()
	rotated, err := key.Rotate(generate(t), w.now())
	require.NoError(t, err)
	w.provider.accept(rotated.Version(2))
	_, err = w.readWith(rotated)
	require.NoError(t, err)
	require.Equal(t, 2, w.exchange.Signing(rotated).Number())

	settings := rotated.Settings()
	settings.ClientID = "another"
	another, err := rotated.WithSettings(settings)
	require.NoError(t, err)
	require.Equal(t, 1, w.exchange.Signing(another).Number(), "what one client's provider accepted")
	require.Equal(t, 1, w.exchange.Signing(rotated).Number(), "and back again")
}

func TestHistory_PreferenceEndsWithItsReasons(t *testing.T) {
	t.Parallel()
	w := newWorld(t, keyring.ByJWKS)
	w.rotate()
	key, h, now := w.current(), &history{}, w.now()
	require.Equal(t, 2, h.next(key, now).Number(), "the active one")
	h.accept(1, 2, true, now)
	require.Equal(t, 1, h.next(key, now.Add(11*time.Second-1)).Number())
	again := now.Add(11 * time.Second)
	require.Equal(t, 2, h.next(key, again).Number(), "time to try it again")
	require.Equal(t, 1, h.next(key, again).Number(), "but not for every reader at once")
	require.Equal(t, 2, h.next(key, again.Add(11*time.Second)).Number())
	w.rotate()
	require.Equal(t, 3, h.next(w.current(), w.now()).Number(), "another version is active")
	h.accept(2, 2, false, now)
	require.Equal(t, 2, h.next(key, now).Number(), "the active one was accepted")
}

func TestHistory_AcceptanceIsRecentForAMinute(t *testing.T) {
	t.Parallel()
	h, now := &history{}, time.Now()
	require.False(t, h.acceptedRecently(now), "none")
	h.accept(1, 1, false, now)
	require.True(t, h.acceptedRecently(now.Add(time.Minute-1)))
	require.False(t, h.acceptedRecently(now.Add(time.Minute)))
}

func TestHistory_NewerVersionIsStoredAtOnceOthersOnceAMinute(t *testing.T) {
	t.Parallel()
	h, now := &history{}, time.Now()
	require.True(t, h.mayStore(1, now))
	require.False(t, h.mayStore(1, now))
	require.True(t, h.mayStore(2, now), "a rotation")
	require.False(t, h.mayStore(1, now.Add(time.Minute-1)))
	require.True(t, h.mayStore(1, now.Add(time.Minute)))
	require.False(t, h.mayStore(2, now.Add(time.Minute)), "it is not new anymore")
}

// TestKeyUpdate_ReadOnlyNodeForwardsOneReadAMinute is a standby that serves reads: what it learns
// must come to be stored by a node that can write.
func TestKeyUpdate_ReadOnlyNodeForwardsOneReadAMinute(t *testing.T) {
	t.Parallel()
	w := newWorld(t, keyring.Manual)
	w.storageErr = ErrReadOnly
	require.False(t, w.exchange.ShouldForward(w.current()), "nothing learned yet")
	for range 3 {
		for range 5 {
			w.mustRead(1)
		}
		require.True(t, w.exchange.ShouldForward(w.current()))
		require.False(t, w.exchange.ShouldForward(w.current()), "one read is enough")
		w.mustRead(1)
		require.False(t, w.exchange.ShouldForward(w.current()), "within the minute")
		w.advance(61 * time.Second)
	}
	require.NotContains(t, w.log.String(), "could not be stored")

	w.storageErr = nil
	w.advance(61 * time.Second)
	w.mustRead(1)
	require.Equal(t, 1, w.stored())
	require.False(t, w.exchange.ShouldForward(w.current()))
}
