package program

import "syscall"

// DieWithParent ends a child even if this process is killed and cannot do so itself.
func DieWithParent() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
}
