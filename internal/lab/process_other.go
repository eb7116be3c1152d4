//go:build !linux

package lab

import "syscall"

// Only Linux kills a child with its parent; elsewhere children survive a lab
// that is killed with SIGKILL.
func childAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true}
}
