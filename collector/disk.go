package collector

import (
	"time"

	"github.com/sqlwatch/sqlwatch/internal/filesystem"
)

// diskEvery is the time between two looks at a file system.
const diskEvery = 10 * time.Second

// diskWatch knows when the file system was last looked at.
type diskWatch struct{ read time.Time }

// look updates d if that is due. It does nothing about a path without a file.
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

// DiskOf examines the file system that holds path. It may take as long as that needs to answer.
func DiskOf(path string) (Disk, error) {
	m, err := filesystem.Of(path)
	if err != nil {
		return Disk{}, err
	}
	return Disk{Known: true, FreeBytes: m.Available, SizeBytes: m.Size, FSType: m.Type, Mountpoint: m.Point,
		Network: m.Network, ReadOnly: m.ReadOnly, ReadOnlyHere: m.ReadOnlyHere}, nil
}
