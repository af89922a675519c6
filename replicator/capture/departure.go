package capture

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/sqlwatch/sqlwatch/internal/dbfile"
	"github.com/sqlwatch/sqlwatch/internal/sqlite"
	"github.com/sqlwatch/sqlwatch/replicator/capture/mainfile"
	"github.com/sqlwatch/sqlwatch/replicator/capture/pace"
	"github.com/sqlwatch/sqlwatch/replicator/capture/presence"
	"github.com/sqlwatch/sqlwatch/replicator/capture/segments"
	"github.com/sqlwatch/sqlwatch/replicator/capture/statedir"
	"github.com/sqlwatch/sqlwatch/replicator/capture/tail"
	"github.com/sqlwatch/sqlwatch/replicator/overlay"
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
	arrival    = 2 * time.Second // without a write, a copy is all there
	emptyRetry = pace.Active     // after somebody was in the way
	emptyStall = time.Second     // there is nobody to wait for it, unless somebody comes just now
)

// departure leaves the database as SQLite leaves it, once nobody else is there: nothing
// of ours may stand then that could be taken for part of a file that is put in its place.
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

// lie makes the position of a database at rest one that the next life can be
// compared with: its wal-index counts from 0.
func (d *departure) lie() error {
	pos := d.state.Position()
	if rest := pos.AtRest(pos.Main); rest != pos {
		return d.continuity.confirm(rest)
	}
	return nil
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
		if d.hold.blank && x.MaxFrame == 0 { // written by nobody who is connected: half of a copy that is put in place
			d.strange = now
			return next, d.hold.close()
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

// arriving reports whether a copy of two files is being put in place.
func (d *departure) arriving(now time.Time) bool {
	main, err := d.continuity.main.Now()
	return err == nil && !d.presence.Attached() &&
		min(now.Sub(d.strange), max(0, now.Sub(time.Unix(0, main.Modified)))) < arrival && !d.strange.IsZero()
}

// lingers reports whether to stay attached although nobody else is there: whoever
// comes next may be gone again before we have seen him.
func (d *departure) lingers(now time.Time) bool {
	return !d.presence.Long() && !d.ends && (now.Sub(d.pace.Read) < d.idleAfter ||
		now.Sub(d.presence.Since()) < d.idleAfter)
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
	if err := d.hold.reader().EndRead(); err != nil {
		return err
	}
	d.hold.proven = false
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

// partTime bounds what is done for leaving at the very end.
const partTime = 2 * time.Second

// part leaves the database at the end of all: as the last one, if nobody else is
// there, else with what a later life may be compared with.
func (d *departure) part() error {
	change, err := d.files.Refresh()
	if err != nil || change.Database || !d.hold.active() || !d.hold.proven || d.continuity.lost != "" {
		return nil // what was not captured is found by the next who looks
	}
	ctx, cancel := context.WithTimeout(context.Background(), partTime)
	defer cancel()
	d.notBefore, d.ends = time.Time{}, true
	defer func() { d.ends = false }()
	for ctx.Err() == nil && d.hold.isOpen() && !d.copies.Any() {
		if attached, err := d.files.Others(); err != nil || attached {
			break
		}
		if d.hold.stood { // this wal-index counts no longer: see attend
			d.tail.Rewind()
			if err := errors.Join(d.hold.close(), d.again(ctx)); err != nil {
				return nil // what was not captured is found by the next who looks
			}
		}
		x, err := tail.Index(d.files)
		if err != nil {
			return err
		}
		err = d.flusher.Flush()
		if err == nil {
			_, err = d.rest(ctx, x, d.clock())
		}
		if err != nil && !passing(err) {
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
