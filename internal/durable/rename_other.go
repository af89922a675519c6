//go:build !linux

package durable

import "golang.org/x/sys/unix"

// renameNoReplace leaves it to renameNew's hard link.
func renameNoReplace(_, _ string) error { return unix.ENOSYS }
