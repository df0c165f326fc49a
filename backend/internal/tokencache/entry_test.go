package tokencache

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bcgov/vault-plugin-bcgov-jwt/backend/internal/exchange"
	"github.com/bcgov/vault-plugin-bcgov-jwt/backend/internal/tokenendpoint"
)

func entryOf(life, margin time.Duration) *entry[string] {
	token := &tokenendpoint.Token{RequestedAt: time.Unix(0, 0), Lifetime: life}
	return &entry[string]{token: &exchange.Token{Token: token}, margin: margin}
}

func TestEntry_WithoutTokenIsDueAndNotUsable(t *testing.T) {
	t.Parallel()
	empty := &entry[string]{}
	require.True(t, empty.due(time.Now()))
	require.False(t, empty.usable(time.Now()))
}

func TestEntry_DueAndUsableTimes(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ life, margin, due, unusable time.Duration }{
		{24 * time.Hour, time.Minute, 24*time.Hour - 65*time.Second, 24*time.Hour - 5*time.Second},
		{5 * time.Minute, time.Minute, 235 * time.Second, 295 * time.Second},
		{50 * time.Second, 10 * time.Second, 35 * time.Second, 45 * time.Second},
		{49 * time.Second, 10 * time.Second, 34100 * time.Millisecond, 44100 * time.Millisecond},
		{10 * time.Second, 5 * time.Second, 4 * time.Second, 9 * time.Second},
		{time.Second, time.Second, 0, 900 * time.Millisecond},
	} {
		e := entryOf(test.life, test.margin)
		at := func(age time.Duration) time.Time { return time.Unix(0, 0).Add(age) }
		if test.due > 0 {
			require.False(t, e.due(at(test.due-1)), "%+v", test)
		}
		require.True(t, e.due(at(test.due)), "%+v", test)
		require.True(t, e.usable(at(test.unusable-1)), "%+v", test)
		require.False(t, e.usable(at(test.unusable)), "%+v", test)
	}
}

func TestEntry_SharedTTL(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		age    time.Duration
		failed bool
		ttl    time.Duration
	}{
		{0, false, 240 * time.Second},
		{time.Millisecond, false, 239 * time.Second},
		{235 * time.Second, false, 5 * time.Second},
		{240 * time.Second, false, time.Second},
		{299 * time.Second, false, time.Second},
		{235 * time.Second, true, 10 * time.Second},
		{280 * time.Second, true, 10 * time.Second},
		{280*time.Second + 1, true, 9 * time.Second},
		{290 * time.Second, true, 5 * time.Second},
		{297 * time.Second, true, time.Second},
		{299 * time.Second, true, time.Second},
	} {
		e := entryOf(5*time.Minute, time.Minute)
		if test.failed {
			e.failure = errProvider
		}
		shared := e.share(time.Unix(0, 0).Add(test.age))
		require.Equal(t, test.ttl, shared.TTL, "%+v", test)
		require.Equal(t, e.failure, shared.Failure)
	}
}

func TestEntry_FinishNotifiesAllWaitingReaders(t *testing.T) {
	t.Parallel()
	e := entryOf(5*time.Minute, time.Minute)
	half := func(life time.Duration) time.Duration { return life / 2 }
	old := e.token
	failed := &refresh{done: make(chan struct{})}
	e.refresh = failed
	e.finish(nil, errProvider, half)
	<-failed.done
	require.Equal(t, errProvider, failed.err)
	require.Equal(t, errProvider, e.failure)
	require.Same(t, old, e.token, "kept")
	require.Equal(t, time.Minute, e.margin)
	require.Nil(t, e.refresh)

	succeeded := &refresh{done: make(chan struct{})}
	e.refresh = succeeded
	e.finish(entryOf(time.Minute, 0).token, nil, half)
	<-succeeded.done
	require.NoError(t, succeeded.err)
	require.NoError(t, e.failure)
	require.NotSame(t, old, e.token)
	require.Equal(t, 30*time.Second, e.margin, "the new token's")
}
