package capture

import (
	"errors"
	"fmt"
	"time"

	"github.com/sqlwatch/sqlwatch/internal/dbfile"
	"github.com/sqlwatch/sqlwatch/replicator/capture/tail"
	"github.com/sqlwatch/sqlwatch/replicator/spool"
)

// attend looks who else is there. While the wal-index is not theirs, no connection
// of ours exists.
func (c *Capture) attend(now time.Time) error {
	err := c.presence.Attend(now)
	if foreign := (*dbfile.ForeignError)(nil); errors.As(err, &foreign) && c.hold.isOpen() {
		c.tail.Rewind()
		return errors.Join(err, c.hold.close())
	}
	if err == nil && c.hold.stood && !c.presence.Attached() {
		// Those for whom we stood back have gone, and whoever came since need not have used this
		// wal-index: let it go, so that it is made anew from what the WAL holds.
		switch change, err := c.files.Refresh(); {
		case err != nil:
			return err
		case change.Database:
			return ErrReplaced
		case change.WAL || change.Shm: // they have left as the last do, just now
			return c.drain()
		}
		proven := c.continuity.lost == "" && c.hold.active() && c.hold.proven
		if !proven || c.flusher.CaptureHead() != nil {
			c.tail.Rewind()
		}
		return c.hold.close()
	}
	return err
}

// undisturbed reports whether, without connections, there is nothing to do.
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

// drain reads to the end what an application's last close has unlinked, and proves
// that nothing came after it. Where our side files were removed by hand, under those
// who use them, nothing is read: presence tells what follows.
func (c *Capture) drain() error {
	used, err := c.files.IndexUsed()
	if err != nil || used || !c.hold.active() || !c.hold.proven {
		c.continuity.lose(tail.ReasonWALIndex, "the -shm file was removed or replaced")
		return c.dropFiles()
	}
	x, err := c.files.WALIndex()
	if err == nil {
		err = c.flusher.Capture(x)
	}
	var main spool.MainFile
	if err == nil {
		main, err = c.continuity.main.Sure()
	}
	if err == nil && main == (spool.MainFile{}) {
		return errUnsettledFile
	}
	var lost *tail.DiscontinuityError
	switch unlinked, statErr := c.files.WALUnlinked(); {
	case errors.As(err, &lost):
		c.continuity.lose(lost.Reason, lost.Detail)
	case err != nil:
		return err
	case statErr == nil && unlinked.IsZero():
		c.continuity.lose(tail.ReasonWALIndex, "the -shm file was removed or replaced")
	case statErr != nil || x.Backfilled < x.MaxFrame || unlinked.UnixNano() <= main.Modified:
		c.presence.Missed(c.o.Clock())
		c.continuity.lose(tail.ReasonWALReset, "the WAL was removed, and the database written to since")
	default:
		err = c.continuity.confirm(c.tail.Head.AtRest(main))
	}
	return errors.Join(err, c.dropFiles())
}

// dropFiles closes the connections to side files that are no longer there.
func (c *Capture) dropFiles() error {
	if err := c.hold.close(); err != nil {
		return err
	}
	_, err := c.files.Refresh()
	return err
}

// errUnsettledFile says that the main file was written to just now.
var errUnsettledFile = fmt.Errorf("%w: the main file was written to just now", tail.ErrRestarting)
