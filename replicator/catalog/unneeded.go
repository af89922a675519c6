package catalog

import (
	"cmp"
	"slices"
	"time"

	"github.com/superfly/ltx"

	"github.com/sqlwatch/sqlwatch/replicator/store"
)

// Dated is a file with the time of its newest batch.
type Dated struct {
	store.LTXFile
	At    time.Time
	Until ltx.TXID // of an unneeded file: the end of the group of files that is deleted together with it

	Useless bool // known to be corrupt or unreadable: no restore begins with it, and it replaces no other file
}

// Unneeded returns the files that no promised restore uses. files must be sorted by key, and so
// is the result.
//
// Promised are all restore points (ends of files) younger than keep, and the newest one older
// than that, except those that thinning removes. A restore begins at the newest snapshot at or
// before its target. So no promised restore uses files that end before the snapshot of the
// oldest promised point, nor a thinned file that a file of a higher level covers.
//
// Protected keys, those of the last verified chain, are never returned.
func Unneeded(files []Dated, keep time.Duration, thin []time.Duration, now time.Time,
	protected map[string]bool) []Dated {
	base, ok := oldestBase(files, now.Add(-keep))
	if !ok {
		return nil // no promised point has a snapshot: the files that exist may be all there is
	}
	runs := levelRuns(files)
	var out []Dated
	for _, f := range files {
		f.Until = f.MaxTXID
		switch {
		case protected[f.Object.Key]:
			continue
		case f.MaxTXID < base, f.MaxTXID == base && !f.Snapshot():
		case f.MaxTXID <= base:
			continue
		default:
			if f.Until = thinned(f, runs, keep, thin, now); f.Until == 0 {
				continue
			}
		}
		out = append(out, f)
	}
	return out
}

// Sift returns a filter for the files that Unneeded has to see, given the replica's snapshots, so
// that a listing of millions need not be kept in memory: files that end at or before the newest
// snapshot beyond keep, and files old enough to be thinned out or to cover such files.
func Sift(snapshots []Dated, keep time.Duration, thin []time.Duration, now time.Time) func(Dated) bool {
	base, _ := oldestBase(snapshots, now.Add(-keep))
	soonest := keep
	for _, age := range thin {
		if age > 0 {
			soonest = min(soonest, age)
		}
	}
	return func(f Dated) bool {
		return f.MaxTXID <= base || now.Sub(f.At) >= soonest
	}
}

// oldestBase returns the TXID of the snapshot from which the oldest promised restore point is
// restored: the newest snapshot at or before the newest point that is not younger than the
// cutoff.
func oldestBase(files []Dated, cutoff time.Time) (base ltx.TXID, ok bool) {
	var oldest ltx.TXID // the oldest promised point
	for _, f := range files {
		if !f.At.After(cutoff) {
			oldest = max(oldest, f.MaxTXID)
		}
	}
	for _, f := range files {
		if f.Snapshot() && !f.Useless && f.MaxTXID <= oldest {
			base, ok = max(base, f.MaxTXID), true
		}
	}
	return base, ok
}

// thinned returns the end of the higher level's file that covers f and is old enough that f can
// be deleted, 0 if there is none. The covering file of the lowest level decides, by its own age,
// which is that of the youngest file that it covers: all files under it are deleted together, or
// the rest would have a gap. A file that was in no merge (see NextWindow) takes the place of files
// of the levels below its cover and is kept as long as those. Beyond keep all covered files can
// be deleted, since only the chain to the oldest promised point is needed there.
func thinned(f Dated, runs [][]Dated, keep time.Duration, thin []time.Duration, now time.Time) ltx.TXID {
	if f.Snapshot() {
		return 0
	}
	for _, run := range runs {
		if run[0].Level <= f.Level {
			continue
		}
		if g := cover(f, run); g != nil {
			age := keep
			if g.Level <= len(thin) && thin[g.Level-1] > 0 {
				age = min(keep, thin[g.Level-1])
			}
			if now.Sub(g.At) >= age {
				return g.MaxTXID
			}
			return 0
		}
	}
	return 0
}

// cover returns a file of run, one level sorted by min TXID, that spans f. Of overlapping files it
// looks only at the nearest few: missing one only keeps more files.
func cover(f Dated, run []Dated) *Dated {
	i, _ := slices.BinarySearchFunc(run, f.MinTXID+1, func(g Dated, t ltx.TXID) int { return cmp.Compare(g.MinTXID, t) })
	for k := i - 1; k >= max(0, i-4); k-- {
		if !run[k].Snapshot() && !run[k].Useless && run[k].MaxTXID >= f.MaxTXID {
			return &run[k]
		}
	}
	return nil
}

// levelRuns splits files, sorted by key, into levels.
func levelRuns(files []Dated) (runs [][]Dated) {
	for start := 0; start < len(files); {
		end := start + 1
		for end < len(files) && files[end].Level == files[start].Level {
			end++
		}
		runs = append(runs, files[start:end])
		start = end
	}
	return runs
}
