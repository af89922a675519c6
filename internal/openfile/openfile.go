// Package openfile tells which files other processes have open, and asks no disk for it: of all
// processes of a machine one may have a file on a disk that does not answer, which is nothing
// that whoever looks for another file should wait for.
package openfile

import (
	"fmt"
	"os"
	"strconv"
	"strings"
)

// Inode is a file of this machine, as stat(2) numbers it.
type Inode struct{ Dev, Ino uint64 }

// Parent returns the pid of a process's parent, whose files it has inherited; 0 where that is not told.
func Parent(pid int) int {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	_, after, _ := strings.Cut(string(b[max(0, strings.LastIndexByte(string(b), ')')):]), ") ")
	fields := strings.Fields(after) // state, ppid
	if len(fields) < 2 {
		return 0
	}
	parent, _ := strconv.Atoi(fields[1])
	return parent
}
