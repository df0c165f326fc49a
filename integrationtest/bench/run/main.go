// Command run measures the plugin in a real Vault, in one run with what it is compared with: a
// plugin that does nothing, Vault's own transit and KV engines, and a Go program without Vault. It
// prints how long reads take, how many are done in a second, what CPU time and memory that uses,
// and whether the goals are met. It needs Linux, which has the figures of other processes in /proc.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"
)

type options struct {
	rounds int
	slice  time.Duration
	keys   int
}

func main() {
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer cancel()
	if err := run(ctx, os.Args[1:], os.Stdout, os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) (err error) {
	o, err := parse(args, stderr)
	if err != nil {
		return err
	}
	s, err := startServers(ctx)
	defer func() { err = errors.Join(err, s.stop()) }()
	if err != nil {
		return err
	}
	b, err := newBenchmark(s, o)
	if err != nil {
		return err
	}
	for _, step := range []struct {
		what string
		do   func(context.Context) error
	}{
		{"Mounting the engines", b.mount},
		{fmt.Sprintf("Creating %d keys and roles", o.keys), b.fill},
		{"Reading one shared token concurrently", b.crowd},
		{fmt.Sprintf("Measuring, at least %s", b.duration()), b.measure},
	} {
		fmt.Fprintln(stderr, step.what, "...")
		if err := step.do(ctx); err != nil {
			return fmt.Errorf("%s: %w", step.what, err)
		}
	}
	return b.print(stdout)
}

func parse(args []string, stderr io.Writer) (o options, err error) {
	flags := flag.NewFlagSet("run", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.IntVar(&o.rounds, "rounds", 10, "how `many` times everything is measured, alternately")
	flags.DurationVar(&o.slice, "slice", 500*time.Millisecond,
		"how `long` each thing is measured in a round")
	flags.IntVar(&o.keys, "keys", 10_000,
		"how `many` keys and roles the largest mount has; another has a tenth")
	if err := flags.Parse(args); err != nil {
		return o, err
	}
	if o.rounds < 1 || o.keys < 10 {
		return o, errors.New("-rounds must be at least 1, -keys at least 10")
	}
	return o, nil
}
