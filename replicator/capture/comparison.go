package capture

import (
	"context"
	"errors"
	"fmt"

	"github.com/superfly/ltx"

	"github.com/sqlwatch/sqlwatch/internal/dbfile"
	"github.com/sqlwatch/sqlwatch/internal/pagecrc"
	"github.com/sqlwatch/sqlwatch/replicator/capture/segments"
	"github.com/sqlwatch/sqlwatch/replicator/capture/statedir"
	"github.com/sqlwatch/sqlwatch/replicator/capture/tail"
	"github.com/sqlwatch/sqlwatch/replicator/capture/view"
	"github.com/sqlwatch/sqlwatch/replicator/overlay"
	"github.com/sqlwatch/sqlwatch/replicator/pagesums"
	"github.com/sqlwatch/sqlwatch/replicator/queue"
	"github.com/sqlwatch/sqlwatch/replicator/spool"
)

// comparer captures what may have been missed where continuity is not proven: it compares the database with the
// page-checksum map.
//
// The main file is read in portions, while the application writes and the WAL is restarted as usual. The result is
// exact, because frames take precedence over what was read: a page that a checkpoint may write meanwhile, and that
// may be read torn or too early, is in the WAL up to the read mark; and everything up to the mark was taken from
// there before the portion was read.
type comparer struct {
	files      *dbfile.Files
	tail       *tail.Tail
	state      *statedir.Dir
	continuity *continuity
	flusher    *segments.Flusher
	hold       *hold
	between    func(context.Context) error // keeps the WAL bounded, between two portions
	stage      int64                       // bytes of pages that one segment may have
	portion    int                         // bytes of the main file that are read between two looks at the WAL
	place      *queue.Place                // in the queue of databases to be read in full
}

// run compares once, and puts the pages that differ from the page-checksum map into the spool as one ordinary
// segment. It returns the Reason that the comparison was due for.
func (c *comparer) run(ctx context.Context) (why Reason, err error) {
	if err := c.wait(); err != nil { // hold nothing: the comparison finds what happens meanwhile
		c.tail.Rewind()
		return "", errors.Join(err, c.hold.close())
	}
	defer c.place.End()
	c.tail.Rewind()
	c.state.Anew()
	c.hold.copies.GiveUp(overlay.ErrLetGo)
	conn, old := c.hold.reader(), c.hold.free()
	if c.hold.active() {
		conn, old = old, conn
	}
	x, err := view.Begin(ctx, c.files, conn)
	if err != nil {
		err = fmt.Errorf("compare database with its page checksums: %w", err)
		if passing(err) {
			return "", err
		}
		// To go on holding would only keep in the WAL what cannot be read.
		return "", errors.Join(err, old.EndRead())
	}
	// The other transaction is no longer needed: the new one sees more.
	if err := old.EndRead(); err != nil {
		return "", errors.Join(err, conn.EndRead())
	}
	if conn != c.hold.reader() {
		c.hold.held = 1 - c.hold.held
	}
	c.hold.zero = false
	if x.Pages == 0 {
		return "", nil // the file is empty: nothing was ever written
	}
	if err := c.compare(ctx, x); err != nil {
		return "", fmt.Errorf("compare database with its page checksums: %w", again(err))
	}
	why, c.continuity.lost = c.continuity.lost, ""
	c.hold.proven = true
	return why, nil
}

// wait returns ErrQueued where other databases are to be read first.
func (c *comparer) wait() error {
	st, err := c.files.Stat()
	first, what := c.continuity.lost == tail.ReasonFirst, "the comparison that is due"
	if first {
		what = "the first capture"
	}
	if err == nil && !c.place.Begin(st.DatabaseSize, first) {
		return fmt.Errorf("%s waits for its turn: %w", what, ErrQueued)
	}
	return err
}

// again wraps errors that only prove that others were at work in view.ErrNone, so that the comparison is tried
// again.
func again(err error) error {
	lost := (*tail.DiscontinuityError)(nil)
	if errors.As(err, &lost) || errors.Is(err, overlay.ErrMissing) || errors.Is(err, dbfile.ErrSalt) ||
		errors.Is(err, dbfile.ErrChecksum) {
		return fmt.Errorf("%w: %w", view.ErrNone, err)
	}
	return err
}

