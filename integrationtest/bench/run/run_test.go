package main

import (
	"bytes"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"io"
	"regexp"
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestRun_ReportsEverySubjectAndGoal(t *testing.T) {
	t.Parallel()
	if runtime.GOOS != "linux" {
		t.Skip("needs /proc")
	}
	var stdout bytes.Buffer
	args := []string{"-rounds", "1", "-slice", "10ms", "-keys", "10"}
	require.NoError(t, run(t.Context(), args, &stdout, io.Discard))
	for _, name := range []string{
		kvRead, transitSign, noopRead, noopLeased, goProgram, floor,
		credsLeased, credsUnleased, credsShared, assertion,
	} {
		require.Regexp(t, `(?s)1 at once.*\n`+name+` .*64 at once.*\n`+name+` `, stdout.String())
	}
	require.Regexp(t, `(?m)^10( +\d+\.\d){4}( +[1-9]\d*){3}$`, stdout.String(), "the full mount")
	b := &benchmark{mounts: []*mount{{}}}
	for _, g := range b.goals() {
		line := regexp.MustCompile(`(?m)^` + regexp.QuoteMeta(g.what) + ` +` + g.bound.String() +
			` +\S+ +\S+ +(met|met in some rounds|missed)$`)
		require.Regexp(t, line, stdout.String())
	}
	require.Regexp(t, `provider requests for 1000 shared readers .* met\n`, stdout.String())
}

func TestRun_RejectsTooLittle(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{{"-rounds", "0"}, {"-keys", "9"}} {
		require.ErrorContains(t, run(t.Context(), args, io.Discard, io.Discard),
			"-rounds must be at least 1, -keys at least 10")
	}
}

func TestFigures_FloorIsOneAfterTheOther(t *testing.T) {
	t.Parallel()
	sum := figures{median: 1, perSecond: 300, cpu: []float64{1, 2}}.then(
		figures{median: 2, perSecond: 600, cpu: []float64{10, 20}})
	require.Equal(t, []float64{11, 22}, sum.cpu)
	require.InDelta(t, 33, cpuOf(sum), 1e-9)
	require.InDelta(t, 3, sum.median, 1e-9)
	require.InDelta(t, 200, sum.perSecond, 1e-9)
}

func TestSpread_MedianAndRange(t *testing.T) {
	t.Parallel()
	require.Equal(t, spread{2, 1, 9}, spreadOf([]float64{9, 1, 2}))
	require.Equal(t, spread{2.5, 1, 4}, spreadOf([]float64{4, 1, 3, 2}))
}

func TestBound_MissedOnlyIfEveryRoundMissed(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		bound   bound
		shown   string
		spread  spread
		verdict string
	}{
		{atLeast(1), "≥ 1", spread{1, 0.5, 2}, "met"},
		{atLeast(1), "≥ 1", spread{0.9, 0.5, 1}, "met in some rounds"},
		{atLeast(1), "≥ 1", spread{0.9, 0.5, 0.99}, "missed"},
		{atMost(0.1), "≤ 0.1", spread{-3, -4, 1}, "met"},
		{atMost(0.1), "≤ 0.1", spread{0.2, 0.1, 1}, "met in some rounds"},
		{atMost(0.1), "≤ 0.1", spread{0.2, 0.11, 1}, "missed"},
		{bound{1, 1}, "= 1", spread{1, 1, 1}, "met"},
		{bound{1, 1}, "= 1", spread{0, 0, 0}, "missed"},
		{bound{1, 1}, "= 1", spread{2, 2, 2}, "missed"},
	} {
		require.Equal(t, c.shown, c.bound.String())
		require.Equal(t, c.verdict, c.bound.verdict(c.spread), "%s %v", c.bound, c.spread)
	}
}

func TestManyKeys_AreValidAndDifferent(t *testing.T) {
	t.Parallel()
	keys, err := manyKeys(5)
	require.NoError(t, err)
	require.Len(t, keys, 5)
	moduli := map[string]bool{}
	for _, text := range keys {
		block, rest := pem.Decode([]byte(text))
		require.Empty(t, rest)
		parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
		require.NoError(t, err)
		key, ok := parsed.(*rsa.PrivateKey)
		require.True(t, ok)
		require.NoError(t, key.Validate())
		require.Equal(t, 2048, key.N.BitLen())
		moduli[key.N.String()] = true
	}
	require.Len(t, moduli, 5)
}
