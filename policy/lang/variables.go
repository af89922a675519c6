package lang

import (
	"math"
	"slices"
	"time"

	"github.com/zclconf/go-cty/cty"

	"github.com/sqlwatch/sqlwatch/collector"
)

// Unit is what a number measures. Expressions are checked for mixing them.
type Unit uint8

// The units of values in expressions.
const (
	AnyUnit Unit = iota // not known, or free to combine
	Plain               // a bare number
	Count
	Bytes
	Seconds
	Ratio
	Text
	Bool
	WindowUnit
)

// String returns the unit as it stands in messages.
func (u Unit) String() string {
	return [...]string{"any", "a plain number", "a count", "bytes", "seconds", "a ratio", "text", "true or false",
		"a window"}[u]
}

func (u Unit) numeric() bool { return u >= Plain && u <= Ratio }

// variable is one measured name, as wal.bytes. Truth values read as 0 and 1.
// read returns NaN for what is not known.
type variable struct {
	group, name string
	unit        Unit
	read        func(*reading) float64
}

// reading is a sample with what the sample does not hold.
type reading struct {
	*collector.Sample
	stall    float64  // seconds writers were held up by the last checkpoint; NaN: none yet
	replicas []string // names that ought to be in Sample.Replicas

	one     bool               // of one replica only
	replica *collector.Replica // which; nil: it has not reported
}

