package statedir

import "golang.org/x/sys/unix"

// bootClock keeps counting while the machine is suspended.
const bootClock = unix.CLOCK_BOOTTIME
