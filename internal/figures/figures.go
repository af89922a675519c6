// Package figures says what was measured of a database in the few words that the page,
// `status` and `top` show: where two views show one figure, both have it from here.
// It judges nothing: that is health's.
package figures

import (
	"fmt"
	"strings"

	"github.com/sqlwatch/sqlwatch/collector"
	"github.com/sqlwatch/sqlwatch/internal/health"
	"github.com/sqlwatch/sqlwatch/internal/show"
)

// Tolerance is how old, in seconds, a replica's newest state may be without being
// behind: the alerts' recording rule has the same.
func Tolerance(r *collector.Replica) float64 { return 2*r.ObjectiveSeconds + 3 }

// Freshness returns how far behind a database's replica is, and whether that is more than its
// objective allows. Where commits cannot be seen it is not known, however little time has passed.
func Freshness(s *collector.Sample, r *collector.Replica) (text string, late bool) {
	switch {
	case r.CaughtUp.IsZero():
		return "not complete yet", false // how far behind is not known, and that is not 0
	case r.LagSeconds > Tolerance(r):
		return show.Seconds(r.LagSeconds) + " behind", true
	case s.State == collector.StateForeignWAL || unseen(s.Capture):
		return "not known to be current", true
	}
	return "current", false
}

// unseen reports whether there may be commits that capture cannot read.
func unseen(c *collector.Capture) bool {
	return c != nil && c.Reason != "" && c.Reason != collector.CaptureWaiting
}

// Readers returns how many read the database, "" where that is not known, and who of
// them keeps the WAL from being reset, "" for nobody; since when, the sample says.
func Readers(s *collector.Sample) (count, pins string) {
	if !s.WAL.Known {
		return "", ""
	}
	r := s.Readers
	switch count = fmt.Sprint(r.Active); {
	case r.PinnedSince.IsZero():
		return count, ""
	case r.OldestPID > 0:
		return count, strings.TrimSpace(fmt.Sprintf("pid %d %s", r.OldestPID, r.OldestCommand))
	}
	return count, "a reader"
}

// Cost returns what a replica costs a month, "" where that is not known.
func Cost(r *collector.Replica) string {
	if r.MonthlyUSD == nil {
		return ""
	}
	return fmt.Sprintf("%.2f $ a month", *r.MonthlyUSD)
}

// Drill returns how the last restore drill went, but for when: how long it took, which
// is the measured time to recover.
func Drill(r *collector.Replica) string {
	switch {
	case r.DrillErr != "":
		return "failed"
	case r.LastVerified.IsZero():
		return "not tried"
	case r.DrillSeconds == 0:
		return "proven"
	}
	return "restored in " + show.Seconds(r.DrillSeconds)
}

// WAL is how a WAL fills its file, and the file what it may have.
type WAL struct {
	Known       bool
	FileBytes   int64
	LimitBytes  int64 // beyond it a policy makes the file smaller; where there is none, it is oversized
	InUse       int64 // bytes of frames
	Moved       int64 // of these, in the database file already
	Backlog     int64 // and not yet
	OldestFrame int64 // where the oldest reader stands, in bytes; 0: nobody
}

// WALOf returns the figures of a sample's WAL. A policy makes its file smaller beyond limit
// bytes, 0 for none.
func WALOf(s *collector.Sample, limit float64) WAL {
	page := int64(s.WAL.PageSize)
	if limit <= 0 {
		limit = health.WALLimit
	}
	w := WAL{Known: s.WAL.Known, FileBytes: s.WAL.SizeBytes, LimitBytes: int64(limit),
		InUse: int64(s.WAL.Frames) * page, Backlog: int64(s.WAL.LagFrames()) * page}
	w.Moved = w.InUse - w.Backlog
	if s.Readers.Active > 0 {
		w.OldestFrame = int64(s.Readers.OldestFrame) * page
	}
	return w
}

// Oversized reports whether the file is so large that health says so.
func (w WAL) Oversized() bool { return w.Known && w.FileBytes > health.WALLimit }
