package catalog

import (
	"time"

	"github.com/superfly/ltx"

	"github.com/sqlwatch/sqlwatch/replicator/store"
)

// Bounds of one merge: each input has buffers of its own, and the output is a temporary
// file. What a week of days becomes may be larger.
const (
	maxMergeInputs = 256
	maxMergeBytes  = 256 << 20
	maxWeekBytes   = 4 << 30
	week           = 7 * 24 * time.Hour
)

// Window is a run of files that become one file of a level.
type Window struct {
	Level  int
	Inputs []store.LTXFile
	Until  ltx.TXID  // the level is done up to here
	Due    time.Time // nothing to do before; zero with nothing to wait for
}

// NextWindow decides what a level is to be made of files (of lower levels, in any
// order), when everything up to done has been dealt with. A window is merged once
// it is over, so that no file grows; a window of a single file is passed over,
// since a copy of it would only cost.
//
// It is pure: when gives a file's time.
func NextWindow(files []store.LTXFile, level int, done ltx.TXID, interval time.Duration, now time.Time,
	when func(store.LTXFile) time.Time) Window {
	first := next(files, level, done)
	if first == nil {
		if first = nearest(files, level, done); first == nil {
			return Window{Level: level, Until: done}
		}
		done = first.MinTXID - 1 // what lies between was a snapshot, or is lost
	}
	end := when(*first).Truncate(interval).Add(interval)
	if now.Before(end) {
		return Window{Level: level, Until: done, Due: end}
	}
	w := Window{Level: level, Until: done, Due: now}
	var bytes int64
	limit := int64(maxMergeBytes)
	if interval >= week {
		limit = maxWeekBytes
	}
	for f := first; f != nil; f = next(files, level, w.Until) {
		bytes += f.Object.Size
		if !when(*f).Before(end) || len(w.Inputs) == maxMergeInputs || len(w.Inputs) > 0 && bytes > limit {
			break
		}
		w.Inputs = append(w.Inputs, *f)
		w.Until = f.MaxTXID
	}
	if len(w.Inputs) == 0 { // a clock that went back: the file's window is over, the file is later
		w.Inputs, w.Until = []store.LTXFile{*first}, first.MaxTXID
	}
	return w
}

// next returns the file below level that begins right after done and reaches
// farthest; nil when there is none. Snapshots begin chains and join none.
func next(files []store.LTXFile, level int, done ltx.TXID) (best *store.LTXFile) {
	for i, f := range files {
		if f.Level < level && f.MinTXID == done+1 && !f.Snapshot() && (best == nil || f.MaxTXID > best.MaxTXID) {
			best = &files[i]
		}
	}
	return best
}

// nearest returns the first file below level that begins after done+1.
func nearest(files []store.LTXFile, level int, done ltx.TXID) (best *store.LTXFile) {
	for i, f := range files {
		if f.Level < level && f.MinTXID > done && !f.Snapshot() && (best == nil || f.MinTXID < best.MinTXID) {
			best = &files[i]
		}
	}
	return best
}
