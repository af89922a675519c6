package replay

import (
	"math"
	"time"

	"github.com/sqlwatch/sqlwatch/collector"
	"github.com/sqlwatch/sqlwatch/internal/sqlite"
	"github.com/sqlwatch/sqlwatch/policy"
)

// What a TRUNCATE costs writers, in nanoseconds a byte, where nothing was recorded:
// freeing the file's blocks, and copying what no PASSIVE has copied.
const (
	freeCost = 0.5
	copyCost = 3.0
)

// frameHeader is what a frame of the WAL has before its page.
const frameHeader = 24

// model is a database in WAL mode that is written to, read and checkpointed by others
// as was recorded, and checkpointed by us as the policies of the replay say.
type model struct {
	in      Input
	wal     collector.WAL
	mark    uint32    // of the reader that pins
	pinned  time.Time // since when; zero: nobody
	perByte float64   // nanoseconds that a TRUNCATE holds writers up, a byte of the file
}

// begin puts the model where the recording begins.
func (m *model) begin(in Input) {
	m.in = in
	m.wal = collector.WAL{Known: true, PageSize: max(in.Page, 512), SizeBytes: in.WAL, Restarted: time.Unix(in.At, 0)}
	m.wal.Frames = uint32(min(in.WAL/m.frame(), math.MaxUint32))
	m.wal.CheckpointedFrames = m.wal.Frames // not known: as if it were all in the database
}

func (m *model) frame() int64 { return int64(m.wal.PageSize) + frameHeader }

// take lives through what was recorded up to an input.
func (m *model) take(in Input, now time.Time) {
	m.in = in
	switch {
	case in.Pinned == 0:
		m.pinned = time.Time{}
	case m.pinned.IsZero():
		m.pinned, m.mark = now.Add(-time.Duration(in.Pinned)*time.Second), m.wal.Frames
	}
	m.write(in, now)
	if in.Others {
		m.checkpoint(sqlite.Passive, now, nil)
	}
}

// reads reports whether there is no moment without a reader on the WAL.
func (m *model) reads() bool { return !m.pinned.IsZero() || m.in.Readers > 0 && m.in.Share > 0.9 }

func (m *model) write(in Input, now time.Time) {
	w := &m.wal
	if in.Frames == 0 {
		return
	}
	if w.Frames > 0 && w.LagFrames() == 0 && !m.reads() {
		w.Frames, w.CheckpointedFrames, w.Restarted = 0, 0, now
		w.ResetsTotal++
		w.Salt1++
	}
	if w.LagFrames() == 0 {
		w.LagSince = now
	}
	w.Frames += uint32(min(in.Frames, uint64(math.MaxUint32-w.Frames)))
	w.FramesWrittenTotal += in.Frames
	w.CommitsTotal += in.Commits
	w.Change += uint32(in.Commits)
	w.LastWrite = now
	w.SizeBytes = max(w.SizeBytes, int64(w.Frames)*m.frame())
}

// sample is what would have been measured.
func (m *model) sample(now time.Time) *collector.Sample {
	in := m.in
	s := &collector.Sample{At: now, DB: in.DB, State: collector.StateUp,
		Database: collector.Database{SizeBytes: in.Bytes, PageSize: m.wal.PageSize, JournalMode: "wal",
			Pages: uint32(in.Bytes / int64(m.wal.PageSize)), FreelistPages: in.Freelist},
		WAL:   m.wal,
		Locks: collector.Locks{WriteHeld: in.Writer, WriteRatio: in.WriteUse},
		Disk:  collector.Disk{Known: in.DiskSize > 0, FreeBytes: in.DiskFree, SizeBytes: in.DiskSize}}
	if in.State != "" {
		s.State, s.WAL = collector.StateUnreadable, collector.WAL{}
	}
	s.Readers = collector.Readers{Active: in.Readers, Share: in.Share, PinnedSince: m.pinned}
	if !m.pinned.IsZero() {
		s.Readers.OldestFrame, s.Readers.OldestPID, s.Readers.OldestCommand = m.mark, 1, "recorded reader"
	}
	for _, r := range in.Replicas {
		one := collector.Replica{Name: r.Name, Healthy: r.Healthy, LagSeconds: r.Lag, PendingBytes: r.Pending,
			CaughtUp: now.Add(-time.Duration(r.Lag * float64(time.Second)))}
		if r.Verified > 0 {
			one.LastVerified = time.Unix(r.Verified, 0)
		}
		s.Replicas = append(s.Replicas, one)
	}
	return s
}

// runLadder runs a ladder.
func (m *model) runLadder(l *policy.Ladder, now time.Time) (r policy.ActionResult) {
	before := m.wal.SizeBytes
	for _, step := range l.Steps {
		r.Outcome = m.checkpoint(step.Mode, now, &r.WriterStall)
		if r.Outcome != sqlite.OutcomeComplete {
			break
		}
	}
	r.Reclaimed = before - m.wal.SizeBytes
	return r
}

// checkpoint is one step. stall is nil for one of somebody else's.
func (m *model) checkpoint(mode sqlite.Mode, now time.Time, stall *time.Duration) sqlite.Outcome {
	w := &m.wal
	if mode == sqlite.Truncate && m.in.Writer && m.in.WriteUse > 0.9 {
		return sqlite.OutcomeWriterBusy
	}
	if !m.pinned.IsZero() && m.mark < w.Frames {
		w.CheckpointedFrames = max(w.CheckpointedFrames, m.mark)
		return sqlite.OutcomePinned
	}
	backlog := float64(w.LagFrames()) * float64(w.PageSize)
	w.CheckpointedFrames, w.LagSince, w.LastCompleteCheckpoint = w.Frames, time.Time{}, now
	if mode == sqlite.Passive {
		return sqlite.OutcomeComplete
	}
	if m.reads() {
		return sqlite.OutcomeNotReset
	}
	*stall = max(*stall, time.Duration(m.perByte*float64(w.SizeBytes)+copyCost*backlog))
	w.SizeBytes, w.Frames, w.CheckpointedFrames, w.Restarted = 0, 0, 0, now
	w.ResetsTotal++
	w.Salt1++
	return sqlite.OutcomeTruncated
}
