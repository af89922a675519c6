package capture

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/sqlwatch/sqlwatch/internal/dbfile"
	"github.com/sqlwatch/sqlwatch/internal/sqlite"
	"github.com/sqlwatch/sqlwatch/replicator/spool"
)

// What happens when the others come and go.
//
//	others there for long    we stand back: their last close is the last of all, and
//	                         what it unlinks is read to its end
//	others short and many    we stay attached, so that no last close takes the WAL away
//	                         before it is read
//	nobody, for a moment     the WAL is emptied, and its index made to know nothing:
//	                         whatever file is put in the database's place is found as it is
//	nobody, for longer       we leave as the last close does: no WAL, no wal-index
const (
	aloneFor    = 200 * time.Millisecond // without anybody: the others have left
	longLife    = time.Second            // others that were there for so long
	longLooks   = 8                      // at so many looks, are no short-lived ones
	emptyRetry  = nextActive             // after somebody was in the way
	emptyStall  = time.Second            // there is nobody to be held up, unless somebody comes just now
	shortMemory = 10 * time.Minute       // for so long after a life was missed, others count as short-lived
)

// To open or close a database takes its user less than this.
const (
	unclearTries = 4
	unclearPause = 5 * time.Millisecond
)

// presence is who else uses the database, and since when.
type presence struct {
	files    *dbfile.Files
	attached bool      // others are
	since    time.Time // the same is so
	looks    int       // as often it was found
	long     bool      // those who were there last were there for long
	short    time.Time // others count as short-lived until then
	retry    time.Time // the WAL is not to be emptied before
}

// look looks who is there. Errors: dbfile.ErrUnclear, *dbfile.ForeignError.
func (p *presence) look(now time.Time) error {
	attached, err := p.files.Others()
	if foreign := (*dbfile.ForeignError)(nil); err == nil || errors.As(err, &foreign) {
		p.met(now, attached || foreign != nil)
	}
	return err
}

func (p *presence) met(now time.Time, attached bool) {
	if p.looks++; attached == p.attached && !p.since.IsZero() {
		return
	}
	if p.attached {
		if p.long = now.Sub(p.since) >= longLife; !p.long {
			p.missed(now)
		}
	}
	p.attached, p.since, p.looks, p.retry = attached, now, 1, time.Time{}
}

// missed notes that others are such as come and go, of whom one was missed, or nearly.
func (p *presence) missed(now time.Time) { p.long, p.short = false, now.Add(shortMemory) }

// alone reports whether nobody else has been there for a moment.
func (p *presence) alone(now time.Time) bool { return !p.attached && now.Sub(p.since) >= aloneFor }

// settled reports whether the others are such as stay.
func (p *presence) settled(now time.Time) bool {
	return p.attached && now.Sub(p.since) >= longLife && p.looks >= longLooks && now.After(p.short)
}

// attend looks who else is there. While the wal-index is not theirs, no connection
// of ours exists.
func (c *Capture) attend(now time.Time) error {
	err := c.presence.look(now)
	for try := 0; errors.Is(err, dbfile.ErrUnclear) && try < unclearTries; try++ {
		time.Sleep(unclearPause)
		err = c.presence.look(now)
	}
	if foreign := (*dbfile.ForeignError)(nil); errors.As(err, &foreign) && c.hold.isOpen() {
		c.tail.rewind()
		return errors.Join(err, c.hold.close())
	}
	return err
}

// undisturbed reports whether, without connections, there is nothing to do.
func (c *Capture) undisturbed() bool {
	if c.continuity.lost != "" {
		return false
	}
	if !c.presence.attached {
		return c.continuity.atRest()
	}
	x, err := readIndex(c.files)
	return err == nil && c.tail.head.Current(x) && c.continuity.unheld(x) == nil
}

// lie makes the position of a database at rest one that the next life can be
// compared with: its wal-index counts from 0.
func (c *Capture) lie() error {
	pos := c.state.Position()
	if rest := pos.AtRest(pos.Main); rest != pos {
		return c.continuity.confirm(rest)
	}
	return nil
}

// rest is for a database that nobody else uses: nothing of ours may stand then that
// could be taken for part of a file that is put in its place.
func (c *Capture) rest(ctx context.Context, x dbfile.WALIndex, now time.Time) error {
	c.tally.Next = nextActive
	st, err := c.files.Stat()
	if err != nil {
		return err
	}
	if x.MaxFrame > 0 || st.WALSize > 0 {
		if now.Before(c.presence.retry) {
			return nil
		}
		c.hold.blank, c.presence.retry = false, now.Add(emptyRetry)
		if err := c.files.MayOpen(); err != nil { // whoever holds no lock may be there nevertheless
			return err
		}
		c.continuity.level = levelFile{}
		r, err := c.truncater.run(ctx, sqlite.Truncate, sqlite.Budget{Stall: emptyStall})
		c.log.Debug("nobody else is connected: the wal was emptied", "outcome", r.Outcome, "err", err)
		return err
	}
	main, err := c.continuity.mainFile()
	if err != nil || main == (spool.MainFile{}) || !c.tail.head.Current(x) || !c.tail.batch.Empty() {
		return err
	}
	switch {
	case !c.lingers(now):
		return c.leave(main)
	case !c.hold.blank:
		return c.forget(ctx, x, main)
	}
	c.tally.Next = nextLevel
	return nil
}

