package capture

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/sqlwatch/sqlwatch/internal/dbfile"
	"github.com/sqlwatch/sqlwatch/internal/sqlite"
	"github.com/sqlwatch/sqlwatch/replicator/capture/leftover"
	"github.com/sqlwatch/sqlwatch/replicator/capture/mainfile"
	"github.com/sqlwatch/sqlwatch/replicator/capture/pace"
	"github.com/sqlwatch/sqlwatch/replicator/capture/presence"
	"github.com/sqlwatch/sqlwatch/replicator/capture/segments"
	"github.com/sqlwatch/sqlwatch/replicator/capture/statedir"
	"github.com/sqlwatch/sqlwatch/replicator/capture/tail"
	"github.com/sqlwatch/sqlwatch/replicator/overlay"
	"github.com/sqlwatch/sqlwatch/replicator/spool"
)

// What happens when others come and go.
//
//	others stay for long     we stand back: their last close is the last of all, and
//	                         the WAL that it unlinks is read to its end
//	many short visits        we stay attached, so that no last close removes the WAL
//	                         before it is read
//	nobody, for a moment     the WAL is emptied and its index cleared: whatever file is
//	                         put in the database's place is found as it is
//	nobody, for longer       we leave as the last close does: no WAL, no wal-index; at once
//	                         where somebody was seen who wants exclusive use, or waits for it
const (
	arrival    = 2 * time.Second // without a write, a copy is all there
	emptyRetry = pace.Active     // after somebody was in the way
	clearEvery = time.Minute     // an attempt at files that need not go
	emptyStall = time.Second     // there is nobody to wait for it, unless somebody comes just now
)

// departure leaves the database as SQLite leaves it once nobody else is there: nothing of
// ours may remain that could be taken for part of a file that is put in its place.
type departure struct {
	files      *dbfile.Files
	tail       *tail.Tail
	state      *statedir.Dir
	continuity *continuity
	flusher    *segments.Flusher
	copies     *overlay.Copies
	hold       *hold
	truncater  *truncater
	presence   *presence.Presence
	pace       *pace.Pace
	idleAfter  time.Duration
	clock      func() time.Time
	log        *slog.Logger
	again      func(context.Context) error // holds the WAL once more, and proves continuity

	notBefore time.Time // the WAL is to be emptied
	since     time.Time // when those had left for whom that counts
	ends      bool      // nobody waits for the next short life
	strange   time.Time // a WAL was there that nobody who is connected wrote
}

// lie makes the position of a database at rest one that the next life can be compared
// with: its wal-index counts from 0.
func (d *departure) lie() error {
	pos := d.state.Position()
	if rest := pos.AtRest(pos.Main); rest != pos {
		return d.continuity.confirm(rest)
	}
	return nil
}

// clear removes what a sqlwatch that was killed has left beside a database at rest, once we would have
// left ourselves. It changes nothing about the database, so it is no error where it cannot.
func (d *departure) clear(ctx context.Context, now time.Time) {
	left, err := leftover.There(d.files)
	if err != nil || !left || d.lingers(now) || now.Before(d.notBefore) || !d.continuity.atRest() {
		return
	}
	d.notBefore = now.Add(clearEvery)
	err = leftover.Remove(ctx, d.files)
	d.log.Debug("empty side files of a database that nobody uses were removed", "err", err)
}

// rest empties the WAL of a database that nobody else uses, and leaves it or makes its
// wal-index know nothing. It returns when to look again.
func (d *departure) rest(ctx context.Context, x dbfile.WALIndex, now time.Time) (next time.Duration, err error) {
	next = pace.Active
	if d.since != d.presence.Since() {
		d.since, d.notBefore = d.presence.Since(), time.Time{}
	}
	st, err := d.files.Stat()
	if err != nil {
		return next, err
	}
	if x.MaxFrame > 0 || st.WALSize > 0 {
		if d.hold.blank && x.MaxFrame == 0 {
			return next, d.meet(now)
		}
		if now.Before(d.notBefore) {
			return next, nil
		}
		d.hold.blank, d.notBefore = false, now.Add(emptyRetry)
		if err := d.files.MayOpen(); err != nil { // whoever holds no lock may be there nevertheless
			return next, err
		}
		d.continuity.level = levelFile{}
		r, err := d.truncater.run(ctx, sqlite.Truncate, sqlite.Budget{Stall: emptyStall})
		d.log.Debug("nobody else is connected: the wal was emptied", "outcome", r.Outcome, "err", err)
		return next, err
	}
	main, err := d.continuity.main.Sure()
	if err != nil || main == (spool.MainFile{}) || !d.tail.Head.Current(x) || !d.tail.Batch.Empty() {
		return next, err
	}
	switch {
	case !d.lingers(now):
		return pace.Idle, d.leave(main)
	case !d.hold.blank:
		return next, d.forget(ctx, x, main)
	}
	return pace.Level, nil
}

// meet says whose WAL it is that was not there: of somebody who has just come, or, where he is not
// connected and committed nothing to our wal-index, half of a copy that is put in place.
func (d *departure) meet(now time.Time) error {
	if err := d.presence.Look(now); err != nil || d.presence.Attached() {
		return err
	}
	if x, err := tail.Index(d.files); err != nil || x.MaxFrame > 0 {
		return err
	}
	d.strange = now
	return d.hold.close()
}

