package program

import "syscall"

// dieWithParent ends the server even if this process is killed and cannot do so itself.
func dieWithParent() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
}
