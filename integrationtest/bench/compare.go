// Package bench compares the speed of two functions within one run, so that other load on the
// machine affects both.
package bench

import (
	"slices"
	"testing"
	"time"
)

// rounds is how often the two sides alternate.
const rounds = 10

// Compare runs subject and baseline alternately, for b.N calls each in total, and reports the
// medians of both and of their ratio, with its spread. It replaces the benchmark's own loop.
func Compare(b *testing.B, subject, baseline func() error) {
	b.Helper()
	calls := max(1, b.N/rounds)
	var subjectTimes, baselineTimes, ratios []float64
	b.ResetTimer() // the setup is not part of the b.N calls
	for range rounds {
		subjectTime := measure(b, calls, subject)
		baselineTime := measure(b, calls, baseline)
		subjectTimes = append(subjectTimes, subjectTime)
		baselineTimes = append(baselineTimes, baselineTime)
		ratios = append(ratios, subjectTime/baselineTime)
	}
	b.ReportMetric(Median(subjectTimes), "ns/op")
	b.ReportMetric(Median(baselineTimes), "baseline-ns/op")
	b.ReportMetric(Median(ratios), "ratio")
	b.ReportMetric(slices.Min(ratios), "ratio-min")
	b.ReportMetric(slices.Max(ratios), "ratio-max")
}

// measure returns the mean nanoseconds of a call.
func measure(b *testing.B, calls int, f func() error) float64 {
	b.Helper()
	began := time.Now()
	for range calls {
		if err := f(); err != nil {
			b.Fatal(err)
		}
	}
	return float64(time.Since(began).Nanoseconds()) / float64(calls)
}

// Median returns the middle of the values, or the mean of the two in the middle.
func Median(values []float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	middle := len(sorted) / 2
	if len(sorted)%2 == 1 {
		return sorted[middle]
	}
	return (sorted[middle-1] + sorted[middle]) / 2
}
