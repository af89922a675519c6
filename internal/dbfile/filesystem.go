package dbfile

// Mount is the file system that holds a file.
type Mount struct {
	Type      string // as in mountinfo, "ext4" or "fuse.sshfs"; "0x..." where even the magic number is unknown
	Point     string // where it is mounted, "" where that is not to be known
	Size      uint64 // bytes
	Available uint64 // bytes free to unprivileged users
	Network   bool   // its locks, or its shared memory, need not reach everyone who writes there
	Volatile  bool   // lives in memory: gone at the next boot
}

// NetworkFS returns the type of the file system that holds path, and whether
// it is one on which WAL mode cannot be trusted.
func NetworkFS(path string) (fstype string, network bool, err error) {
	m, err := Filesystem(path)
	return m.Type, m.Network, err
}

type mountEntry struct {
	fstype, point string
	dev           uint64
}
