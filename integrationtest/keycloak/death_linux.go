package keycloak

import "syscall"

// dieWithParent ends the server also when this process is killed and cannot.
func dieWithParent() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
}
