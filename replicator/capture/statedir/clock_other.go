//go:build !linux

package statedir

import "golang.org/x/sys/unix"

const bootClock = unix.CLOCK_MONOTONIC
