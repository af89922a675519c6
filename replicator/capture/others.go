package capture

import (
	"errors"
	"time"

	"github.com/sqlwatch/sqlwatch/internal/dbfile"
	"github.com/sqlwatch/sqlwatch/replicator/capture/tail"
	"github.com/sqlwatch/sqlwatch/replicator/spool"
)

// attend finds out who else uses the database. While others use another wal-index than the one beside
// the file, no connection of ours stays open. Where those for whom we stood back have gone, it gives up
// their wal-index.
func (c *Capture) attend(now time.Time) error {
	err := c.presence.Attend(now)
	if foreign := (*dbfile.ForeignError)(nil); errors.As(err, &foreign) && c.hold.isOpen() {
		c.tail.Rewind()
		return errors.Join(err, c.hold.close())
	}
	if err == nil && c.hold.stood && !c.presence.Attached() {
		switch change, err := c.names(); {
		case err != nil:
			return err
		case change.Database:
			return ErrReplaced
		case !c.hold.isOpen():
			return nil
		case change.WAL || change.Shm: // their last close has just removed the side files
			return c.drain()
		}
		return c.departure.forsake()
	}
	return err
}

// undisturbed reports whether, while we have no connections, nothing was committed that is not
// captured.
func (c *Capture) undisturbed() bool {
	if c.continuity.lost != "" {
		return false
	}
	if !c.presence.Attached() {
		return c.continuity.atRest()
	}
	x, err := tail.Index(c.files)
	return err == nil && c.tail.Head.Current(x) && c.continuity.unheld(x) == nil
}

// drain reads to its end a WAL that an application's last close has unlinked, and proves that nothing
// was written after it. Where the side files were removed in another way, it writes the commits left in
// them to the database, unless another file was put in the database's place.
func (c *Capture) drain() error {
	if replaced, err := c.continuity.replaced(c.hold); err != nil {
		return err
	} else if replaced { // before the WAL was removed
		return c.hold.drop()
	}
	if left, err := c.writeBack(); left || err != nil {
		return err
	}
	if !c.hold.active() || !c.hold.proven {
		c.continuity.lose(tail.ReasonWALIndex, "the -shm file was removed or replaced")
		return c.hold.drop()
	}
	x, err := c.files.WALIndex()
	if err == nil {
		err = c.flusher.Capture(x)
	}
	var main spool.MainFile
	if err == nil {
		main, err = c.continuity.main.Settled()
	}
	var lost *tail.DiscontinuityError
	switch unlinked, statErr := c.files.WALUnlinked(); {
	case errors.As(err, &lost):
		c.continuity.lose(lost.Reason, lost.Detail)
	case err != nil:
		return err
	case statErr == nil && unlinked.IsZero():
		c.continuity.lose(tail.ReasonWALIndex, "the -shm file was removed or replaced")
	case statErr != nil || x.Backfilled < x.MaxFrame || c.continuity.main.WrittenSince(unlinked, main):
		c.presence.Missed(c.o.Clock())
		c.continuity.lose(tail.ReasonWALReset, "the WAL was removed, and the database written to since")
	default:
		err = c.continuity.confirm(c.tail.Head.AtRest(main))
	}
	c.continuity.main.Unfollow()
	return errors.Join(err, c.hold.drop())
}

// writeBack closes the connections to a WAL that was unlinked while it held commits, and writes those
// commits to the database. It does nothing where everything was backfilled, or where the database was
// written to after the WAL was unlinked, or the WAL is of another file.
func (c *Capture) writeBack() (done bool, err error) {
	x, err := c.files.WALIndex()
	former, _ := c.continuity.ofFormer(x)
	unlinked, statErr := c.files.WALUnlinked()
	if err != nil || statErr != nil || unlinked.IsZero() || x.Backfilled >= x.MaxFrame || former {
		return false, nil
	}
	main, err := c.continuity.main.Settled()
	if err != nil || c.continuity.main.WrittenSince(unlinked, main) {
		return false, err
	}
	err = c.hold.closeUnlinked(func() bool {
		time.Sleep(min(copyBegins, max(0, copyBegins-time.Since(unlinked))))
		now, err := c.continuity.main.Now()
		return err == nil && now == main
	})
	c.continuity.lose(tail.ReasonWALReset, "the WAL was removed while it held commits")
	return true, errors.Join(err, c.hold.drop())
}

// copyBegins is how soon after the WAL was removed a copy over the database begins to be written, if
// the WAL was removed for that: what was in the WAL is then no longer wanted.
const copyBegins = 25 * time.Millisecond
