//go:build !linux

package channel

// commandsRun is false: only the daemon runs them, and it needs Linux.
const commandsRun = false

func awaitExit(int) {}
