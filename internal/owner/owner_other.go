//go:build !linux

package owner

import "os"

// CanChown reports whether this process may give files to others.
func CanChown() (bool, error) { return os.Geteuid() == 0, nil }
