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

// party is a part of the system, by the folders of its processes in /proc.
type party struct {
	name string
	dirs []string
}

// findParties finds who takes part in a read. Only Linux tells what CPU time others take without tools; elsewhere there is none.
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
		if target, err := os.Readlink(link); err == nil && target == binary { // those of others cannot be read
			return filepath.Dir(link), nil
		}
	}
	return "", errors.New("no process runs " + binary)
}

// cpuTimes are what the parties have taken so far.
func cpuTimes(parties []party) ([]time.Duration, error) {
	times := make([]time.Duration, len(parties))
	for i, p := range parties {
		for _, dir := range p.dirs {
			taken, err := cpuTime(dir)
			if err != nil {
				return nil, err
			}
			times[i] += taken
		}
	}
	return times, nil
}

func cpuTime(dir string) (time.Duration, error) {
	stat, err := os.ReadFile(filepath.Join(dir, "stat"))
	if err != nil {
		return 0, err
	}
	fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:]) // the name before may have blanks in it; the first field here is number 3
	var user, system time.Duration
	if _, err := fmt.Sscan(string(fields[14-3])+" "+string(fields[15-3]), &user, &system); err != nil {
		return 0, fmt.Errorf("%s/stat: %w", dir, err)
	}
	return (user + system) * tick, nil
}
