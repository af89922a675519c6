package capture

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"

	"github.com/superfly/ltx"

	"github.com/sqlwatch/sqlwatch/internal/dbfile"
	"github.com/sqlwatch/sqlwatch/replicator/capture/statedir"
	"github.com/sqlwatch/sqlwatch/replicator/spool"
)

// comparer makes good what could not be proven: it compares the database with the
// page-checksum map.
type comparer struct {
	files      *dbfile.Files
	tail       *tail
	state      *statedir.Dir
	continuity *continuity
	hold       *hold
}

// run reads the database once, in one read transaction, and ships the pages that
// are not what the page-checksum map says, as one ordinary segment. With no map, or
// one of another page size, that is every page. It returns why that was due.
func (c *comparer) run(ctx context.Context) (why Reason, err error) {
	c.tail.rewind()
	c.state.Seen(c.state.Clock(), false)
	conn, old := c.hold.reader(), c.hold.free()
	if c.hold.active() {
		conn, old = old, conn
	}
	v, err := openView(ctx, c.files, conn)
	if err != nil {
		err = fmt.Errorf("compare database with its page checksums: %w", err)
		if passing(err) {
			return "", err
		}
		// What cannot be read stays in the WAL for as long as we hold it.
		return "", errors.Join(err, old.EndRead())
	}
	// What the other transaction held is held for nothing: the new one sees more.
	if err := old.EndRead(); err != nil {
		return "", errors.Join(err, conn.EndRead())
	}
	if conn != c.hold.reader() {
		c.hold.held = 1 - c.hold.held
	}
	c.hold.zero, c.hold.mark = conn.ReadMark() == 0, 0
	if v.x.Pages == 0 {
		return "", nil // the file is empty: nothing was ever written
	}
	if err := c.compare(ctx, v); err != nil {
		return "", fmt.Errorf("compare database with its page checksums: %w", err)
	}
	why, c.continuity.lost = c.continuity.lost, ""
	c.hold.proven = true
	return why, nil
}

// compare writes the segment and the new map, and adopts both.
func (c *comparer) compare(ctx context.Context, v *view) (err error) {
	next, whole, err := c.afterComparison(v)
	if err != nil {
		return err
	}
	h := ltx.Header{
		PageSize: uint32(next.PageSize), Commit: next.Pages, MinTXID: next.TXID, MaxTXID: next.TXID, Timestamp: next.Timestamp,
	}
	if whole {
		h.MinTXID = 1
	}
	w, err := c.state.Spool().Create(h)
	if err != nil {
		return err
	}
	sums, err := c.state.CreateSums()
	if err != nil {
		return errors.Join(err, w.Abort())
	}
	defer func() { err = errors.Join(err, w.Abort(), sums.Abort()) }()
	known := func() (ltx.Checksum, error) { return 0, nil }
	if !whole {
		known = c.state.Sums().Entries()
	}
	err = v.each(ctx, func(page uint32, data []byte) error {
		for sums.Pages()+1 < page { // the lock page
			if err := errors.Join(sums.Add(0), discard(known)); err != nil {
				return err
			}
		}
		sum := w.Sum(page, data)
		was, err := known()
		if err == nil && was != sum {
			err = w.Add(page, data)
		}
		return errors.Join(err, sums.Add(sum))
	})
	if err != nil {
		return err
	}
	next.Checksum = sums.Checksum()
	if w.Pages() == 0 && next.Pages == c.state.Position().Pages {
		return c.continuity.confirm(next)
	}
	r, err := w.Finish(next, string(c.continuity.lost))
	if err != nil {
		return err
	}
	if err := w.Commit(r); err != nil {
		return err
	}
	c.tail.restart(next) // from here on the segment counts
	return c.state.AdoptMap(next, sums)
}

func discard(next func() (ltx.Checksum, error)) error {
	_, err := next()
	return err
}

// afterComparison returns the position after a comparison with v, its checksum still missing,
// and whether it must be the whole database.
func (c *comparer) afterComparison(v *view) (next spool.Position, whole bool, err error) {
	st, err := c.files.Stat()
	if err != nil {
		return next, false, err
	}
	next = c.state.Following(c.state.Position(), false).Moved(v.x)
	next.Doubt = ""
	next.PageSize, next.Device, next.Inode = v.x.PageSize, st.Dev, st.DatabaseInode
	if next.Main, err = c.continuity.mainFile(); err != nil {
		return next, false, err
	}
	m := c.state.Sums()
	whole = m == nil || m.PageSize() != next.PageSize
	switch c.continuity.lost {
	case ReasonFirst, ReasonState, ReasonReplaced, ReasonPageSize:
		next.Lineage = newLineage()
	}
	return next, whole, nil
}

func newLineage() string {
	var b [8]byte
	rand.Read(b[:])
	return hex.EncodeToString(b[:])
}
