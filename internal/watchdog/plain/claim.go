package plain

import (
	"encoding/binary"
	"errors"
	"sync"
	"time"

	"github.com/sqlwatch/sqlwatch/internal/dbfile"
)

// ErrUnclaimed says that no process is connected, and that no process seen connected wrote the WAL
// that is there: it may be half of a copy being put in place, whose database file is not there yet.
var ErrUnclaimed = errors.New("nobody is connected, and it is not known whose WAL this is: it is left to whoever " +
	"opens the database next")

// claim is the WAL as it was last seen in use, and the main file at that time.
type claim struct {
	mu       sync.Mutex // guards the fields below
	database uint64     // inodes; 0: nothing was seen yet
	wal      uint64
	x        dbfile.WALIndex
	modified time.Time // of the main file
	size     int64
}

// look records the files as they are, if another process uses them.
func (c *claim) look(files *dbfile.Files) {
	attached, err := files.Others()
	if err != nil || !attached {
		return
	}
	st, err := files.Stat()
	x, indexErr := files.WALIndex()
	if err != nil || indexErr != nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.database, c.wal, c.x, c.modified, c.size = st.DatabaseInode, st.WALInode, x, st.ModTime, st.DatabaseSize
}

// covers reports whether the WAL belongs to the main file: another process uses both, or the WAL has no
// frames, or it continues the one that was in use and the main file has not changed.
func (c *claim) covers(files *dbfile.Files) bool {
	if change, err := files.Refresh(); err != nil || change.Database {
		return false
	}
	attached, err := files.Others()
	if err != nil || attached { // mayOpen reports the error
		return true
	}
	st, err := files.Stat()
	if err != nil || st.WALSize <= dbfile.WALHeaderSize {
		return err == nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.x.MaxFrame > 0 && c.database == st.DatabaseInode && c.wal == st.WALInode && c.size == st.DatabaseSize &&
		c.modified.Equal(st.ModTime) && holds(files, c.x)
}

// wrote records the main file after a checkpoint of ours has written to it.
func (c *claim) wrote(files *dbfile.Files) {
	st, err := files.Stat()
	c.mu.Lock()
	defer c.mu.Unlock()
	if err == nil && c.database == st.DatabaseInode {
		c.modified, c.size = st.ModTime, st.DatabaseSize
	}
}

// holds reports whether the WAL still has the last frame of x.
func holds(files *dbfile.Files, x dbfile.WALIndex) bool {
	wal := files.WAL()
	if wal == nil {
		return false
	}
	var b [dbfile.FrameHeaderSize]byte
	if _, err := wal.ReadAt(b[:], dbfile.WALHeader{PageSize: x.PageSize}.FrameOffset(x.MaxFrame)); err != nil {
		return false
	}
	word := func(at int) uint32 { return binary.BigEndian.Uint32(b[at:]) }
	return word(8) == x.Salt1 && word(12) == x.Salt2 && x.Checksum == dbfile.Checksum{word(16), word(20)}
}
