package demo

import "syscall"

// apart keeps the terminal's Ctrl-C from a child, which ends with us all the same.
func apart() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
