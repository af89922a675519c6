package capture

import (
	"context"
	"errors"
	"fmt"

	"github.com/superfly/ltx"

	"github.com/sqlwatch/sqlwatch/replicator/pagesums"
	"github.com/sqlwatch/sqlwatch/replicator/spool"
)

// diff makes good what could not be proven: it reads the database once, in one
// read transaction, and ships the pages that are not what the page-checksum map
// says, as one ordinary segment. With no map, or one of another page size, that
// is every page.
func (c *Capture) diff(ctx context.Context) (err error) {
	if err := c.rewind(); err != nil {
		return err
	}
	conn, old := c.hold.reader(), c.hold.free()
	if c.hold.active() {
		conn, old = old, conn
	}
	v, err := openView(ctx, c.files, conn)
	if err != nil {
		err = fmt.Errorf("compare database with its page checksums: %w", err)
		if passing(err) {
			return err
		}
		// What cannot be read stays in the WAL for as long as we hold it.
		return errors.Join(err, old.EndRead())
	}
	// What the other transaction held is held for nothing: the new one sees more.
	if err := old.EndRead(); err != nil {
		return errors.Join(err, conn.EndRead())
	}
	if conn != c.hold.reader() {
		c.hold.held = 1 - c.hold.held
	}
	c.hold.zero, c.hold.mark = conn.ReadMark() == 0, 0
	if v.x.Pages == 0 {
		return nil // the file is empty: nothing was ever written
	}
	if err := c.compare(ctx, v); err != nil {
		return fmt.Errorf("compare database with its page checksums: %w", err)
	}
	c.tally.Reason, c.doubt, c.hold.proven = c.doubt, "", true
	return nil
}

// compare writes the segment and the new map, and adopts both.
func (c *Capture) compare(ctx context.Context, v *view) (err error) {
	next, whole, err := c.afterDiff(v)
	if err != nil {
		return err
	}
	h := ltx.Header{PageSize: uint32(next.PageSize), Commit: next.Pages, MinTXID: next.TXID, MaxTXID: next.TXID, Timestamp: next.Timestamp}
	if whole {
		h.MinTXID = 1
	}
	w, err := c.spool.Create(h)
	if err != nil {
		return err
	}
	sums, err := pagesums.Create(c.sumsPath())
	if err != nil {
		return errors.Join(err, w.Abort())
	}
	defer func() { err = errors.Join(err, w.Abort(), sums.Abort()) }()
	known := func() (ltx.Checksum, error) { return 0, nil }
	if !whole {
		known = c.sums.Load().Entries()
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
	if w.Pages() == 0 && next.Pages == c.pos.Pages {
		return c.confirm(next)
	}
	r, err := w.Finish(next, string(c.doubt))
	if err != nil {
		return err
	}
	if err := w.Commit(r); err != nil {
		return err
	}
	// From here on the segment counts; a crash before the map is there makes
	// the map again from the segment.
	c.pos, c.head, c.tally.Spooled = next, next, true
	if err := sums.Commit(next.TXID, next.PageSize); err != nil {
		c.broken = true
		return err
	}
	return c.swapSums()
}

func discard(next func() (ltx.Checksum, error)) error {
	_, err := next()
	return err
}

// afterDiff returns the position after a diff to v, its checksum still missing,
// and whether it must be the whole database.
func (c *Capture) afterDiff(v *view) (next spool.Position, whole bool, err error) {
	st, err := c.files.Stat()
	if err != nil {
		return next, false, err
	}
	next = c.following(c.pos).Moved(v.x)
	next.Doubt = ""
	next.PageSize, next.Device, next.Inode = v.x.PageSize, st.Dev, st.DatabaseInode
	if next.Main, err = c.mainFile(); err != nil {
		return next, false, err
	}
	m := c.sums.Load()
	whole = m == nil || m.PageSize() != next.PageSize
	switch c.doubt {
	case ReasonFirst, ReasonState, ReasonReplaced, ReasonPageSize:
		next.Lineage = newLineage()
	}
	return next, whole, nil
}

// confirm adopts a position whose content is what the last segment left.
func (c *Capture) confirm(p spool.Position) error {
	p.TXID, p.Timestamp = c.pos.TXID, c.pos.Timestamp
	if err := c.spool.Restate(p); err != nil {
		return err
	}
	c.pos, c.head = p, p
	return nil
}

// swapSums opens the map that was just written.
func (c *Capture) swapSums() error {
	m, err := pagesums.Open(c.sumsPath())
	if err != nil {
		c.broken = true
		return err
	}
	if old := c.sums.Swap(m); old != nil {
		return old.Close()
	}
	return nil
}
