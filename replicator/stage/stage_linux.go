package stage

import "golang.org/x/sys/unix"

// startWriting has the kernel write what it holds of a file.
func startWriting(fd int) error { return unix.SyncFileRange(fd, 0, 0, unix.SYNC_FILE_RANGE_WRITE) }

// allocate takes size bytes of disk for a file.
func allocate(fd int, size int64) error { return unix.Fallocate(fd, 0, 0, size) }
