package main

import (
	"errors"

	"golang.org/x/sys/unix"
)

// forbidCoreDumps keeps private keys out of core dumps, and other processes of the same user out
// of this one's memory. The limit alone does not stop a core that the kernel pipes to a program;
// see core(5).
func forbidCoreDumps() error {
	return errors.Join(
		unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}),
		unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0))
}
