// Package measured lists what can be measured of a database: for each name its unit, its
// meaning, and how to read it from a sample.
package measured

import (
	"math"
	"slices"
	"time"

	"github.com/sqlwatch/sqlwatch/collector"
)

// Unit is what a number measures. Expressions must not mix different units.
type Unit uint8

// The units of values in expressions.
const (
	AnyUnit Unit = iota // not known, or compatible with all
	Plain               // a bare number
	Count
	Bytes
	Seconds
	Ratio
	Text
	Bool
	WindowUnit
)

// String returns the unit as messages name it.
func (u Unit) String() string {
	return [...]string{"any", "a plain number", "a count", "bytes", "seconds", "a ratio", "text", "true or false",
		"a window"}[u]
}

// Numeric reports whether values of the unit are numbers.
func (u Unit) Numeric() bool { return u >= Plain && u <= Ratio }

// Name is one measured name, as wal.bytes.
type Name struct {
	Group, Name string
	Unit        Unit
	Doc         string                 // what it means, for the documentation
	Read        func(*Reading) float64 // NaN: not known; truth values read as 0 and 1
}

// String returns the name as written in expressions.
func (n *Name) String() string { return n.Group + "." + n.Name }

// TextName is one measured name whose value is text.
type TextName struct {
	Group, Name string
	Doc         string
	Read        func(*Reading) (s string, ok bool) // ok is false where it is not known
}

// Reading is a sample together with values that are not in it.
type Reading struct {
	*collector.Sample
	Stall    float64  // seconds for which the last checkpoint stalled writers; NaN: none yet
	Expected []string // names that should be in Sample.Replicas

	one     bool               // of one replica only
	replica *collector.Replica // which; nil: it has not reported
}

// Only returns the reading for one replica alone.
func (r *Reading) Only(replica string) Reading {
	one := *r
	for i := range r.Sample.Replicas {
		if r.Sample.Replicas[i].Name == replica {
			one.replica, one.one = &r.Sample.Replicas[i], true
			return one
		}
	}
	one.replica, one.one = nil, true
	return one
}

var unknown = math.NaN()

// Names is every measured number and truth. A History stores values in this order, but encodes
// them by name, so the order may change.
var Names = []Name{
	{"wal", "bytes", Bytes, "size of the WAL file",
		wal(func(w *collector.WAL) float64 { return float64(w.SizeBytes) })},
	{"wal", "frames", Count, "frames of the WAL in use now",
		wal(func(w *collector.WAL) float64 { return float64(w.Frames) })},
	{"wal", "used_bytes", Bytes, "size of the frames in use now",
		wal(func(w *collector.WAL) float64 { return float64(w.Frames) * float64(w.PageSize+24) })},
	{"wal", "frames_written", Count, "frames written since the watch began",
		wal(func(w *collector.WAL) float64 { return float64(w.FramesWrittenTotal) })},
	{"wal", "resets", Count, "how often the WAL has restarted since sqlwatch began to watch",
		wal(func(w *collector.WAL) float64 { return float64(w.ResetsTotal) })},
	{"wal", "age", Seconds, "since the WAL was last reset",
		func(r *Reading) float64 { return r.walAge(r.WAL.Restarted) }},
	{"checkpoint", "backlog_frames", Count, "frames not yet in the database file",
		wal(func(w *collector.WAL) float64 { return float64(w.LagFrames()) })},
	{"checkpoint", "backlog_bytes", Bytes, "the same in bytes",
		wal(func(w *collector.WAL) float64 {
			return float64(w.LagFrames()) * float64(w.PageSize)
		})},
	{"checkpoint", "lag", Seconds, "age of the oldest frame not yet in the database file; 0: there is none",
		func(r *Reading) float64 { return r.lag() }},
	{"checkpoint", "last_success_age", Seconds, "since everything was in the database file",
		func(r *Reading) float64 {
			return r.walAge(r.WAL.LastCompleteCheckpoint)
		}},
	{"checkpoint", "stall", Seconds, "how long our last checkpoint held writers up",
		func(r *Reading) float64 { return r.Stall }},
	{"readers", "active", Count, "read marks of other processes; sqlwatch's own are left out",
		up(func(r *Reading) float64 { return float64(r.Readers.Active) })},
	{"readers", "oldest_age", Seconds, "how long the WAL has been pinned; 0: it is not",
		up(func(r *Reading) float64 { return r.pinAge() })},
	{"readers", "oldest_pid", Count, "process of the oldest reader; 0: not known",
		up(func(r *Reading) float64 { return float64(r.Readers.OldestPID) })},
	{"readers", "pinned_frame", Count, "the frame from which on the oldest reader keeps the WAL",
		up(func(r *Reading) float64 { return float64(r.Readers.OldestFrame) })},
	{"locks", "busy", Count, "refused locks",
		up(func(r *Reading) float64 { return float64(r.Locks.Busy) })},
	{"locks", "writer_held", Bool, "somebody holds the write lock",
		up(func(r *Reading) float64 { return number(r.Locks.WriteHeld) })},
	{"replica", "lag", Seconds, "age of the oldest commit not durable at the worst replica; 0 without replicas",
		func(r *Reading) float64 { return r.worst(0, replicaLag) }},
	{"replica", "pending_bytes", Bytes, "what is not yet there",
		func(r *Reading) float64 { return r.worst(0, replicaPending) }},
	{"replica", "healthy", Bool, "every replica works; true without replicas",
		func(r *Reading) float64 { return 1 - r.worst(0, replicaUnhealthy) }},
	{"replica", "last_verified_age", Seconds, "since the last restore drill that passed",
		func(r *Reading) float64 { return r.worst(unknown, replicaVerifiedAge) }},
	{"db", "bytes", Bytes, "size of the database file",
		readable(func(d *collector.Database) float64 { return float64(d.SizeBytes) })},
	{"db", "pages", Count, "pages of it",
		readable(func(d *collector.Database) float64 { return float64(d.Pages) })},
	{"db", "freelist_pages", Count, "pages of it that are free",
		readable(func(d *collector.Database) float64 { return float64(d.FreelistPages) })},
	{"disk", "free_bytes", Bytes, "free on its file system",
		disk(func(d *collector.Disk) float64 { return float64(d.FreeBytes) })},
	{"disk", "free_ratio", Ratio, "the same as a share",
		disk(func(d *collector.Disk) float64 {
			return float64(d.FreeBytes) / float64(d.SizeBytes)
		})},
}

