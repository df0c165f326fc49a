package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"time"
)

// tick is the unit of CPU time in proc_pid_stat(5), the same on every Linux.
const tick = 10 * time.Millisecond

// party is a part of the system, with the folders of its processes in /proc.
type party struct {
	name string
	dirs []string
}

// findParties finds the processes that take part in a read. Only Linux reports the CPU time of
// other processes without tools; elsewhere no parties are found.
func (b *benchmark) findParties() error {
	if runtime.GOOS != "linux" {
		return nil
	}
	plugins := party{name: "plugin"}
	for _, name := range []string{noopName, oneMount, fullMount} {
		dir, err := findProcess(filepath.Join(b.plugins, name))
		if err != nil {
			return err
		}
		plugins.dirs = append(plugins.dirs, dir)
	}
	b.parties = []party{
		{"client", []string{"/proc/self"}},
		{"Vault", []string{processDir(b.vaultPID)}},
		plugins,
		{"provider", []string{processDir(b.providerPID)}},
	}
	return nil
}

func processDir(pid int) string { return filepath.Join("/proc", strconv.Itoa(pid)) }

// findProcess returns the folder in /proc of the process that runs a binary.
func findProcess(binary string) (string, error) {
	links, err := filepath.Glob("/proc/[0-9]*/exe")
	if err != nil {
		return "", err
	}
	for _, link := range links {
		// The links of other users cannot be read.
		if target, err := os.Readlink(link); err == nil && target == binary {
			return filepath.Dir(link), nil
		}
	}
	return "", errors.New("no process runs " + binary)
}

// cpuTimes returns the CPU time that each party has used so far.
func cpuTimes(parties []party) ([]time.Duration, error) {
	times := make([]time.Duration, len(parties))
	for i, p := range parties {
		for _, dir := range p.dirs {
			used, err := cpuTime(dir)
			if err != nil {
				return nil, err
			}
			times[i] += used
		}
	}
	return times, nil
}

func cpuTime(dir string) (time.Duration, error) {
	stat, err := os.ReadFile(filepath.Join(dir, "stat"))
	if err != nil {
		return 0, err
	}
	// The name before it may contain blanks; the first field here is number 3.
	fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
	text := string(fields[14-3]) + " " + string(fields[15-3])
	var user, system time.Duration
	if _, err := fmt.Sscan(text, &user, &system); err != nil {
		return 0, fmt.Errorf("%s/stat: %w", dir, err)
	}
	return (user + system) * tick, nil
}
