package policytest

import (
	"errors"
	"math"
	"slices"
	"time"

	"github.com/sqlwatch/sqlwatch/collector"
	"github.com/sqlwatch/sqlwatch/internal/checkpoint"
	"github.com/sqlwatch/sqlwatch/policy"
)

// The simulated database has pages of 4 KiB; a frame is a page and its header.
const (
	simulatedPage  = 4096
	simulatedFrame = simulatedPage + 24
)

// How fast the disk is unless a test says otherwise, and how long it takes to free the
// blocks of a file. A TRUNCATE cuts a long file in portions, at most so many in one run.
const (
	usualSpeed = 300e6 // bytes a second
	usualSync  = 2 * time.Millisecond
	freeCost   = 0.5 // nanoseconds a byte
	portions   = 32
)

// maxCycles bounds how often the application checkpoints within one step.
const maxCycles = 256

var errMadeToFail = errors.New("the test makes it fail")

// simulated is a model of a database in WAL mode. Writes append frames; once all are
// backfilled and no reader uses them, the next write restarts the WAL in the same file. A
// TRUNCATE empties the file, unless a reader or the write lock prevents it.
type simulated struct {
	name      string
	bytes     int64
	disk      int64
	firstWAL  int64 // size of the WAL at the start
	auto      int64 // the application checkpoints on its own at this size; 0: never
	wal       collector.WAL
	unwritten float64 // bytes of a frame that is not yet complete
	replicas  []collector.Replica
	during    *stretch
	entered   time.Time
	reading   bool
	readFrom  uint32    // the reader's read mark
	pinned    time.Time // since when there are newer frames than its mark; zero: there are none
}

func (db *simulated) begin(now time.Time) {
	db.wal = collector.WAL{Known: true, PageSize: simulatedPage, Restarted: now}
	db.append(uint32(db.firstWAL/simulatedFrame), now)
	db.wal.SizeBytes = db.firstWAL
	db.replicas = append([]collector.Replica(nil), db.replicas...)
}

func (db *simulated) enter(sp *stretch, now time.Time) {
	db.during, db.entered, db.reading = sp, now, false
	db.meet(now)
}

// meet starts and ends readers.
func (db *simulated) meet(now time.Time) {
	sp := db.during
	active := sp.reader || sp.readerEvery > 0 && now.Sub(db.entered)%sp.readerEvery < sp.readerFor
	if active && !db.reading {
		db.readFrom, db.pinned = db.wal.Frames, time.Time{}
	}
	db.reading = active
}

func (db *simulated) write(step time.Duration, now time.Time) {
	db.meet(now)
	db.unwritten += float64(db.during.write) * step.Seconds()
	frames := uint32(db.unwritten / simulatedFrame)
	db.unwritten -= float64(frames) * simulatedFrame
	if db.auto <= 0 {
		db.append(frames, now)
		return
	}
	for cycle := max(uint32((db.auto+simulatedPage-1)/simulatedPage), frames/maxCycles, 1); frames > 0; {
		some := min(frames, cycle)
		if db.wal.LagFrames() > 0 && db.wal.Frames < cycle {
			some = min(some, cycle-db.wal.Frames)
		}
		db.append(some, now)
		frames -= some
		if int64(db.wal.Frames)*simulatedPage >= db.auto {
			db.backfill(now)
		}
	}
}

func (db *simulated) append(frames uint32, now time.Time) {
	w := &db.wal
	frames = min(frames, math.MaxUint32-w.Frames)
	if frames == 0 {
		return
	}
	if w.Frames > 0 && w.LagFrames() == 0 && !db.reading {
		w.Frames, w.CheckpointedFrames, w.Restarted = 0, 0, now
		w.ResetsTotal++
	}
	if w.LagFrames() == 0 {
		w.LagSince = now
	}
	if db.reading && db.pinned.IsZero() {
		db.pinned = now
	}
	w.Frames += frames
	w.FramesWrittenTotal += uint64(frames)
	w.CommitsTotal++
	w.LastWrite = now
	w.SizeBytes = max(w.SizeBytes, int64(w.Frames)*simulatedFrame)
}

// backfill copies the frames that no reader holds back into the database, and reports
// whether these were all.
func (db *simulated) backfill(now time.Time) bool {
	w := &db.wal
	if db.reading && db.readFrom < w.Frames {
		w.CheckpointedFrames = max(w.CheckpointedFrames, db.readFrom)
		return false
	}
	w.CheckpointedFrames, w.LagSince, w.LastCompleteCheckpoint = w.Frames, time.Time{}, now
	return true
}

