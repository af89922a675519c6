package owner

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// CanChown reports whether this process may give files to others.
func CanChown() (bool, error) {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return false, fmt.Errorf("read own capabilities: %w", err)
	}
	return data[0].Effective&(1<<unix.CAP_CHOWN) != 0, nil
}
