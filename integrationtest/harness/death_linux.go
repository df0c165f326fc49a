package harness

import "syscall"

// dieWithParent ends a child even if this process is killed and cannot do so itself.
func dieWithParent() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
}
