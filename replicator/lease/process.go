package lease

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// ThisProcess identifies this process in notes: its pid namespace, its pid there, and its
// start time in clock ticks since boot. It returns "" if /proc does not tell.
func ThisProcess() string {
	namespace, start := pidNamespace(), startOf(os.Getpid())
	if namespace == 0 || start == "" {
		return ""
	}
	return fmt.Sprintf("%d/%d/%s", namespace, os.Getpid(), start)
}

// Gone reports whether a process of this machine's current boot has certainly ended. It is
// false for a process of another pid namespace, such as a container's.
func Gone(process string) bool {
	var namespace uint64
	var pid int
	var start string
	if n, err := fmt.Sscanf(process, "%d/%d/%s", &namespace, &pid, &start); err != nil || n != 3 {
		return false
	}
	if namespace != pidNamespace() {
		return false
	}
	if now := startOf(pid); now != "" {
		return now != start
	}
	return errors.Is(unix.Kill(pid, 0), unix.ESRCH) // /proc may hide the processes of other users
}

// pidNamespace returns the inode of our pid namespace, 0 if unknown.
func pidNamespace() uint64 {
	var st unix.Stat_t
	if unix.Stat("/proc/self/ns/pid", &st) != nil {
		return 0
	}
	return st.Ino
}

// startOf returns a process's start time, "" if there is no such process.
func startOf(pid int) string {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return ""
	}
	// The second field is the command in parentheses, which may hold anything.
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	const start = 19 // of those after the command
	if len(fields) <= start {
		return ""
	}
	return fields[start]
}
