package channel

import (
	"errors"

	"golang.org/x/sys/unix"
)

const commandsRun = true

// awaitExit waits for the end of a child, and does not reap it.
func awaitExit(pid int) {
	for errors.Is(unix.Waitid(unix.P_PID, pid, nil, unix.WEXITED|unix.WNOWAIT, nil), unix.EINTR) {
	}
}
