package plain

import (
	"encoding/binary"
	"errors"
	"sync"
	"time"

	"github.com/sqlwatch/sqlwatch/internal/dbfile"
)

// ErrUnclaimed says that nobody is connected, and nobody who was wrote the WAL that is there: it may be
// part of a copy that is just put in place, and belong to a file that is not there yet.
var ErrUnclaimed = errors.New("nobody is connected, and it is not known whose WAL this is: it is left to whoever " +
	"opens the database next")

// claim is the WAL as it was last seen in use, and the main file at that time.
type claim struct {
	mu       sync.Mutex // guards what follows; held over nothing
	database uint64     // inodes; 0: nothing was seen
	wal      uint64
	x        dbfile.WALIndex
	modified time.Time // of the main file
	size     int64
}

// look takes in what is there, if another process uses it.
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

// covers reports whether the WAL belongs to the main file: somebody uses both, it has no frames, or
// it goes on from what was in use, and the main file is still the same.
func (c *claim) covers(files *dbfile.Files) bool {
	if change, err := files.Refresh(); err != nil || change.Database {
		return false
	}
	attached, err := files.Others()
	if err != nil || attached { // an error is for mayOpen to tell
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

// wrote takes in what a checkpoint of ours has written to the main file.
func (c *claim) wrote(files *dbfile.Files) {
	st, err := files.Stat()
	c.mu.Lock()
	defer c.mu.Unlock()
	if err == nil && c.database == st.DatabaseInode {
		c.modified, c.size = st.ModTime, st.DatabaseSize
	}
}

// holds reports whether the WAL has the frame that was the last of x.
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
