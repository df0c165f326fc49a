//go:build !linux

package program

import "syscall"

// DieWithParent is only possible on Linux.
func DieWithParent() *syscall.SysProcAttr { return &syscall.SysProcAttr{} }
