package dbfile

import (
	"fmt"
	"time"
)

// named is what is known of the file at a path without opening it.
type named struct {
	inode                   uint64
	size                    uint64
	links                   uint64
	mountPoint              bool
	born, modified, changed time.Time // born is zero where the file system keeps no birth times
}

// Identity identifies the file at a path by its inode and the time at which that was created, which neither a copy
// nor a file of another machine has. It opens nothing. It is "" where there is no file, or the file system keeps no
// birth times.
func Identity(path string) string {
	n, err := nameOf(path)
	if err != nil || n.born.IsZero() {
		return ""
	}
	return fmt.Sprintf("%d/%d.%09d", n.inode, n.born.Unix(), n.born.Nanosecond())
}
