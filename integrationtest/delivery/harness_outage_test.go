package delivery

import (
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bcgov/vault-plugin-bcgov-jwt/integrationtest/harness"
)

// outage is a way in which a provider is unavailable in the middle of a token's lifetime.
type outage struct {
	name             string
	begin            func(*gate)
	readers          int
	lifetime, margin time.Duration
	minRemaining     time.Duration // of a token that is still served
	status           int           // of the error that a reader receives after that
	text             string
}

func (o outage) run(t *testing.T, m *harness.Mount) {
	t.Helper()
	p, g := gatedKeycloak(t)
	defer g.open() // before the crowds end, which wait for their reads
	m.Write(t, "config", p.Config)
	newRole(t, m, p, "myapi", o.lifetime, map[string]any{
		"delivery": "shared", "refresh_margin": o.margin.Seconds(),
	})
	followers, stopFollowers := startCrowd(t, m, "myapi", o.readers, o.lifetime/8, followTTL)
	followers.awaitAll(t, o.readers, o.lifetime, "every client has the token", succeeded)
	first := followers.filter(succeeded)[0]
	expiresAt := first.expiresAt
	// Keycloak returns the remaining lifetime of a token, and so a second less if it was slow: a
	// tenth of that is the bound.
	minRemaining := min(5*time.Second, expiresAt.Sub(first.issuedAt)/10)
	require.InDelta(t, o.minRemaining.Seconds(), minRemaining.Seconds(), 0.2)
	o.minRemaining = minRemaining
	old := tokensOf(followers.filter(succeeded))
	require.Len(t, old, 1)
	o.begin(g)

	// Once the followers have noticed the outage, others read all the time.
	warned := func(r reading) bool { return slices.ContainsFunc(r.warnings, isOutageWarning) }
	followers.awaitAll(t, o.readers, o.lifetime, "every client is warned of the outage", warned)
	others, stopOthers := startCrowd(t, m, "myapi", 10, time.Second, everySecond)
	others.awaitAll(t, 1, o.lifetime, "the token is no longer served in the end", failed)
	stopFollowers()
	harness.Sleep(t, time.Until(expiresAt))
	g.open()
	opened := time.Now()
	isNew := func(r reading) bool { return r.status == http.StatusOK && !old[r.tokenJTI] }
	others.awaitAll(t, 10, time.Minute, "every client has a new token", isNew)
	stopOthers()

	byEnd := func(a, b reading) int { return a.ended.Compare(b.ended) }
	firstNew := slices.MinFunc(others.filter(isNew), byEnd)
	require.Less(t, firstNew.ended.Sub(opened), 5*time.Second, "until tokens are issued again")
	during := others.filter(func(r reading) bool { return !isNew(r) && r.begun.Before(opened) })
	o.requireServedWhileValid(t, expiresAt, append(followers.filter(all), during...))
	o.requireNoStampede(t, expiresAt, followers)
}

func isOutageWarning(text string) bool {
	return strings.HasPrefix(text,
		"The token could not be refreshed yet; it is valid until expires_at: token request at ")
}

// requireServedWhileValid allows for the missing fractions of expires_at, and for nothing else: a
// read is answered at some time between its start and its end.
func (o outage) requireServedWhileValid(t *testing.T, expiresAt time.Time, readings []reading) {
	t.Helper()
	lastServed := expiresAt.Add(-o.minRemaining)
	for _, r := range readings {
		if r.status == http.StatusOK {
			require.True(t, r.begun.Before(lastServed.Add(time.Second)),
				"served with %s left", expiresAt.Sub(r.begun))
			continue
		}
		require.True(t, r.ended.After(lastServed),
			"%d %s with %s left", r.status, r.errorText, expiresAt.Sub(r.ended))
		require.Equal(t, o.status, r.status, r.errorText)
		harness.RequireTexts(t, r.errorText, "token request at ", o.text)
	}
}

// requireNoStampede counts the reads between when a new token was due and when the old one was no
// longer served.
func (o outage) requireNoStampede(t *testing.T, expiresAt time.Time, followers *crowd) {
	t.Helper()
	from, to := expiresAt.Add(-o.margin-o.minRemaining), expiresAt.Add(-o.minRemaining)
	reads := followers.filter(func(r reading) bool {
		return r.begun.After(from) && r.begun.Before(to)
	})
	perSecond := float64(len(reads)) / to.Sub(from).Seconds()
	peak := peakReads(reads, 10*time.Second) / 10
	t.Logf("%.0f reads a second, and up to %.0f over 10 s", perSecond, peak)
	require.Less(t, perSecond, 150.0)
}

// peakReads returns the highest number of readings that began within such a time.
func peakReads(readings []reading, within time.Duration) float64 {
	slices.SortFunc(readings, func(a, b reading) int { return a.begun.Compare(b.begun) })
	most, first := 0, 0
	for i, r := range readings {
		for r.begun.Sub(readings[first].begun) > within {
			first++
		}
		most = max(most, i-first+1)
	}
	return float64(most)
}
