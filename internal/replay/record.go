// Package replay keeps what the policies were shown of each database, and plays it
// again under another configuration: what would have been done, how large the WAL
// would have become, for how long writers would have waited.
package replay

import (
	"encoding/json"
	"log/slog"
	"path/filepath"
	"sync"
	"time"

	"github.com/sqlwatch/sqlwatch/collector"
	"github.com/sqlwatch/sqlwatch/internal/journal"
)

const (
	every     = 10 * time.Second // between two inputs of a database, and two evaluations of a replay
	atLeast   = 5 * time.Minute  // an input is written this often where nothing changes
	limit     = 128 << 20        // bytes of all recordings together
	openEnded = 30 * time.Second // after a longer gap nobody was looking
)

// Input is what was measured of a database at a moment, as far as it does not depend
// on what the policies did.
type Input struct {
	At       int64   `json:"t"` // Unix seconds
	DB       string  `json:"db"`
	State    string  `json:"state,omitempty"` // empty: up
	Page     int     `json:"page,omitempty"`
	Bytes    int64   `json:"bytes,omitempty"` // of the database file
	Freelist uint32  `json:"freelist,omitempty"`
	WAL      int64   `json:"wal,omitempty"`       // bytes of the WAL file as it was
	Frames   uint64  `json:"frames,omitempty"`    // written since the input before
	Commits  uint64  `json:"commits,omitempty"`   // since then
	Others   bool    `json:"others,omitempty"`    // somebody else has checkpointed since then
	Readers  int     `json:"readers,omitempty"`   // read marks held
	Share    float64 `json:"share,omitempty"`     // of the last minute that readers were there
	Pinned   int64   `json:"pinned,omitempty"`    // seconds for which one has held its mark; 0: nobody
	Writer   bool    `json:"writer,omitempty"`    // the write lock was held
	WriteUse float64 `json:"write_use,omitempty"` // share of recent samples that found it so
	DiskFree uint64  `json:"disk_free,omitempty"`
	DiskSize uint64  `json:"disk_size,omitempty"`

	Replicas []Replica `json:"replicas,omitempty"`
}

// Replica is what policies may know of one.
type Replica struct {
	Name     string  `json:"name"`
	Healthy  bool    `json:"healthy,omitempty"`
	Lag      float64 `json:"lag,omitempty"`
	Pending  int64   `json:"pending,omitempty"`
	Verified int64   `json:"verified,omitempty"` // Unix seconds; 0: never
}

// Path returns where the recording is in a state directory.
func Path(stateDir string) string { return filepath.Join(stateDir, "recording.jsonl") }

// Recorder writes inputs. Its methods may be called concurrently, for one database by
// one goroutine at a time.
type Recorder struct {
	lines *journal.Log
	log   *slog.Logger

	mu     sync.Mutex // guards what follows
	last   map[string]recorded
	failed time.Time
}

// recorded is what was seen of a database when its last input was written.
type recorded struct {
	input     Input
	wal       collector.WAL
	backfills uint32 // checkpointed frames at the last sample
	backlog   uint32 // and those that were not
	resets    uint64
	others    bool
}

// NewRecorder returns the recorder of a state directory. It opens nothing.
func NewRecorder(stateDir string, log *slog.Logger) *Recorder {
	return &Recorder{lines: journal.New(Path(stateDir), limit), log: log, last: map[string]recorded{}}
}

// Note takes a sample in. acted says that sqlwatch itself has checkpointed since the
// one before.
func (r *Recorder) Note(s *collector.Sample, acted bool) {
	r.mu.Lock()
	was, known := r.last[s.DB]
	// A reset of what was all in the database follows the next write on its own.
	moved := s.WAL.Known && (s.WAL.CheckpointedFrames > was.backfills || s.WAL.ResetsTotal != was.resets &&
		was.backlog > 0)
	was.others = was.others || known && moved && !acted
	was.backfills, was.backlog, was.resets = s.WAL.CheckpointedFrames, s.WAL.LagFrames(), s.WAL.ResetsTotal
	in := inputOf(s, was, known)
	since := in.At - was.input.At
	due := !known || since >= int64(every/time.Second) && (since >= int64(atLeast/time.Second) || !same(in, was.input))
	if due {
		was = recorded{input: in, wal: s.WAL, backfills: was.backfills, backlog: was.backlog,
			resets: was.resets}
	}
	r.last[s.DB] = was
	r.mu.Unlock()
	if !due {
		return
	}
	if err := r.lines.Append(in); err != nil {
		r.mu.Lock()
		defer r.mu.Unlock()
		if time.Since(r.failed) > 10*time.Minute {
			r.failed = time.Now()
			r.log.Error("samples for `sqlwatch replay` could not be recorded", "err", err)
		}
	}
}

// inputOf returns what a sample adds to what was recorded before.
func inputOf(s *collector.Sample, was recorded, known bool) Input {
	in := Input{At: s.At.Unix(), DB: s.DB, Page: s.WAL.PageSize, Bytes: s.Database.SizeBytes,
		Freelist: s.Database.FreelistPages, WAL: s.WAL.SizeBytes, Readers: s.Readers.Active, Share: s.Readers.Share,
		Writer: s.Locks.WriteHeld, WriteUse: s.Locks.WriteRatio, DiskFree: s.Disk.FreeBytes, DiskSize: s.Disk.SizeBytes}
	if s.State != collector.StateUp {
		in.State = s.State.String()
	}
	if known && s.WAL.FramesWrittenTotal >= was.wal.FramesWrittenTotal {
		in.Frames = s.WAL.FramesWrittenTotal - was.wal.FramesWrittenTotal
		in.Commits = s.WAL.CommitsTotal - min(was.wal.CommitsTotal, s.WAL.CommitsTotal)
		in.Others = was.others
	}
	if !s.Readers.PinnedSince.IsZero() {
		in.Pinned = max(1, int64(s.At.Sub(s.Readers.PinnedSince)/time.Second))
	}
	for _, r := range s.Replicas {
		one := Replica{Name: r.Name, Healthy: r.Healthy, Lag: r.LagSeconds, Pending: r.PendingBytes}
		if !r.LastVerified.IsZero() {
			one.Verified = r.LastVerified.Unix()
		}
		in.Replicas = append(in.Replicas, one)
	}
	return in
}

// same reports whether nothing has happened between two inputs.
func same(a, b Input) bool {
	if a.Frames+a.Commits > 0 || a.Others || len(a.Replicas) != len(b.Replicas) {
		return false
	}
	for i := range a.Replicas {
		if a.Replicas[i] != b.Replicas[i] {
			return false
		}
	}
	return a.State == b.State && a.WAL == b.WAL && a.Bytes == b.Bytes && a.Readers == b.Readers && a.Writer == b.Writer &&
		(a.Pinned > 0) == (b.Pinned > 0) && a.DiskFree>>24 == b.DiskFree>>24
}

// Read returns the inputs of each database since a moment, the oldest first.
func Read(stateDir string, since time.Time) (map[string][]Input, error) {
	all := map[string][]Input{}
	err := journal.Read(Path(stateDir), func(line []byte) bool {
		var in Input
		if json.Unmarshal(line, &in) == nil && in.DB != "" && in.At >= since.Unix() {
			all[in.DB] = append(all[in.DB], in)
		}
		return true
	})
	return all, err
}
