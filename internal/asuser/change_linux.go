package asuser

import (
	"errors"
	"fmt"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// keptCapabilities are those that the kernel's counters need. They give no access to
// other users' files.
var keptCapabilities = []uintptr{unix.CAP_BPF, unix.CAP_PERFMON}

// changeTo gives up root, for the program that this thread executes next. The thread
// stays locked: its capabilities are its own, and exec takes them from it.
func changeTo(u User) error {
	runtime.LockOSThread()
	if err := unix.Prctl(unix.PR_SET_KEEPCAPS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("keep capabilities: %w", err)
	}
	if err := syscall.Setgroups([]int{u.GID}); err != nil {
		return fmt.Errorf("set groups: %w", err)
	}
	if err := syscall.Setresgid(u.GID, u.GID, u.GID); err != nil {
		return fmt.Errorf("set gid %d: %w", u.GID, err)
	}
	if err := syscall.Setresuid(u.UID, u.UID, u.UID); err != nil {
		return fmt.Errorf("set uid %d: %w", u.UID, err)
	}
	return keepCapabilities()
}

// keepCapabilities leaves this thread, and what it executes, with keptCapabilities
// as far as it has them, and with no other.
func keepCapabilities() error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var had, kept [2]unix.CapUserData
	if err := unix.Capget(&header, &had[0]); err != nil {
		return fmt.Errorf("read capabilities: %w", err)
	}
	var ambient []uintptr
	for _, c := range keptCapabilities {
		word, bit := c/32, uint32(1)<<(c%32)
		if had[word].Permitted&bit != 0 {
			kept[word].Permitted |= bit
			kept[word].Effective |= bit
			kept[word].Inheritable |= bit
			ambient = append(ambient, c)
		}
	}
	if err := unix.Capset(&header, &kept[0]); err != nil {
		return fmt.Errorf("drop capabilities: %w", err)
	}
	for _, c := range ambient {
		err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_RAISE, c, 0, 0)
		if err != nil && !errors.Is(err, unix.EPERM) && !errors.Is(err, unix.EINVAL) {
			return fmt.Errorf("keep capability %d: %w", c, err)
		}
	}
	return nil
}
