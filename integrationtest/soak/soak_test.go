package soak

import (
	"cmp"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bcgov/vault-plugin-bcgov-jwt/integrationtest/harness"
)

// TestSoak_AnswersStayRight has readers of all deliveries through each of three nodes, for SOAKTIME
// (60s), while the provider and the nodes fail and return, and keys and settings change. No answer
// is wrong, no read fails that began and ended while all was up, and what the plugin uses does not
// grow. Plugins end in the first third only: a new process would hide what the old one kept.
func TestSoak_AnswersStayRight(t *testing.T) {
	t.Parallel()
	length, err := time.ParseDuration(cmp.Or(os.Getenv("SOAKTIME"), "60s"))
	require.NoError(t, err)
	s := newSoak(t)
	s.settle(t)
	stop := s.startReaders(t)
	defer func() { // of a step that failed they know more
		stop()
		s.requireRight(t)
	}()
	begun := time.Now()
	changes := []func(*testing.T){
		s.writeSettings, s.rotateManual, s.cutProvider, s.rotateJWKS, s.slowProvider, s.importKey,
	}
	for s.cycles == 0 || time.Since(begun) < length/3 {
		s.run(t, append(changes, s.killPlugin, s.stepDown))
	}
	processes := s.plugins(t)
	var used []usage // at the end of each cycle from here
	for len(used) < 2 || time.Since(begun) < length {
		s.run(t, changes)
		used = append(used, s.usage(t))
	}
	t.Logf("%d cycles in %s: %d faults, %d manual rotations, %d with jwks", s.cycles,
		time.Since(begun).Round(time.Second), len(s.faults), len(s.switches), s.jwksRotations)
	require.Positive(t, s.jwksRotations)
	require.Equal(t, processes, s.plugins(t), "no plugin ended on its own")
	requireFlat(t, used[0], used[len(used)-1])
	s.active(t).RecordPrivateKeys(t)
}

// run takes some steps, and lets the readers read while all is up after each.
func (s *soak) run(t *testing.T, steps []func(*testing.T)) {
	t.Helper()
	s.cycles++
	for _, step := range steps {
		step(t)
		harness.Sleep(t, 2*pause)
	}
}

// requireFlat allows for what happens to be in use at a moment.
func requireFlat(t *testing.T, first, last usage) {
	t.Helper()
	const growth, fluctuation = 1.3, 16
	require.LessOrEqual(t, float64(last.pages), growth*float64(first.pages))
	require.LessOrEqual(t, last.threads, first.threads+fluctuation)
	require.LessOrEqual(t, last.files, first.files+fluctuation)
}
