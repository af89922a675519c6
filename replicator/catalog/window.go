package catalog

import (
	"time"

	"github.com/superfly/ltx"

	"github.com/sqlwatch/sqlwatch/replicator/store"
)

// Bounds of one merge: each input has its own buffers, and the output is a temporary file.
// The file of a week may be larger.
const (
	maxMergeInputs = 256
	maxMergeBytes  = 256 << 20
	maxWeekBytes   = 4 << 30
	week           = 7 * 24 * time.Hour
)

// Window is a run of files that are merged into one file of a level.
type Window struct {
	Level  int
	Inputs []store.LTXFile
	Until  ltx.TXID  // the level is done up to here
	Due    time.Time // when there is something to do; zero: nothing to wait for
}

// NextWindow decides which files (of lower levels, in any order) are merged next into a file of
// a level, of which everything up to done has been dealt with. A window is merged once it is
// over, so that no merged file has to grow; a window of a single file is skipped by the caller,
// since merging would only copy it.
//
// when returns a file's time.
func NextWindow(files []store.LTXFile, level int, done ltx.TXID, interval time.Duration, now time.Time,
	when func(store.LTXFile) time.Time) Window {
	first := Joining(files, level, done)
	if first == nil {
		if first = nearest(files, level, done); first == nil {
			return Window{Level: level, Until: done}
		}
		done = first.MinTXID - 1 // the TXIDs in between are in a snapshot, or lost
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
	for f := first; f != nil; f = Joining(files, level, w.Until) {
		bytes += f.Object.Size
		if !when(*f).Before(end) || len(w.Inputs) == maxMergeInputs || len(w.Inputs) > 0 && bytes > limit {
			break
		}
		w.Inputs = append(w.Inputs, *f)
		w.Until = f.MaxTXID
	}
	if len(w.Inputs) == 0 { // the clock was set back, and when now gives a later time: take the file alone
		w.Inputs, w.Until = []store.LTXFile{*first}, first.MaxTXID
	}
	return w
}

// Joining returns the file below level that begins right after done and reaches farthest; nil if
// there is none. It ignores snapshots, which begin chains.
func Joining(files []store.LTXFile, level int, done ltx.TXID) (best *store.LTXFile) {
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
