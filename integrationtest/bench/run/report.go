package main

import (
	"fmt"
	"io"
	"math"
	"slices"
	"text/tabwriter"

	"github.com/bcgov/vault-plugin-bcgov-jwt/integrationtest/bench"
)

// spread is the spread of one value over the rounds.
type spread struct{ median, least, most float64 }

func spreadOf(values []float64) spread {
	return spread{bench.Median(values), slices.Min(values), slices.Max(values)}
}

// over returns the spread of a value over the rounds.
func (b *benchmark) over(value func(round) float64) spread {
	values := make([]float64, len(b.rounds))
	for i, done := range b.rounds {
		values[i] = value(done)
	}
	return spreadOf(values)
}

// metric is one of the figures.
type metric func(figures) float64

func medianOf(f figures) float64    { return f.median }
func p99Of(f figures) float64       { return f.p99 }
func perSecondOf(f figures) float64 { return f.perSecond }

// cpuOf returns the CPU time of all parties.
func cpuOf(f figures) (sum float64) {
	for _, used := range f.cpu {
		sum += used
	}
	return sum
}

// of returns the metric of a subject in a round.
func (value metric) of(name string, readers int) func(round) float64 {
	return func(done round) float64 { return value(done[measured{name, readers}]) }
}

func ratio(value metric, subject, baseline string, readers int) func(round) float64 {
	of, to := value.of(subject, readers), value.of(baseline, readers)
	return func(done round) float64 { return of(done) / to(done) }
}

func difference(value metric, subject, baseline string, readers int) func(round) float64 {
	of, to := value.of(subject, readers), value.of(baseline, readers)
	return func(done round) float64 { return of(done) - to(done) }
}

// goal is how fast, or how small, something should be.
type goal struct {
	what  string
	bound bound
	value func(round) float64
}

func (b *benchmark) goals() []goal {
	always := func(value float64) func(round) float64 {
		return func(round) float64 { return value }
	}
	return []goal{
		{"creds leased / floor, CPU at 64", atMost(1.03), ratio(cpuOf, credsLeased, floor, 64)},
		{"creds leased − floor, median ms at 1", atMost(0.1), difference(medianOf, credsLeased, floor, 1)},
		{"creds leased P-256 / Go program, reads/s at 64", atLeast(1.3), ratio(perSecondOf, withP256(credsLeased), goProgram, 64)},
		{"assertion / transit/sign, reads/s at 64", atLeast(1), ratio(perSecondOf, assertion, transitSign, 64)},
		{"creds shared / no-op read, reads/s at 1", atLeast(1), ratio(perSecondOf, credsShared, noopRead, 1)},
		{"creds shared / no-op read, reads/s at 64", atLeast(1), ratio(perSecondOf, credsShared, noopRead, 64)},
		{fmt.Sprintf("provider requests for %d shared readers", crowdSize), bound{1, 1}, always(float64(b.crowdRequests))},
		{"creds leased, full mount / one key, median at 1", atMost(1.05), ratio(medianOf, inFull(credsLeased), credsLeased, 1)},
		{"creds unleased, full mount / one key, median at 1", atMost(1.05), ratio(medianOf, inFull(credsUnleased), credsUnleased, 1)},
		{"creds shared, full mount / one key, median at 1", atMost(1.05), ratio(medianOf, inFull(credsShared), credsShared, 1)},
		{"resident MB, idle", atMost(40), always(b.mounts[0].idle)},
		{"resident MB, full mount warm", atMost(200), always(b.full().warm)},
	}
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

func (b *benchmark) print(w io.Writer) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	var names []string
	for _, s := range b.subjects() {
		names = append(names, s.name)
		if s.name == goProgram {
			names = append(names, floor)
		}
	}
	for _, n := range readers() {
		b.printFigures(table, names, n)
	}
	fmt.Fprintln(table, "\nCPU: µs per read. The floor is no-op leased and Go program together.")
	fmt.Fprint(table, "\nkeys\tstart ms\tlist ms\tscrape ms\tagain ms\tidle MB\twarm MB\tat the end MB\n")
	for _, m := range b.mounts {
		fmt.Fprintf(table, "%d\t%.1f\t%.1f\t%.1f\t%.1f\t%.0f\t%.0f\t%.0f\n",
			m.keys, m.start, m.list, m.scrape, m.scrapeAgain, m.idle, m.warm, m.atEnd)
	}
	fmt.Fprintln(table, "\ngoal\t\tmedian\t(of the rounds)\t")
	for _, g := range b.goals() {
		s := b.over(g.value)
		fmt.Fprintf(table, "%s\t%s\t%.4g\t%.4g–%.4g\t%s\n",
			g.what, g.bound, s.median, s.least, s.most, g.bound.verdict(s))
	}
	return table.Flush()
}

// printFigures prints medians over the rounds, and the range of those that goals use.
func (b *benchmark) printFigures(w io.Writer, names []string, readers int) {
	fmt.Fprintf(w, "\n%d at once\tmedian ms\t(of %d rounds)\tp99 ms\treads/s\t(of %d rounds)\tCPU",
		readers, b.options.rounds, b.options.rounds)
	for _, p := range b.parties {
		fmt.Fprintf(w, "\t%s", p.name)
	}
	fmt.Fprintln(w)
	for _, name := range names {
		median := b.over(metric(medianOf).of(name, readers))
		perSecond := b.over(metric(perSecondOf).of(name, readers))
		fmt.Fprintf(w, "%s\t%.2f\t%.2f–%.2f\t%.2f\t%.0f\t%.0f–%.0f\t%.0f", name,
			median.median, median.least, median.most, b.over(metric(p99Of).of(name, readers)).median,
			perSecond.median, perSecond.least, perSecond.most,
			b.over(metric(cpuOf).of(name, readers)).median)
		for i := range b.parties {
			used := metric(func(f figures) float64 { return f.cpu[i] })
			fmt.Fprintf(w, "\t%.0f", b.over(used.of(name, readers)).median)
		}
		fmt.Fprintln(w)
	}
}
