package main

import (
	"context"
	"math"
	"os"
	"slices"
	"time"

	"github.com/prometheus/procfs"
	"golang.org/x/sync/errgroup"
)

// readers returns the numbers of concurrent readers. The goals name both.
func readers() []int { return []int{1, 64} }

// figures are the results of one slice of time.
type figures struct {
	median, p99 float64 // ms
	perSecond   float64
	cpu         []float64 // µs that each of the parties used for a read
}

// then returns the figures of two reads, one after the other.
func (f figures) then(g figures) figures {
	sum := figures{
		median: f.median + g.median, p99: math.NaN(),
		perSecond: 1 / (1/f.perSecond + 1/g.perSecond),
	}
	for i := range f.cpu {
		sum.cpu = append(sum.cpu, f.cpu[i]+g.cpu[i])
	}
	return sum
}

// measured identifies figures.
type measured struct {
	subject string
	readers int
}

// round holds the figures of every subject with every number of readers.
type round map[measured]figures

// measure measures all subjects repeatedly. Each round begins with another one, so that none always
// follows the same.
func (b *benchmark) measure(ctx context.Context) error {
	if err := b.findParties(); err != nil {
		return err
	}
	subjects := b.subjects()
	// The first one only opens connections and fills caches.
	if _, err := b.measureRound(ctx, subjects, b.options.slice/5); err != nil {
		return err
	}
	for i := range b.options.rounds {
		first := i * len(subjects) / b.options.rounds
		rotated := slices.Concat(subjects[first:], subjects[:first])
		done, err := b.measureRound(ctx, rotated, b.options.slice)
		if err != nil {
			return err
		}
		b.rounds = append(b.rounds, done)
	}
	for _, m := range b.mounts {
		if err := b.noteMemory(m, &m.atEnd); err != nil {
			return err
		}
	}
	return nil
}

func (b *benchmark) measureRound(
	ctx context.Context, subjects []subject, slice time.Duration,
) (round, error) {
	done := round{}
	for _, n := range readers() {
		for _, s := range subjects {
			before, err := cpuTimes(b.parties)
			if err != nil {
				return nil, err
			}
			f, reads, err := measureSlice(ctx, s, n, slice)
			if err != nil {
				return nil, err
			}
			after, err := cpuTimes(b.parties)
			if err != nil {
				return nil, err
			}
			for i := range after {
				f.cpu = append(f.cpu, (after[i]-before[i])*1e6/float64(reads))
			}
			done[measured{s.name, n}] = f
		}
		done[measured{floor, n}] = done[measured{noopLeased, n}].then(done[measured{goProgram, n}])
	}
	return done, nil
}

// measureSlice has so many readers call the subject for so long.
func measureSlice(
	ctx context.Context, s subject, readers int, slice time.Duration,
) (f figures, reads int, err error) {
	group, ctx := errgroup.WithContext(ctx)
	latencies := make([][]time.Duration, readers)
	began := time.Now()
	for i := range latencies {
		group.Go(func() error {
			for {
				called := time.Now()
				if err := s.call(ctx); err != nil {
					return err
				}
				latencies[i] = append(latencies[i], time.Since(called))
				if time.Since(began) >= slice {
					return nil
				}
			}
		})
	}
	if err := group.Wait(); err != nil {
		return figures{}, 0, err
	}
	elapsed := time.Since(began)
	all := slices.Concat(latencies...)
	slices.Sort(all)
	return figures{
		median:    milliseconds(all[len(all)/2]),
		p99:       milliseconds(all[len(all)*99/100]),
		perSecond: float64(len(all)) / elapsed.Seconds(),
	}, len(all), nil
}

// duration returns how long the slices of a measurement take.
func (b *benchmark) duration() time.Duration {
	slices := (float64(b.options.rounds) + 0.2) * float64(len(b.subjects())*len(readers()))
	return time.Duration(slices * float64(b.options.slice)).Round(time.Second)
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// party is a part of the system.
type party struct {
	name      string
	processes []procfs.Proc
}

// findParties finds the processes that take part in a read.
func (b *benchmark) findParties() error {
	for _, p := range []struct {
		name string
		pid  int
	}{
		{"client", os.Getpid()},
		{"Vault", b.server.PID},
		{"provider", b.providerProcess.Process.Pid},
	} {
		process, err := procfs.NewProc(p.pid)
		if err != nil {
			return err
		}
		b.parties = append(b.parties, party{p.name, []procfs.Proc{process}})
	}
	plugins := party{name: "plugin"}
	for _, name := range []string{noopName, oneMount, b.full().path} {
		process, err := b.pluginProcess(name)
		if err != nil {
			return err
		}
		plugins.processes = append(plugins.processes, process)
	}
	b.parties = append(b.parties, plugins)
	return nil
}

// cpuTimes returns the seconds of CPU time that each party has used so far.
func cpuTimes(parties []party) ([]float64, error) {
	times := make([]float64, len(parties))
	for i, p := range parties {
		for _, process := range p.processes {
			stat, err := process.Stat()
			if err != nil {
				return nil, err
			}
			times[i] += stat.CPUTime()
		}
	}
	return times, nil
}