// Texts is every measured text.
var Texts = []TextName{
	{"readers", "oldest_command", "command of the oldest reader",
		func(r *Reading) (string, bool) {
			return r.Readers.OldestCommand,
				r.State == collector.StateUp
		}},
	{"db", "name", "configured name",
		func(r *Reading) (string, bool) { return r.DB, true }},
	{"db", "path", "path of the file",
		func(r *Reading) (string, bool) { return r.Path, true }},
	{"db", "engine_version", "SQLite's version that wrote it last",
		func(r *Reading) (string, bool) {
			return r.Database.EngineVersion, r.Database.EngineVersion != ""
		}},
}

func wal(f func(*collector.WAL) float64) func(*Reading) float64 {
	return func(r *Reading) float64 {
		if r.State != collector.StateUp || !r.WAL.Known {
			return unknown
		}
		return f(&r.WAL)
	}
}

func up(f func(*Reading) float64) func(*Reading) float64 {
	return func(r *Reading) float64 {
		if r.State != collector.StateUp {
			return unknown
		}
		return f(r)
	}
}

func readable(f func(*collector.Database) float64) func(*Reading) float64 {
	return func(r *Reading) float64 {
		if r.State != collector.StateUp && r.State != collector.StateNotWAL {
			return unknown
		}
		return f(&r.Database)
	}
}

func disk(f func(*collector.Disk) float64) func(*Reading) float64 {
	return func(r *Reading) float64 {
		if !r.Disk.Known || r.Disk.SizeBytes == 0 {
			return unknown
		}
		return f(&r.Disk)
	}
}

func number(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// age returns the seconds from t to at. It is never negative, even if the clock was set back.
func age(at, t time.Time) float64 {
	if t.IsZero() {
		return unknown
	}
	return max(0, at.Sub(t).Seconds())
}

func (r *Reading) walAge(t time.Time) float64 {
	if r.State != collector.StateUp || !r.WAL.Known {
		return unknown
	}
	return age(r.At, t)
}

func (r *Reading) lag() float64 {
	if r.State == collector.StateUp && r.WAL.Known && r.WAL.LagFrames() == 0 {
		return 0
	}
	return r.walAge(r.WAL.LagSince)
}

func (r *Reading) pinAge() float64 {
	if r.Readers.PinnedSince.IsZero() {
		return 0
	}
	return age(r.At, r.Readers.PinnedSince)
}

func replicaLag(_ time.Time, x *collector.Replica) float64     { return x.LagSeconds }
func replicaPending(_ time.Time, x *collector.Replica) float64 { return float64(x.PendingBytes) }
func replicaUnhealthy(_ time.Time, x *collector.Replica) float64 {
	return number(!x.Healthy)
}
func replicaVerifiedAge(at time.Time, x *collector.Replica) float64 { return age(at, x.LastVerified) }

// worst returns the largest value of f over the replicas, none if there are none, and unknown as
// long as a replica that should be there has not reported.
func (r *Reading) worst(none float64, f func(time.Time, *collector.Replica) float64) float64 {
	if r.one {
		if r.replica == nil {
			return unknown
		}
		return f(r.At, r.replica)
	}
	for _, name := range r.Expected {
		if !slices.ContainsFunc(r.Replicas, func(x collector.Replica) bool { return x.Name == name }) {
			return unknown
		}
	}
	if len(r.Replicas) == 0 {
		return none
	}
	v := f(r.At, &r.Replicas[0])
	for i := range r.Replicas[1:] {
		v = max(v, f(r.At, &r.Replicas[i+1])) // the built-in max returns NaN if one is NaN, so the worst is unknown
	}
	return v
}
