//go:build !linux

package keycloak

import "syscall"

// dieWithParent is only possible on Linux.
func dieWithParent() *syscall.SysProcAttr { return nil }
