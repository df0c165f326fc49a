package main

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
)

// memory is the resident memory of a process.
type memory struct {
	process, state      string
	resident, anonymous float64 // MB; anonymous excludes the binary's pages
}

// noteMemory notes the memory of plugins, by the names of their binaries. Only Linux reports it
// without tools.
func (b *benchmark) noteMemory(state string, names ...string) error {
	if runtime.GOOS != "linux" {
		return nil
	}
	for _, name := range names {
		dir, err := findProcess(filepath.Join(b.plugins, name))
		if err != nil {
			return err
		}
		m, err := readStatus(filepath.Join(dir, "status"))
		if err != nil {
			return err
		}
		m.process, m.state = name, state
		b.memory = append(b.memory, m)
	}
	return nil
}

// readStatus reads proc_pid_status(5).
func readStatus(path string) (memory, error) {
	status, err := os.ReadFile(path)
	if err != nil {
		return memory{}, err
	}
	var m memory
	for line := range strings.Lines(string(status)) {
		var into *float64
		switch {
		case strings.HasPrefix(line, "VmRSS:"):
			into = &m.resident
		case strings.HasPrefix(line, "RssAnon:"):
			into = &m.anonymous
		default:
			continue
		}
		if _, err := fmt.Sscan(strings.Fields(line)[1], into); err != nil {
			return memory{}, err
		}
		*into /= 1024
	}
	return m, nil
}
