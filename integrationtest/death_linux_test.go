package integrationtest

import "syscall"

// dieWithParent ends a child also when this process is killed and cannot.
func dieWithParent() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
}
