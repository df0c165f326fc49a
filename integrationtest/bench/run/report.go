package main

import (
	"fmt"
	"io"
	"slices"
	"text/tabwriter"
	"time"
)

// report holds the results of a run.
type report struct {
	options       options
	names         []string // of the subjects, in the order in which they are printed
	rounds        []round
	crowdRequests int
	memory        []memory
	parties       []party // empty if their CPU time is unknown
}

// spread is the spread of one value over the rounds.
type spread struct{ median, least, most float64 }

func spreadOf(values []float64) spread {
	sorted := slices.Sorted(slices.Values(values))
	middle := len(sorted) / 2
	median := sorted[middle]
	if len(sorted)%2 == 0 {
		median = (sorted[middle-1] + sorted[middle]) / 2
	}
	return spread{median, sorted[0], sorted[len(sorted)-1]}
}

// over returns the spread of a value over the rounds.
func (r *report) over(value func(round) float64) spread {
	var values []float64
	for _, done := range r.rounds {
		values = append(values, value(done))
	}
	return spreadOf(values)
}

func (r *report) print(w io.Writer) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	r.printFigures(table)
	r.printMemory(table)
	r.printGoals(table)
	return table.Flush()
}

func (r *report) printFigures(w io.Writer) {
	for _, readers := range concurrencies() {
		fmt.Fprintf(w, "\n%d at once\tmedian ms\t(of %d rounds)\tp99 ms\treads/s\t(of %d rounds)",
			readers, r.options.rounds, r.options.rounds)
		for _, p := range r.parties {
			fmt.Fprintf(w, "\t%s µs", p.name)
		}
		fmt.Fprintln(w)
		for _, name := range r.names {
			m := measured{name, readers}
			median := r.over(func(done round) float64 { return milliseconds(done[m].median) })
			p99 := r.over(func(done round) float64 { return milliseconds(done[m].p99) })
			perSecond := r.over(func(done round) float64 { return done[m].perSecond })
			fmt.Fprintf(w, "%s\t%.2f\t%.2f–%.2f\t%.2f\t%.0f\t%.0f–%.0f", name,
				median.median, median.least, median.most, p99.median,
				perSecond.median, perSecond.least, perSecond.most)
			for i := range r.parties {
				cpu := r.over(func(done round) float64 { return done[m].cpu[i] })
				fmt.Fprintf(w, "\t%.0f", cpu.median)
			}
			fmt.Fprintln(w)
		}
	}
	if len(r.parties) > 0 {
		fmt.Fprintln(w, "\nµs: CPU time per read. With busy processors, as with 64 readers, "+
			"the sum of a line limits reads/s.")
	}
}

func (r *report) printMemory(w io.Writer) {
	if len(r.memory) == 0 {
		fmt.Fprintln(w, "\nmemory: skipped, it is reported on Linux only")
		return
	}
	fmt.Fprintln(w, "\nmemory\t\tresident MB\tof it anonymous")
	for _, m := range r.memory {
		fmt.Fprintf(w, "%s\t%s\t%.0f\t%.0f\n", m.process, m.state, m.resident, m.anonymous)
	}
}

func (r *report) printGoals(w io.Writer) {
	fmt.Fprintln(w, "\ngoal\t\tmedian\t(of the rounds)\t")
	for _, g := range goals() {
		s, known := g.value(r)
		if !known {
			continue
		}
		fmt.Fprintf(w, "%s\t%s\t%.4g\t%.4g–%.4g\t%s\n",
			g.what, g.bound, s.median, s.least, s.most, g.bound.verdict(s))
	}
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