// compare reads the database and adopts what it finds.
func (c *comparer) compare(ctx context.Context, x dbfile.WALIndex) (err error) {
	next, whole, err := c.afterComparison(x)
	if err != nil {
		return err
	}
	found := overlay.NewFound(overlay.NewPages(next.PageSize, overlay.Options{Dir: c.state.Path, Limit: c.stage,
		Room: c.state.Room}))
	sums, err := c.state.CreateSums()
	if err != nil {
		return err
	}
	c.tail.Restart(next) // from here on commits are read as usual, but added to found
	gathered := c.flusher.Gather(found)
	defer func() {
		gathered()
		if err != nil {
			c.tail.Restart(c.state.Position())
		}
		err = errors.Join(err, sums.Abort(), found.Close())
	}()
	look := view.NewWatch(c.files, c.continuity.main).Look
	alone := func() error { return errors.Join(ctx.Err(), view.Disturbed(c.files, x)) }
	if err := errors.Join(look(), overlay.NotBackfilled(c.files, x, alone, found.Take)); err != nil {
		return err
	}
	if st, err := c.files.Stat(); err != nil {
		return err
	} else if page := found.Missing(st.DatabaseSize, x.PageSize, x.Pages); page > 0 {
		return fmt.Errorf("page %d of %d: %w", page, x.Pages, ErrCut)
	}
	known, before := c.known(whole), func() error {
		c.place.Advance()
		return errors.Join(c.between(ctx), look())
	}
	if err := found.ReadMain(c.files.Database(), x.PageSize, x.Pages, c.portion, sums, known, before); err != nil {
		return err
	}
	if err := c.between(ctx); err != nil { // once more, to the head
		return err
	}
	next = c.tail.Head
	// What was read includes commits made until now, so a restore to an earlier moment must not find it.
	now := c.state.Following(c.state.Position(), false)
	next.Timestamp, next.Taken = now.Timestamp, now.Taken
	next.Main, err = c.continuity.main.Sure()
	if err = errors.Join(err, look()); err != nil {
		return err
	}
	if err := found.Patch(sums, next.PageSize, next.Pages); err != nil {
		return err
	}
	next.Checksum = sums.Checksum()
	if found.Pages() == nil {
		c.tail.Restart(next)
		return c.state.AdoptWhole(next, sums, c.continuity.lost != tail.ReasonSpool) // a full spool is emptied
	}
	return c.ship(next, whole, found, sums)
}

// known returns an iterator over the map's entries; with whole, it yields zeros.
func (c *comparer) known(whole bool) func() (ltx.Checksum, error) {
	if whole {
		return func() (ltx.Checksum, error) { return 0, nil }
	}
	return c.state.Sums().Entries()
}

// comparePortion takes some milliseconds to read, so that a hold on READ0 is left that soon.
const comparePortion = 4 << 20

// ship makes a segment of the pages found, and adopts it together with the new map.
func (c *comparer) ship(next spool.Position, whole bool, found *overlay.Found, sums *pagesums.Writer) (err error) {
	h := ltx.Header{
		PageSize: uint32(next.PageSize), Commit: next.Pages, MinTXID: next.TXID, MaxTXID: next.TXID,
		Timestamp: next.Timestamp,
	}
	if whole {
		h.MinTXID = 1
	}
	w, err := c.state.Spool().Create(h)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.Abort()) }()
	data, known, at := make([]byte, next.PageSize), c.known(whole), uint32(0)
	for _, page := range found.Pages().Numbers() {
		if page > next.Pages {
			break
		}
		var was ltx.Checksum
		for ; at < page; at++ {
			if was, err = known(); err != nil {
				return err
			}
		}
		if _, err := found.Pages().Get(page, data); err != nil {
			return err
		}
		if pagecrc.Page(page, data) == was {
			continue // it was in the WAL and had been captured
		}
		if err := w.Add(page, data); err != nil {
			return err
		}
	}
	if w.Pages() == 0 && next.Pages == c.state.Position().Pages {
		c.continuity.alike = c.continuity.lost == tail.ReasonReplaced
		return c.continuity.confirm(next)
	}
	r, err := w.Finish(next, string(c.continuity.lost))
	if err != nil {
		return err
	}
	if err := w.Commit(r); err != nil {
		return err
	}
	c.tail.Restart(next) // the segment is durable, and counts
	return c.state.AdoptMap(next, sums)
}

// afterComparison returns the position, except for its checksum, after a comparison that begins at x, and whether
// the segment must hold the whole database.
func (c *comparer) afterComparison(x dbfile.WALIndex) (next spool.Position, whole bool, err error) {
	st, err := c.files.Stat()
	if err != nil {
		return next, false, err
	}
	next = c.state.Following(c.state.Position(), false).Moved(x)
	next.Doubt = ""
	next.PageSize, next.Device, next.Inode = x.PageSize, st.Dev, st.DatabaseInode
	m := c.state.Sums()
	whole = m == nil || m.PageSize() != next.PageSize
	switch c.continuity.lost {
	case tail.ReasonFirst, tail.ReasonState, tail.ReasonReplaced, tail.ReasonPageSize:
		next.Lineage = statedir.NewLineage()
	}
	return next, whole, nil
}
