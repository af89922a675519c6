package collector

import (
	"time"

	"github.com/sqlwatch/sqlwatch/internal/dbfile"
)

// delta is what the change from one look at a WAL to the next adds to the totals.
type delta struct{ commits, frames, resets uint64 }

// advance compares two looks at one database's wal-index. rebuilt says that the wal-index
// was seen missing or empty in between, so that its counters started over. What cannot be
// proven is not counted: totals are exact or too low, never too high, except that a
// TRUNCATE of an empty WAL may be counted as a reset if it happened together with others.
//
//	what happened               salts          Change             MaxFrame
//	nothing                     same           same               same
//	commits                     same           +1 each            grows
//	reset by a writer, TRUNCATE salt-1 +1      goes on            from 0
//	fresh connection begins an
//	  empty WAL                 random         goes on            from 0
//	wal-index rebuilt (crash)   same           from 0             same or more
//	last close, then reopened   0, then random from 0             from 0
//	older files put back        any            any                any
func advance(prev, next dbfile.WALIndex, rebuilt bool) delta {
	commits := next.Change - prev.Change // modulo 2^32, as the counter wraps
	if prev.Salt1 == next.Salt1 && prev.Salt2 == next.Salt2 {
		if next.MaxFrame < prev.MaxFrame {
			return delta{} // frames of a generation never disappear: older files were put back
		}
		frames := next.MaxFrame - prev.MaxFrame
		if rebuilt || commits > frames { // a commit has at least one frame
			commits = min(next.Change, frames)
		}
		if frames > 0 {
			commits = max(commits, 1)
		}
		return delta{commits: uint64(commits), frames: uint64(frames)}
	}
	if rebuilt || commits > 1<<31 { // backwards
		commits = next.Change
	}
	if next.MaxFrame > 0 {
		commits = max(commits, 1)
	}
	return delta{
		commits: uint64(commits),
		// The old generation may have grown before it ended, by at least one frame
		// for each commit that is not in the new one.
		frames: uint64(max(next.MaxFrame, commits)),
		resets: resets(prev, next, commits),
	}
}

// resets returns how often the WAL started over between two looks with different
// salts. Salt-1 grows by one each time, but a new connection that begins an empty WAL
// chooses it at random: a difference is only believed if there were enough commits to
// fill that many generations.
func resets(prev, next dbfile.WALIndex, commits uint32) uint64 {
	least := uint64(0)
	if prev.MaxFrame > 0 {
		least = 1
	}
	step := uint64(next.Salt1 - prev.Salt1)
	if step >= least && step <= uint64(commits)+least {
		return step
	}
	return least
}

// lag remembers when frames that are not backfilled yet were first seen, so that their age is
// known after a checkpoint that backfilled only some of them.
type lag struct {
	marks []lagMark // ascending
}

type lagMark struct {
	upTo uint32 // frames up to here, from the mark before on
	seen time.Time
}

// lagMarks limits the memory of a lag. Beyond it, every other mark is merged into its successor,
// which makes frames seem older, never younger.
const lagMarks = 64

// observe records the number of frames in the WAL and how many of them are backfilled, and returns
// when the oldest other frame was first seen; zero if there is none.
func (l *lag) observe(now time.Time, frames, backfilled uint32) time.Time {
	drop := 0
	for drop < len(l.marks) && l.marks[drop].upTo <= backfilled {
		drop++
	}
	l.marks = append(l.marks[:0], l.marks[drop:]...)
	if backfilled >= frames {
		return time.Time{}
	}
	if n := len(l.marks); n == 0 || l.marks[n-1].upTo < frames {
		if n == lagMarks {
			l.halve()
		}
		l.marks = append(l.marks, lagMark{upTo: frames, seen: now})
	}
	return l.marks[0].seen
}

// halve merges marks in pairs: both ranges get the older time.
func (l *lag) halve() {
	kept := l.marks[:0]
	for i := 0; i+1 < len(l.marks); i += 2 {
		kept = append(kept, lagMark{upTo: l.marks[i+1].upTo, seen: l.marks[i].seen})
	}
	l.marks = kept
}

// clear forgets everything: a new generation of the WAL has begun, before which SQLite had to
// backfill every frame of the old one.
func (l *lag) clear() { l.marks = l.marks[:0] }
