package doctor

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// programWithin bounds the time to read a process's program. Its disk need not be the
// database's, so a slow read there says nothing about the database.
const programWithin = 10 * time.Second

// describeSoon is describe; if that does not return in time, it returns what was known before.
func describeSoon(pid int, command string, age time.Duration) (p Process, whole bool) {
	described := make(chan Process, 1)
	go func() { described <- describe(pid, command, age) }()
	select {
	case p = <-described:
		return p, true
	case <-time.After(programWithin):
		return Process{PID: pid, Command: command, Age: age, UID: -1}, false
	}
}

// describe returns what /proc says about a process. Fields that are hidden for another user's
// process stay empty.
func describe(pid int, command string, age time.Duration) Process {
	p := Process{PID: pid, Command: command, Age: age, UID: -1}
	dir := fmt.Sprintf("/proc/%d", pid)
	if info, err := os.Stat(dir); err == nil {
		if st, ok := info.Sys().(*syscall.Stat_t); ok {
			p.UID = int(st.Uid)
		}
	}
	if text, err := os.ReadFile(dir + "/cmdline"); err == nil {
		p.Cmdline = strings.TrimSpace(strings.ReplaceAll(string(text), "\x00", " "))
	}
	if text, err := os.ReadFile(dir + "/cgroup"); err == nil {
		p.Cgroup = lastCgroup(string(text))
	}
	if exe, err := os.Readlink(dir + "/exe"); err == nil {
		p.Deleted = strings.HasSuffix(exe, " (deleted)")
	}
	if p.Program = programOf(pid); !p.isSqlwatch() { // sqlwatch has no old SQLite, and takes seconds to search
		p.Engine = engineOf(pid)
	}
	return p
}

// lastCgroup returns the control group in the newest hierarchy, or in systemd's.
func lastCgroup(text string) string {
	group := ""
	for line := range strings.Lines(text) {
		fields := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(fields) == 3 && (fields[1] == "" || fields[1] == "name=systemd") {
			group = fields[2]
		}
	}
	return group
}

// others returns, by pid, the commands of all processes that are not in known.
func others(known []Process) map[int]string {
	paths, err := filepath.Glob("/proc/[0-9]*/comm")
	if err != nil {
		return nil
	}
	found := map[int]string{}
	for _, path := range paths {
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(path)))
		if err != nil || pid == os.Getpid() || slices.ContainsFunc(known, func(p Process) bool { return p.PID == pid }) {
			continue
		}
		if text, err := os.ReadFile(path); err == nil {
			found[pid] = strings.TrimSpace(string(text))
		}
	}
	return found
}

// hasOpen reports whether a process has a file open, and whether that can be determined.
func hasOpen(pid int, path string) (open, known bool) {
	dir := fmt.Sprintf("/proc/%d/fd", pid)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return false, false
	}
	for _, e := range entries {
		if target, err := os.Readlink(filepath.Join(dir, e.Name())); err == nil && target == path {
			return true, true
		}
	}
	return false, true
}
