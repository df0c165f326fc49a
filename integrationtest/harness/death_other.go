//go:build !linux

package harness

import "syscall"

// dieWithParent is only possible on Linux.
func dieWithParent() *syscall.SysProcAttr { return &syscall.SysProcAttr{} }