// arriving reports whether a copy of two files is being put in place. Each may be the first.
func (d *departure) arriving(now time.Time) bool {
	if d.strange.IsZero() && d.unclaimed() {
		d.strange = now
	}
	still, err := d.continuity.main.Still(now)
	return err == nil && !d.presence.Attached() && min(now.Sub(d.strange), still) < arrival && !d.strange.IsZero()
}

// unclaimed reports whether nobody uses the WAL that there is and it does not go on from what was
// captured: nobody was seen who wrote it for this file. An application that was killed may have, and
// so may one whose files are just put in the place of these.
func (d *departure) unclaimed() bool {
	st, err := d.files.Stat()
	if err != nil || d.presence.Attached() || st.WALSize <= dbfile.WALHeaderSize {
		return false
	}
	pos := d.state.Position()
	h, err := d.files.WALHeader()
	return err == nil && pos.TXID > 0 && (h.Salt1 != pos.Salt1 || h.Salt2 != pos.Salt2)
}

// lingers reports whether to stay attached although nobody else is there: the next visitor
// may be gone before we have seen it.
func (d *departure) lingers(now time.Time) bool {
	return !d.presence.Long() && !d.presence.Exclusive() && !d.ends && (now.Sub(d.pace.Read) < d.idleAfter ||
		now.Sub(d.presence.Since()) < d.idleAfter) && !d.presence.Waited()
}

// leave closes the connections as the last of all.
func (d *departure) leave(main spool.MainFile) error {
	if err := d.files.MayOpen(); err != nil { // somebody without locks is there
		return errors.Join(err, d.hold.close())
	}
	if err := d.continuity.confirm(d.tail.Head.AtRest(main)); err != nil {
		return err
	}
	d.log.Debug("nobody else is connected: closed as the last connection")
	d.tail.Release()
	err := d.hold.leave()
	sqlite.ReturnMemory()
	if _, refreshErr := d.files.Refresh(); err == nil {
		err = refreshErr
	}
	return err
}

// forget makes the wal-index of the empty WAL know nothing, and goes on holding it.
func (d *departure) forget(ctx context.Context, x dbfile.WALIndex, main spool.MainFile) error {
	// Before the mark is let go: who comes then may be gone again, or in the way, before we hold one.
	level := d.tail.Head
	level.Main = main
	if err := d.continuity.confirm(level); err != nil {
		return err
	}
	d.hold.proven = false
	if err := d.hold.reader().EndRead(); err != nil {
		return err
	}
	err := d.hold.work.Forget(x.Change)
	if err == nil {
		d.hold.blank = true
		err = d.continuity.confirm(d.tail.Head.AtRest(main))
	}
	if errors.Is(err, sqlite.ErrBusy) || errors.Is(err, sqlite.ErrReplaced) {
		err = nil // somebody has come
	}
	if err = errors.Join(err, d.again(ctx)); err == nil && d.hold.blank {
		main.Changed = 0
		d.continuity.level = levelFile{onZero: d.hold.onZero(), main: main} // a copy may come at any moment
	}
	return err
}

// forsake lets a wal-index go for which we stood back, once those have gone who used it:
// whoever came since need not have used it, and it is made anew from what the WAL holds.
func (d *departure) forsake() error {
	if d.continuity.lost != "" || !d.hold.active() || !d.hold.proven || d.flusher.CaptureHead() != nil {
		d.tail.Rewind()
	}
	return d.hold.close()
}

const partTime = 2 * time.Second // bounds what is done for leaving at the very end

// part leaves the database at the end of all: as the last one, if nobody else is
// there, else with what a later life may be compared with.
func (d *departure) part() error {
	change, err := d.files.Refresh()
	if err != nil || change.Database || d.continuity.lost != "" {
		return nil // what was not captured is found by the next who looks
	}
	ctx, cancel := context.WithTimeout(context.Background(), partTime)
	defer cancel()
	d.notBefore, d.ends = time.Time{}, true
	if !d.hold.isOpen() {
		if attached, err := d.files.Others(); err == nil && !attached {
			d.clear(ctx, d.clock())
		}
		return nil
	}
	if err := d.again(ctx); err != nil || !d.hold.active() || !d.hold.proven { // somebody may be in the way
		return nil
	}
	for ctx.Err() == nil && d.hold.isOpen() && !d.hold.unclaimed && !d.copies.Any() {
		if attached, err := d.files.Others(); err != nil || attached {
			break
		}
		if d.hold.stood {
			if err := errors.Join(d.forsake(), d.again(ctx)); err != nil {
				return nil // what was not captured is found by the next who looks
			}
		}
		x, err := tail.Index(d.files)
		if err != nil {
			return err
		}
		if err = d.flusher.Flush(); err == nil {
			_, err = d.rest(ctx, x, d.clock())
		}
		if err != nil && !passing(err) && ctx.Err() == nil { // whoever comes next finds what there was no time for
			return err
		}
		if d.hold.isOpen() {
			time.Sleep(mainfile.Tick / 4)
		}
	}
	if d.hold.active() && d.tail.Batch.Empty() {
		return d.continuity.rememberLevel()
	}
	return nil
}