// sample returns what the collector would measure now.
func (db *simulated) sample(now time.Time) *collector.Sample {
	s := &collector.Sample{At: now, DB: db.name, Path: "/" + db.name + ".db", State: collector.StateUp}
	s.Disk = collector.Disk{Known: true, SizeBytes: uint64(db.disk), FreeBytes: uint64(db.during.diskFree)}
	for _, r := range db.replicas {
		r.Healthy, r.LagSeconds = !db.during.unhealthy, db.during.replicaLag.Seconds()
		r.CaughtUp, r.PendingBytes = now.Add(-db.during.replicaLag), db.during.pending
		s.Replicas = append(s.Replicas, r)
	}
	if db.during.unreadable {
		s.State, s.Err = collector.StateUnreadable, "the test makes it unreadable"
		return s
	}
	s.Database = collector.Database{SizeBytes: db.bytes, PageSize: simulatedPage, Pages: uint32(db.bytes / simulatedPage),
		JournalMode: "wal", EngineVersion: "3.51.3"}
	s.WAL = db.wal
	s.Locks.WriteHeld = db.during.writeLock
	if db.reading {
		s.Readers = collector.Readers{Active: 1, OldestFrame: db.readFrom, OldestPID: 1, OldestCommand: "reader",
			PinnedSince: db.pinned}
	}
	return s
}

func (db *simulated) replicaNames() (names []string) {
	for _, r := range db.replicas {
		names = append(names, r.Name)
	}
	return names
}

// act carries out an action and returns how it ended.
func (db *simulated) act(a *policy.Action, now time.Time) (r policy.ActionResult) {
	if slices.Contains(db.during.fails, string(a.Kind)) {
		r.Err = errMadeToFail
		if a.Kind == policy.ActCheckpoint {
			r.Outcome = checkpoint.OutcomeFailed
		}
		return r
	}
	switch a.Kind {
	case policy.ActCheckpoint:
		before := db.wal.SizeBytes
		for _, s := range a.Checkpoint.Steps {
			r.Outcome = db.checkpoint(s.Mode, now, a.Checkpoint.StallBudget, &r.WriterStall)
			if r.Outcome != checkpoint.OutcomeComplete && r.Outcome != checkpoint.OutcomePartial {
				break
			}
		}
		r.Reclaimed = before - db.wal.SizeBytes
	case policy.ActVerify:
		for i := range db.replicas {
			db.replicas[i].LastVerified = now
		}
	}
	return r
}

// checkpoint carries out one step of a ladder, once: repeating it would change nothing.
func (db *simulated) checkpoint(mode checkpoint.Mode, now time.Time, budget time.Duration, stall *time.Duration,
) checkpoint.Outcome {
	w, sp := &db.wal, db.during
	if mode == checkpoint.Truncate && sp.writeLock {
		return checkpoint.OutcomeWriterBusy
	}
	backlog := float64(w.LagFrames()) * simulatedPage
	if !db.backfill(now) {
		if mode == checkpoint.Passive {
			return checkpoint.OutcomePartial
		}
		return checkpoint.OutcomePinned
	}
	if mode == checkpoint.Passive {
		return checkpoint.OutcomeComplete
	}
	if db.reading {
		return checkpoint.OutcomeNotReset
	}
	// The frames were backfilled before writers are frozen. What was written in the meantime
	// is copied and synced while they are.
	drain := backlog / float64(sp.writeSpeed)
	frozen := sp.sync + time.Duration(drain*float64(sp.write)/float64(sp.writeSpeed)*1e9)
	if frozen >= budget {
		*stall = max(*stall, budget)
		return checkpoint.OutcomeBudgetSpent
	}
	portion := max(int64(float64(budget-frozen)/2/freeCost), 1<<20)
	cut := min(w.SizeBytes, portions*portion)
	*stall = max(*stall, frozen+time.Duration(freeCost*float64(min(cut, portion))))
	w.SizeBytes -= cut
	w.Frames, w.CheckpointedFrames, w.Restarted = 0, 0, now
	w.ResetsTotal++
	if w.SizeBytes > 0 {
		return checkpoint.OutcomeShortened
	}
	return checkpoint.OutcomeTruncated
}
