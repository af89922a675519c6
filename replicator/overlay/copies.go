package overlay

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/sqlwatch/sqlwatch/internal/dbfile"
)

// Copies are the open snapshots of a database. No lock is held for them: before its holder moves the read mark it
// calls Preserve, so that they keep what the main file has of the pages that may change then.
//
// Add and Preserve are for the holder of the WAL, from one goroutine at a time; the other methods may be called from
// any.
type Copies struct {
	files *dbfile.Files

	mu   sync.Mutex // guards open
	open []*Copy

	salt1, salt2, frame uint32 // frames up to here are preserved, of the generation of these salts
}

// NewCopies returns the snapshots of a database, none yet.
func NewCopies(files *dbfile.Files) *Copies { return &Copies{files: files} }

// ErrLetGo says that the WAL was let go, so that pages that the snapshot needs may change without having been kept.
var ErrLetGo = errors.New("snapshot given up: the wal was let go meanwhile")

// Add begins to preserve for a copy of the database at x's commit.
func (c *Copies) Add(o *Copy, x dbfile.WALIndex) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.open) == 0 {
		c.salt1, c.salt2, c.frame = x.Salt1, x.Salt2, x.MaxFrame
	}
	c.open = append(c.open, o)
}

// Remove ends what Add began.
func (c *Copies) Remove(o *Copy) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.open = slices.DeleteFunc(c.open, func(p *Copy) bool { return p == o })
}

// Any reports whether a snapshot is being read.
func (c *Copies) Any() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.open) > 0
}

// GiveUp ends all copies: reading them returns err.
func (c *Copies) GiveUp(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, o := range c.open {
		o.GiveUp(err)
	}
}

// Prepare makes the files that Preserve may need, before others wait for it.
func (c *Copies) Prepare() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, o := range c.open {
		o.Prepare()
	}
}

// Preserve makes the copies keep the pages of which a newer version is in the WAL up
// to x. The caller holds the WAL with a mark beyond which nothing was preserved yet,
// and moves it afterwards, but not beyond x.
func (c *Copies) Preserve(x dbfile.WALIndex) {
	if !c.Any() {
		return
	}
	if err := c.preserveTo(x); err != nil {
		c.GiveUp(fmt.Errorf("snapshot given up: %w", err))
	}
}

func (c *Copies) preserveTo(x dbfile.WALIndex) error {
	if c.salt1 != x.Salt1 || c.salt2 != x.Salt2 {
		c.salt1, c.salt2, c.frame = x.Salt1, x.Salt2, 0
	}
	if c.frame >= x.MaxFrame {
		return nil
	}
	h, err := c.files.WALHeader()
	if err != nil {
		return err
	}
	wal := c.files.WAL()
	if wal == nil || h.Salt1 != x.Salt1 || h.Salt2 != x.Salt2 {
		return dbfile.ErrSalt
	}
	var number [4]byte
	for ; c.frame < x.MaxFrame; c.frame++ {
		if _, err := wal.ReadAt(number[:], h.FrameOffset(c.frame+1)); err != nil {
			return fmt.Errorf("read wal frame %d: %w", c.frame+1, err)
		}
		c.preservePage(binary.BigEndian.Uint32(number[:]))
	}
	return nil
}

func (c *Copies) preservePage(page uint32) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, o := range c.open {
		o.Preserve(page)
	}
}
