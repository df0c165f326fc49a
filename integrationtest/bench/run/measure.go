package main

import (
	"context"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"
)

// figures are the results of one slice of time.
type figures struct {
	median, p99 time.Duration
	perSecond   float64
	cpu         []float64 // µs that each of the parties used for a read
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
	for _, s := range subjects {
		b.names = append(b.names, s.name)
	}
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
	return b.noteMemory("after the measurement", noopName, oneMount, fullMount)
}

func (b *benchmark) measureRound(
	ctx context.Context, subjects []subject, slice time.Duration,
) (round, error) {
	done := round{}
	for _, readers := range concurrencies() {
		for _, s := range subjects {
			before, err := cpuTimes(b.parties)
			if err != nil {
				return nil, err
			}
			f, reads, err := measureSlice(ctx, s, readers, slice)
			if err != nil {
				return nil, err
			}
			after, err := cpuTimes(b.parties)
			if err != nil {
				return nil, err
			}
			for i := range after {
				f.cpu = append(f.cpu, float64((after[i]-before[i]).Microseconds())/float64(reads))
			}
			done[measured{s.name, readers}] = f
		}
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
		median:    all[len(all)/2],
		p99:       all[len(all)*99/100],
		perSecond: float64(len(all)) / elapsed.Seconds(),
	}, len(all), nil
}

// duration returns how long the measurement of so many subjects takes.
func (o options) duration(subjects int) time.Duration {
	slices := (float64(o.rounds) + 0.2) * float64(subjects*len(concurrencies()))
	return time.Duration(slices * float64(o.slice)).Round(time.Second)
}
