//go:build !linux

package integrationtest

import "syscall"

// dieWithParent is only possible on Linux.
func dieWithParent() *syscall.SysProcAttr { return &syscall.SysProcAttr{} }
