package collector

import (
	"errors"
	"fmt"
	"time"

	"github.com/sqlwatch/sqlwatch/internal/dbfile"
)

// currentIndex returns the wal-index or, if there is none, its equivalent from the WAL itself.
// exclusive says that the application keeps the wal-index in its own memory.
func (r *Sampler) currentIndex(now time.Time, l *dbfile.Locks) (x dbfile.WALIndex, exclusive bool, err error) {
	// A -shm that a crash left behind is stale while an exclusive application runs: it never
	// opened that file, so it does not hold its DMS byte.
	exclusive = l.Shared.Held && l.Shared.Exclusive && !l.DMS.Held
	if exclusive {
		x, err = r.scanned()
	} else {
		x, err = r.files.WALIndex()
		if errors.Is(err, dbfile.ErrNoWALIndex) || errors.Is(err, dbfile.ErrUninitialised) {
			x, err = r.scanned()
		} else if err == nil {
			r.rebuilt = r.rebuilt || r.scanning
			r.scanning = false
			err = r.pair(x)
		}
	}
	if err == nil {
		r.indexSeen = now
		return x, exclusive, nil
	}
	if !r.indexSeen.IsZero() && now.Sub(r.indexSeen) < indexGrace {
		return r.index, r.sample.WAL.Exclusive, nil
	}
	return x, exclusive, err
}

// scanned counts the WAL's frames. A missing or empty WAL has none.
func (r *Sampler) scanned() (dbfile.WALIndex, error) {
	x, err := r.scan.read(r.files, r.index)
	if errors.Is(err, dbfile.ErrNoWAL) {
		r.scan = walScan{}
		x, err = dbfile.WALIndex{Change: r.index.Change}, nil
	}
	if err == nil {
		r.scanning, r.rebuilt = true, false // it continues the counts of the last index
	}
	return x, err
}

// pair compares the wal-index with the WAL beside it, once for each generation: two files that
// belong to different databases, or different times, must not be read as one.
func (r *Sampler) pair(x dbfile.WALIndex) error {
	if x.MaxFrame == 0 || r.paired && x.Salt1 == r.index.Salt1 && x.Salt2 == r.index.Salt2 {
		return nil
	}
	h, err := r.files.WALHeader()
	if err != nil {
		return fmt.Errorf("wal-index speaks of %d frames: %w", x.MaxFrame, err)
	}
	if h.Salt1 != x.Salt1 || h.Salt2 != x.Salt2 {
		// A reset between the two reads looks the same: only a wal-index that does not change is wrong.
		if again, err := r.files.WALIndex(); err != nil || again.Salt1 != x.Salt1 || again.Salt2 != x.Salt2 {
			return nil
		}
		return errMispaired
	}
	if size := r.sample.Database.PageSize; size != 0 && h.PageSize != size {
		return fmt.Errorf("%w: its pages have %d bytes, the database's %d", errMispaired, h.PageSize, size)
	}
	r.paired = true
	return nil
}

// observe records a wal-index: the totals, the times and the lag.
func (r *Sampler) observe(now time.Time, x dbfile.WALIndex) {
	if x.Pages > 0 { // even if the index is unchanged: the header was read again, and is older
		r.sample.Database.Pages = x.Pages
	}
	w := &r.sample.WAL
	prev := r.index
	if r.watching && x == prev && w.Change == x.Change && w.Frames == x.MaxFrame { // of a new file they may differ
		return
	}
	var d delta
	if r.watching {
		d = advance(prev, x, r.rebuilt)
	}
	generation := !r.watching || x.Salt1 != prev.Salt1 || x.Salt2 != prev.Salt2
	backfilled := min(x.Backfilled, x.MaxFrame) // it exceeds MaxFrame for a moment at each reset
	if generation {
		r.lag.clear()
		w.Restarted = now
	}
	w.CommitsTotal += d.commits
	w.FramesWrittenTotal += d.frames
	w.ResetsTotal += d.resets
	if d.commits > 0 {
		w.LastWrite = now
	}
	moved := generation || x.MaxFrame != prev.MaxFrame || x.Backfilled != prev.Backfilled
	if r.watching && (d.resets > 0 || moved && x.MaxFrame > 0 && backfilled == x.MaxFrame) {
		w.LastCompleteCheckpoint = now
	}
	w.LagSince = r.lag.observe(now, x.MaxFrame, backfilled)
	w.PageSize = x.PageSize
	w.Frames, w.CheckpointedFrames = x.MaxFrame, backfilled
	w.Salt1, w.Salt2, w.Change = x.Salt1, x.Salt2, x.Change
	r.index, r.watching, r.rebuilt = x, true, false
}
