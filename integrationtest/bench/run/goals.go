package main

import (
	"fmt"
	"math"
)

// goal is how fast, or how small, something should be.
type goal struct {
	what  string
	bound bound
	value func(*report) (s spread, known bool)
}

// bound is the range of a value.
type bound struct{ least, most float64 }

func atLeast(limit float64) bound { return bound{limit, math.Inf(1)} }
func atMost(limit float64) bound  { return bound{math.Inf(-1), limit} }

func (b bound) String() string {
	switch {
	case b.least == b.most:
		return fmt.Sprintf("= %g", b.least)
	case math.IsInf(b.most, 1):
		return fmt.Sprintf("≥ %g", b.least)
	default:
		return fmt.Sprintf("≤ %g", b.most)
	}
}

// verdict returns "missed" only if every round missed the goal.
func (b bound) verdict(s spread) string {
	switch {
	case b.holds(s.median):
		return "met"
	case b.holds(s.least) || b.holds(s.most):
		return "met in some rounds"
	default:
		return "missed"
	}
}

func (b bound) holds(value float64) bool { return value >= b.least && value <= b.most }

func goals() []goal {
	return []goal{
		{"assertion / transit/sign, reads/s at 64", atLeast(1), throughputRatio(assertion, transitSign, 64)},
		{"creds leased − (no-op leased + Go program), ms at 1", atMost(0.1), overRounds(leasedOverhead)},
		{"creds leased / Go program, reads/s at 64", atLeast(0.7), throughputRatio(credsLeased, goProgram, 64)},
		{"creds shared / no-op read, reads/s at 1", atLeast(1), throughputRatio(credsShared, noopRead, 1)},
		{"creds shared / no-op read, reads/s at 64", atLeast(1), throughputRatio(credsShared, noopRead, 64)},
		{fmt.Sprintf("provider requests for %d shared readers", crowdSize), bound{1, 1}, func(r *report) (spread, bool) {
			return spreadOf([]float64{float64(r.crowdRequests)}), true
		}},
		{"creds leased, full mount / one key, median at 1", atMost(1.05), medianRatio(inFull(credsLeased), credsLeased)},
		{"creds unleased, full mount / one key, median at 1", atMost(1.05), medianRatio(inFull(credsUnleased), credsUnleased)},
		{"creds shared, full mount / one key, median at 1", atMost(1.05), medianRatio(inFull(credsShared), credsShared)},
		{"resident MB, just mounted", atMost(40), residentMemory(oneMount)},
		{"resident MB, full mount", atMost(200), residentMemory(fullMount)},
	}
}

func leasedOverhead(r round) float64 {
	median := func(name string) float64 { return milliseconds(r[measured{name, 1}].median) }
	return median(credsLeased) - (median(noopLeased) + median(goProgram))
}

func throughputRatio(subject, baseline string, readers int) func(*report) (spread, bool) {
	return overRounds(func(done round) float64 {
		perSecond := func(name string) float64 { return done[measured{name, readers}].perSecond }
		return perSecond(subject) / perSecond(baseline)
	})
}

// medianRatio is for one reader at a time.
func medianRatio(subject, baseline string) func(*report) (spread, bool) {
	return overRounds(func(done round) float64 {
		median := func(name string) float64 { return float64(done[measured{name, 1}].median) }
		return median(subject) / median(baseline)
	})
}

func overRounds(value func(round) float64) func(*report) (spread, bool) {
	return func(r *report) (spread, bool) { return r.over(value), true }
}

// residentMemory returns the resident memory of a process when it was first noted, before the
// measurement.
func residentMemory(process string) func(*report) (spread, bool) {
	return func(r *report) (spread, bool) {
		for _, m := range r.memory {
			if m.process == process {
				return spreadOf([]float64{m.resident}), true
			}
		}
		return spread{}, false
	}
}