// only returns the reading of one replica alone.
func (r *reading) only(replica string) reading {
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

// variables is every measured name of the language. A History stores values in
// this order; its encoding goes by name, so the order may change.
var variables = []variable{
	{"wal", "bytes", Bytes, wal(func(w *collector.WAL) float64 { return float64(w.SizeBytes) })},
	{"wal", "frames", Count, wal(func(w *collector.WAL) float64 { return float64(w.Frames) })},
	{"wal", "frames_written", Count, wal(func(w *collector.WAL) float64 { return float64(w.FramesWrittenTotal) })},
	{"wal", "resets", Count, wal(func(w *collector.WAL) float64 { return float64(w.ResetsTotal) })},
	{"wal", "age", Seconds, func(r *reading) float64 { return r.walAge(r.WAL.Restarted) }},

	{"checkpoint", "backlog_frames", Count, wal(func(w *collector.WAL) float64 { return float64(w.BacklogFrames()) })},
	{"checkpoint", "backlog_bytes", Bytes, wal(func(w *collector.WAL) float64 {
		return float64(w.BacklogFrames()) * float64(w.PageSize)
	})},
	{"checkpoint", "lag", Seconds, func(r *reading) float64 { return r.lag() }},
	{"checkpoint", "last_success_age", Seconds, func(r *reading) float64 {
		return r.walAge(r.WAL.LastCompleteCheckpoint)
	}},
	{"checkpoint", "stall", Seconds, func(r *reading) float64 { return r.stall }},

	{"readers", "active", Count, up(func(r *reading) float64 { return float64(r.Readers.Active) })},
	{"readers", "oldest_age", Seconds, up(func(r *reading) float64 { return r.pinAge() })},
	{"readers", "oldest_pid", Count, up(func(r *reading) float64 { return float64(r.Readers.OldestPID) })},
	{"readers", "pinned_frame", Count, up(func(r *reading) float64 { return float64(r.Readers.OldestFrame) })},

	{"locks", "busy", Count, up(func(r *reading) float64 { return float64(r.Locks.Busy) })},
	{"locks", "writer_held", Bool, up(func(r *reading) float64 { return number(r.Locks.WriteHeld) })},

	{"replica", "lag", Seconds, func(r *reading) float64 { return r.worst(0, replicaLag) }},
	{"replica", "pending_bytes", Bytes, func(r *reading) float64 { return r.worst(0, replicaPending) }},
	{"replica", "healthy", Bool, func(r *reading) float64 { return 1 - r.worst(0, replicaUnhealthy) }},
	{"replica", "last_verified_age", Seconds, func(r *reading) float64 { return r.worst(unknown, replicaVerifiedAge) }},

	{"db", "bytes", Bytes, readable(func(d *collector.Database) float64 { return float64(d.SizeBytes) })},
	{"db", "pages", Count, readable(func(d *collector.Database) float64 { return float64(d.Pages) })},
	{"db", "freelist_pages", Count, readable(func(d *collector.Database) float64 { return float64(d.FreelistPages) })},

	{"disk", "free_bytes", Bytes, disk(func(d *collector.Disk) float64 { return float64(d.FreeBytes) })},
	{"disk", "free_ratio", Ratio, disk(func(d *collector.Disk) float64 {
		return float64(d.FreeBytes) / float64(d.SizeBytes)
	})},
}

// texts is every name that is text, with its reader; ok is false where unknown.
var texts = []struct {
	group, name string
	read        func(*reading) (string, bool)
}{
	{"readers", "oldest_command", func(r *reading) (string, bool) {
		return r.Readers.OldestCommand,
			r.State == collector.StateUp
	}},
	{"db", "name", func(r *reading) (string, bool) { return r.DB, true }},
	{"db", "path", func(r *reading) (string, bool) { return r.Path, true }},
	{"db", "engine_version", func(r *reading) (string, bool) {
		return r.Database.EngineVersion, r.Database.EngineVersion != ""
	}},
}

func wal(f func(*collector.WAL) float64) func(*reading) float64 {
	return func(r *reading) float64 {
		if r.State != collector.StateUp || !r.WAL.Known {
			return unknown
		}
		return f(&r.WAL)
	}
}

func up(f func(*reading) float64) func(*reading) float64 {
	return func(r *reading) float64 {
		if r.State != collector.StateUp {
			return unknown
		}
		return f(r)
	}
}

func readable(f func(*collector.Database) float64) func(*reading) float64 {
	return func(r *reading) float64 {
		if r.State != collector.StateUp && r.State != collector.StateNotWAL {
			return unknown
		}
		return f(&r.Database)
	}
}

func disk(f func(*collector.Disk) float64) func(*reading) float64 {
	return func(r *reading) float64 {
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

// age returns the seconds from t to at; a clock that was set back must not
// make an age negative.
func age(at, t time.Time) float64 {
	if t.IsZero() {
		return unknown
	}
	return max(0, at.Sub(t).Seconds())
}

func (r *reading) walAge(t time.Time) float64 {
	if r.State != collector.StateUp || !r.WAL.Known {
		return unknown
	}
	return age(r.At, t)
}

func (r *reading) lag() float64 {
	if r.State == collector.StateUp && r.WAL.Known && r.WAL.BacklogFrames() == 0 {
		return 0
	}
	return r.walAge(r.WAL.OldestBacklog)
}

func (r *reading) pinAge() float64 {
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

// worst returns the largest of f over the replicas, none if there are none,
// and unknown as long as a replica that ought to be there has not reported.
func (r *reading) worst(none float64, f func(time.Time, *collector.Replica) float64) float64 {
	if r.one {
		if r.replica == nil {
			return unknown
		}
		return f(r.At, r.replica)
	}
	for _, name := range r.replicas {
		if !slices.ContainsFunc(r.Replicas, func(x collector.Replica) bool { return x.Name == name }) {
			return unknown
		}
	}
	if len(r.Replicas) == 0 {
		return none
	}
	v := f(r.At, &r.Replicas[0])
	for i := range r.Replicas[1:] {
		v = max(v, f(r.At, &r.Replicas[i+1])) // the built-in max keeps NaN: one unknown makes the worst unknown
	}
	return v
}

// value converts a measured number to the expression's value.
func value(v float64, u Unit) cty.Value {
	switch {
	case u == Bool && math.IsNaN(v):
		return cty.UnknownVal(cty.Bool)
	case u == Bool:
		return cty.BoolVal(v != 0)
	case math.IsNaN(v), math.IsInf(v, 0):
		return cty.UnknownVal(cty.Number)
	}
	return cty.NumberFloatVal(v)
}
