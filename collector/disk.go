package collector

import (
	"time"

	"golang.org/x/sys/unix"

	"github.com/sqlwatch/sqlwatch/internal/filesystem"
)

// How often a file system is looked at again.
const (
	diskEvery  = 10 * time.Second // space
	mountEvery = 10 * time.Minute // type and mount point
)

// diskWatch knows when the file system was last looked at.
type diskWatch struct{ read, mountLooked time.Time }

// look brings d up to date where that is due. A path without a file is not its
// business.
func (w *diskWatch) look(path string, now time.Time, d *Disk) {
	if !d.Known || now.Sub(w.mountLooked) >= mountEvery {
		m, err := filesystem.Of(path)
		if err != nil {
			*d = Disk{}
			return
		}
		*d = Disk{Known: true, FreeBytes: m.Available, SizeBytes: m.Size, FSType: m.Type, Mountpoint: m.Point,
			Network: m.Network}
		w.mountLooked, w.read = now, now
	}
	if now.Sub(w.read) >= diskEvery {
		var st unix.Statfs_t
		if err := unix.Statfs(path, &st); err == nil {
			d.FreeBytes, d.SizeBytes = st.Bavail*uint64(st.Bsize), st.Blocks*uint64(st.Bsize)
		}
		w.read = now
	}
}
