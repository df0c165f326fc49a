package soak

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/stretchr/testify/require"

	"github.com/bcgov/vault-plugin-bcgov-jwt/integrationtest/harness"
)

const pause = 500 * time.Millisecond // between two reads of one reader

// reader reads one thing through one node, without retries.
type reader struct {
	delivery string
	m        *harness.Mount
	ask      ask
	reads    []read // complete when the reader has been stopped
}

// ask reads, and checks the answer.
type ask func(ctx context.Context, m *harness.Mount, begun time.Time) error

type read struct {
	begun, ended time.Time
	err          error
}

// window is a time in which reads may fail.
type window struct{ begin, end time.Time }

func (r read) overlaps(windows []window) bool {
	return slices.ContainsFunc(windows, func(w window) bool {
		return r.begun.Before(w.end) && r.ended.After(w.begin)
	})
}

func (s *soak) newReaders(m *harness.Mount) []*reader {
	readers := []*reader{
		{delivery: "assertion", m: m, ask: s.askAssertion},
		{delivery: "check", m: m, ask: askCheck},
		{delivery: "jwks", m: m, ask: s.askKeySet},
	}
	for _, delivery := range deliveries() {
		for key, clientID := range s.clients {
			ask := s.askCreds(key+"-"+delivery, clientID)
			readers = append(readers, &reader{delivery: delivery, m: m, ask: ask})
		}
	}
	return readers
}

func deliveries() []string { return []string{"leased", "unleased", "shared"} }

func get(ctx context.Context, m *harness.Mount, path string) (data map[string]any, err error) {
	got, err := m.Request(ctx, http.MethodGet, path, nil)
	if err == nil && got.Status != http.StatusOK {
		err = fmt.Errorf("%d %s", got.Status, got.ErrorText())
	}
	return got.Data, err
}

func (s *soak) askCreds(role, clientID string) ask {
	return func(ctx context.Context, m *harness.Mount, begun time.Time) error {
		creds, err := get(ctx, m, "creds/"+role)
		if err != nil {
			return err
		}
		return s.p.check(fmt.Sprint(creds["access_token"]), clientID, begun)
	}
}

func (s *soak) askAssertion(ctx context.Context, m *harness.Mount, begun time.Time) error {
	assertion, err := get(ctx, m, "assertion/manual-unleased")
	if err != nil {
		return err
	}
	accessToken, err := s.p.exchange(assertion)
	if err != nil {
		return err
	}
	return s.p.check(accessToken, s.clients["manual"], begun)
}

func askCheck(ctx context.Context, m *harness.Mount, _ time.Time) error {
	check, err := get(ctx, m, "check/manual-leased")
	if err == nil && check["ok"] != true {
		err = fmt.Errorf("%v: %v", check["failed_step"], check["error"])
	}
	return err
}

func (s *soak) askKeySet(ctx context.Context, m *harness.Mount, _ time.Time) error {
	path := strings.TrimPrefix(s.keySetPath, "/v1/")
	resp, err := m.Client.Logical().ReadRawWithContext(ctx, path)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	var set jose.JSONWebKeySet
	err = resp.DecodeJSON(&set)
	isSecret := func(key jose.JSONWebKey) bool { return !key.Valid() || !key.IsPublic() }
	if err != nil || len(set.Keys) == 0 || slices.ContainsFunc(set.Keys, isSecret) {
		return wrong("not a set of public keys")
	}
	return nil
}

func (r *reader) read(ctx context.Context) read {
	begun := time.Now()
	err := r.ask(ctx, r.m, begun)
	return read{begun, time.Now(), err}
}

// startReaders lets all read until stop is called; a read that has begun is completed.
func (s *soak) startReaders(t *testing.T) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	for _, r := range s.readers {
		running.Go(func() {
			for ctx.Err() == nil {
				r.reads = append(r.reads, r.read(context.WithoutCancel(ctx)))
				time.Sleep(pause)
			}
		})
	}
	stop = func() {
		cancel()
		running.Wait()
	}
	t.Cleanup(stop)
	return stop
}

// settle waits, for whatever time, until everything is answered again.
func (s *soak) settle(t *testing.T) {
	t.Helper()
	for _, r := range s.readers {
		var last error
		require.Eventually(t, func() bool {
			last = r.read(t.Context()).err
			return last == nil || errors.As(last, new(wrong))
		}, 2*time.Minute, 20*time.Millisecond, "%s through %s", r.delivery, r.m.Client.Address())
		require.NoError(t, last, "%s through %s", r.delivery, r.m.Client.Address())
	}
}

// requireRight requires that no answer was wrong, and that no read failed but during faults.
func (s *soak) requireRight(t *testing.T) {
	t.Helper()
	counts := map[string]int{}
	var problems []string
	for _, r := range s.readers {
		for _, got := range r.reads {
			outcome := s.judge(r, got)
			counts[fmt.Sprintf("%-10s %s", r.delivery, outcome)]++
			if outcome == "failed" || outcome == "WRONG" {
				problems = append(problems, fmt.Sprintf("%s through %s, begun %s, after %s: %s", r.delivery,
					r.m.Client.Address(), got.begun.Format(time.StampMilli), got.ended.Sub(got.begun), got.err))
			}
		}
	}
	for _, line := range slices.Sorted(maps.Keys(counts)) {
		t.Logf("%-30s %6d", line, counts[line])
	}
	require.Empty(t, problems[:min(10, len(problems))], "the first of %d", len(problems))
}

// judge exempts assertions of the old version while the provider knows only the new one: reads of
// creds switch, those of assertions do not. check tests one version after the other, and the
// provider's key may be replaced between the two.
func (s *soak) judge(r *reader, got read) (outcome string) {
	exempt := r.delivery == "assertion" || r.delivery == "check"
	switch {
	case errors.As(got.err, new(wrong)):
		return "WRONG"
	case got.err == nil:
		return "right"
	case got.overlaps(s.faults), exempt && got.overlaps(s.switches):
		return "failed in a fault"
	default:
		return "failed"
	}
}
