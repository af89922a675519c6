package dbfile

import (
	"fmt"
	"time"
)

// named is what a path says of its file without opening it.
type named struct {
	inode                   uint64
	size                    uint64
	links                   uint64
	mountPoint              bool
	born, modified, changed time.Time // born is zero where the file system keeps no birth times
}

// Identity names the file at a path as this very file: by its inode and the instant at
// which that was made, which a copy does not have, nor a file of another machine. It
// opens nothing. It is "" where there is no file, or the file system keeps no birth times.
func Identity(path string) string {
	n, err := nameOf(path)
	if err != nil || n.born.IsZero() {
		return ""
	}
	return fmt.Sprintf("%d/%d.%09d", n.inode, n.born.Unix(), n.born.Nanosecond())
}
