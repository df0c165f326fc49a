package exchange

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/stretchr/testify/require"

	"github.com/bcgov/vault-plugin-bcgov-jwt/backend/internal/tokenendpoint"
)

func TestStatistics_CountOutcomes(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)
	e := New(func() time.Time { return at }, hclog.NewNullLogger())
	require.Equal(t, Statistics{}, e.Statistics())

	e.statistics.count(nil, at)
	require.Equal(t, Statistics{Exchanges: 1}, e.Statistics())
	for reason, name := range map[tokenendpoint.Reason]string{
		tokenendpoint.UnknownKey: "refused", tokenendpoint.HostNotListed: "blocked",
		tokenendpoint.BadGateway: "unavailable", tokenendpoint.NotJSON: "malformed",
		tokenendpoint.Timeout: "timed out",
	} {
		before := e.Statistics()
		at = at.Add(time.Second)
		e.statistics.count(&tokenendpoint.Error{Reason: reason}, at)
		want := Statistics{before.Exchanges + 1, before.Failures + 1, at, name}
		require.Equal(t, want, e.Statistics())
	}
	before := e.Statistics()
	e.statistics.count(&tokenendpoint.Error{Reason: tokenendpoint.Canceled}, at)
	require.Equal(t, before, e.Statistics(), "a disconnect says nothing about the provider")
	e.statistics.count(errors.New("an internal error"), at)
	require.Equal(t, "internal", e.Statistics().LastFailureKind)
}

func TestStatistics_CountFailedExchanges(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	_, err := f.Token(t.Context(), f.client, f.request("nope"))
	var failure *tokenendpoint.Error
	require.ErrorAs(t, err, &failure)
	require.Equal(t, tokenendpoint.KindRejected, failure.Reason.Kind())
	require.Equal(t, "invalid_scope", failure.Code)
	require.Equal(t, "refused", f.Statistics().LastFailureKind)
	require.Equal(t, int64(1), f.Statistics().Failures)

	gone, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = f.Token(gone, f.client, f.request())
	require.ErrorIs(t, err, context.Canceled)
	require.Equal(t, int64(1), f.Statistics().Exchanges)
}
