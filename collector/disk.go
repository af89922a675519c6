package collector

import (
	"time"

	"github.com/sqlwatch/sqlwatch/internal/filesystem"
)

// diskEvery is how often a file system is looked at again.
const diskEvery = 10 * time.Second

// diskWatch knows when the file system was last looked at.
type diskWatch struct{ read time.Time }

// look brings d up to date where that is due. A path without a file is not its
// business.
func (w *diskWatch) look(path string, now time.Time, d *Disk) {
	if d.Known && now.Sub(w.read) < diskEvery {
		return
	}
	w.read = now
	switch now, err := DiskOf(path); {
	case err == nil:
		*d = now
	case !d.Known:
		*d = Disk{}
	}
}

// DiskOf looks at the file system that holds path. It may wait as long as that does.
func DiskOf(path string) (Disk, error) {
	m, err := filesystem.Of(path)
	if err != nil {
		return Disk{}, err
	}
	return Disk{Known: true, FreeBytes: m.Available, SizeBytes: m.Size, FSType: m.Type, Mountpoint: m.Point,
		Network: m.Network, ReadOnly: m.ReadOnly, ReadOnlyHere: m.ReadOnlyHere}, nil
}
