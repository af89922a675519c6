package capture

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/sqlwatch/sqlwatch/internal/dbfile"
	"github.com/sqlwatch/sqlwatch/internal/sqlite"
	"github.com/sqlwatch/sqlwatch/replicator/capture/claim"
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

// What capture does when other processes come and go.
//
//	others stay for long     capture stands back: their last close is then the last of all,
//	                         and the WAL that it unlinks is read to its end
//	many short visits        capture stays connected, so that no last close removes the WAL
//	                         before it is read
//	nobody, for a moment     the WAL is truncated and its index cleared: whatever file is put
//	                         in the database's place is then read as it is
//	nobody, for longer       capture leaves as SQLite's last close does: no WAL, no wal-index;
//	                         at once where a process wanted exclusive use, or waits for it
const (
	emptyRetry = pace.Active // after another process was in the way
	clearEvery = time.Minute // between attempts to remove side files that do no harm
	emptyStall = time.Second // nobody is connected who could wait, unless a process comes just now
)

// departure leaves the database as SQLite's last close does once nobody else is connected: nothing of
// ours may remain that could be taken for part of a file that is put in the database's place.
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
	claim      *claim.Claim
	pace       *pace.Pace
	idleAfter  time.Duration
	clock      func() time.Time
	log        *slog.Logger
	again      func(context.Context) error // holds the WAL again, and proves continuity

	notBefore time.Time // the WAL is not emptied, nor are side files removed
	since     time.Time // the presence.Since that notBefore belongs to
	ends      bool      // Close is under way: do not linger
}

// lie turns the position of a database at rest into one that can be compared with the wal-index of the
// process that opens it next, which counts commits from 0.
func (d *departure) lie() error {
	pos := d.state.Position()
	if rest := pos.AtRest(pos.Main); rest != pos {
		return d.continuity.confirm(rest)
	}
	return nil
}

// clear removes the empty side files that a killed sqlwatch has left beside a database at rest, once we
// would have left ourselves: see lingers. The database does not change, so a failure is no error.
func (d *departure) clear(ctx context.Context, now time.Time) {
	left, err := leftover.There(d.files)
	if err != nil || !left || d.lingers(now) || now.Before(d.notBefore) || !d.continuity.atRest() {
		return
	}
	d.notBefore = now.Add(clearEvery)
	err = leftover.Remove(ctx, d.files)
	d.log.Debug("empty side files of a database that nobody uses were removed", "err", err)
}

// rest empties the WAL of a database that nobody else uses, and then leaves the database or clears its
// wal-index. It returns when to look again.
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
			strange, err := d.claim.Stranger(now)
			if strange {
				err = d.hold.close()
			}
			return next, err
		}
		if now.Before(d.notBefore) {
			return next, nil
		}
		d.hold.blank, d.notBefore = false, now.Add(emptyRetry)
		if err := d.files.MayOpen(); err != nil { // a process that takes no locks may use it
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

// lingers reports whether to stay connected although nobody else is: where processes come and go, the
// next one may be gone before we have seen it.
func (d *departure) lingers(now time.Time) bool {
	return !d.presence.Long() && !d.presence.Exclusive() && !d.ends && (now.Sub(d.pace.Read) < d.idleAfter ||
		now.Sub(d.presence.Since()) < d.idleAfter) && !d.presence.Waited()
}

// leave closes the connections as SQLite's last close does.
func (d *departure) leave(main spool.MainFile) error {
	if err := d.files.MayOpen(); err != nil { // a process that takes no locks uses it
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

// forget clears the wal-index of the empty WAL, and then holds the WAL again.
func (d *departure) forget(ctx context.Context, x dbfile.WALIndex, main spool.MainFile) error {
	// Before the read mark is released: a process that comes then may be gone again before we hold
	// another mark, or keep us from holding one.
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
		err = nil // another process has come
	}
	if err = errors.Join(err, d.again(ctx)); err == nil && d.hold.blank {
		main.Changed = 0
		d.continuity.level = levelFile{onZero: d.hold.onZero(), main: main} // to notice a copy written over it
	}
	return err
}

// forsake gives up the wal-index that we stood back from, once the processes that used it have gone:
// any that came since may use another one, and the next to open the database rebuilds it from the WAL.
func (d *departure) forsake() error {
	_, err := d.continuity.replaced(d.hold) // a rebuilt wal-index would not tell
	if err != nil || d.continuity.lost != "" || !d.hold.active() || !d.hold.proven || d.flusher.CaptureHead() != nil {
		d.tail.Rewind()
	}
	return d.hold.close()
}

// unclaim leaves a WAL as it is that is of the file that was there before, until somebody commits to it: who has put
// a copy in place may be about to remove that WAL.
func (d *departure) unclaim() {
	x, err := d.files.WALIndex()
	_, still := d.continuity.ofFormer(x)
	if err == nil && still && x.MaxFrame > 0 && !d.hold.unclaimed && !d.presence.Attached() {
		d.claim.Forget()
		d.hold.unclaimed = true
	}
}

const partTime = 3 * time.Second // bounds the attempts to leave properly on Close

// part leaves the database on Close: as SQLite's last close does if nobody else is connected, else with
// a position that the next Open can compare with what it finds.
func (d *departure) part() error {
	change, err := d.files.Refresh()
	if err != nil || change.Database || d.continuity.lost != "" {
		return nil // the next Capture finds what was not captured
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
	if err := d.again(ctx); err != nil || !d.hold.active() || !d.hold.proven { // another process may be in the way
		return nil
	}
	for ctx.Err() == nil && d.hold.isOpen() && !d.hold.unclaimed && !d.copies.Any() {
		if attached, err := d.files.Others(); err != nil || attached {
			break
		}
		if d.hold.stood {
			if err := errors.Join(d.forsake(), d.again(ctx)); err != nil {
				return nil // the next Capture finds what was not captured
			}
		}
		x, err := tail.Index(d.files)
		if err != nil {
			return err
		}
		if err = d.flusher.Flush(); err == nil {
			_, err = d.rest(ctx, x, d.clock())
		}
		if err != nil && !passing(err) && ctx.Err() == nil { // the next Open finds what there was no time for
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
