// Package filesystem tells on what file system a file is, and whether the locks and the shared
// memory of a WAL can be trusted there.
package filesystem

// Mount is the file system that holds a file.
type Mount struct {
	Type         string // as in mountinfo, "ext4" or "fuse.sshfs"; "0x..." where even the magic number is unknown
	Point        string // where it is mounted, "" where that is not to be known
	Size         uint64 // bytes
	Available    uint64 // bytes free to unprivileged users
	Network      bool   // its locks, or its shared memory, need not reach everyone who writes there
	Volatile     bool   // lives in memory: gone at the next boot
	ReadOnly     bool   // nobody can write there: it is mounted so, or the kernel made it so after an error
	ReadOnlyHere bool   // it is read-only where we see it, and others may write there: a bind mount, a sandbox
}

type mounted struct {
	fstype, point string
	dev           uint64
	readOnly      bool
}