// lingers reports whether to stay attached although nobody else is there: whoever
// comes next may be gone again before we have seen him.
func (c *Capture) lingers(now time.Time) bool {
	return !c.presence.long && (now.Sub(c.pace.active) < c.o.IdleAfter || now.Sub(c.presence.since) < c.o.IdleAfter)
}

// leave closes the connections as the last of all.
func (c *Capture) leave(main spool.MainFile) error {
	if err := c.files.MayOpen(); err != nil { // somebody without locks is there
		return errors.Join(err, c.hold.close())
	}
	if err := c.continuity.confirm(c.tail.head.AtRest(main)); err != nil {
		return err
	}
	c.log.Debug("nobody else is connected: closed as the last connection")
	c.tally.Next = nextIdle
	c.tail.release()
	err := c.hold.leave()
	sqlite.ReturnMemory()
	if _, refreshErr := c.files.Refresh(); err == nil {
		err = refreshErr
	}
	return err
}

// forget makes the wal-index of the empty WAL know nothing, and goes on holding it.
func (c *Capture) forget(ctx context.Context, x dbfile.WALIndex, main spool.MainFile) error {
	if err := c.hold.reader().EndRead(); err != nil {
		return err
	}
	c.hold.proven = false
	err := c.hold.work.Forget(x.Change)
	if err == nil {
		c.hold.blank = true
		err = c.continuity.confirm(c.tail.head.AtRest(main))
	}
	if errors.Is(err, sqlite.ErrBusy) || errors.Is(err, sqlite.ErrReplaced) {
		err = nil // somebody has come
	}
	if err = errors.Join(err, c.ready(ctx)); err == nil && c.hold.blank {
		main.Changed = 0
		c.continuity.level = levelFile{onZero: c.hold.onZero(), main: main} // a copy may come at any moment
	}
	return err
}

// drain reads to the end what an application's last close has unlinked, and proves
// that nothing came after it. Where our side files were removed by hand, under those
// who use them, nothing is read: presence tells what follows.
func (c *Capture) drain() error {
	used, err := c.files.IndexUsed()
	if err != nil || used || !c.hold.active() || !c.hold.proven {
		c.continuity.lose(ReasonWALIndex, "the -shm file was removed or replaced")
		return c.dropFiles()
	}
	x, err := c.files.WALIndex()
	if err == nil {
		err = c.flusher.capture(x)
	}
	var main spool.MainFile
	if err == nil {
		main, err = c.continuity.mainFile()
	}
	if err == nil && main == (spool.MainFile{}) {
		return errUnsettledFile
	}
	var lost *discontinuityError
	switch unlinked, statErr := c.files.WALUnlinked(); {
	case errors.As(err, &lost):
		c.continuity.lose(lost.reason, lost.detail)
	case err != nil:
		return err
	case statErr == nil && unlinked.IsZero():
		c.continuity.lose(ReasonWALIndex, "the -shm file was removed or replaced")
	case statErr != nil || x.Backfilled < x.MaxFrame || unlinked.UnixNano() <= main.Modified:
		c.presence.missed(c.o.Clock())
		c.continuity.lose(ReasonWALReset, "the WAL was removed, and the database written to since")
	default:
		err = c.continuity.confirm(c.tail.head.AtRest(main))
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
var errUnsettledFile = fmt.Errorf("%w: the main file was written to just now", errRestarting)

// partTime bounds what is done for leaving at the very end.
const partTime = 2 * time.Second

// part leaves the database at the end of all: as the last one, if nobody else is
// there, else with what a later life may be compared with.
func (c *Capture) part() error {
	change, err := c.files.Refresh()
	if err != nil || change.Database || !c.hold.active() || !c.hold.proven || c.continuity.lost != "" {
		return nil // what was not captured is found by the next who looks
	}
	ctx, cancel := context.WithTimeout(context.Background(), partTime)
	defer cancel()
	c.presence.retry = time.Time{}
	for ctx.Err() == nil && c.hold.isOpen() && !c.copies.Any() {
		if attached, err := c.files.Others(); err != nil || attached {
			break
		}
		x, err := readIndex(c.files)
		if err != nil {
			return err
		}
		c.presence.long = true // nobody waits for the next short life
		err = c.flusher.flush()
		if err == nil {
			err = c.rest(ctx, x, c.o.Clock())
		}
		if err != nil && !passing(err) {
			return err
		}
		if c.hold.isOpen() {
			time.Sleep(clockTick / 4)
		}
	}
	if c.hold.active() && c.tail.batch.Empty() {
		return c.continuity.rememberLevel()
	}
	return nil
}
