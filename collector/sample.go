package collector

import (
	"fmt"
	"slices"
	"time"
)

// State reports whether a database could be read, and if not, why.
// Only StateUp carries measurements in Sample.WAL, Readers and Locks.
type State uint8

// The states of a watched database.
const (
	StateUnknown      State = iota // not sampled yet
	StateUp                        // header, WAL and wal-index read consistently
	StateEmpty                     // a zero-byte database: nothing written yet
	StateMissing                   // no file at the path
	StateNotWAL                    // a database whose journal mode is not WAL
	StateNotDatabase               // not a regular file, or not an SQLite header
	StateForeignOwner              // another user's database; acting on it would create files the application cannot write
	StateNetworkFS                 // on a file system whose locks cannot be trusted
	StateForeignWAL                // its users work with another WAL or wal-index than the one beside it, or may do so
	StateUnreadable                // permission, I/O error, or no consistent wal-index
)

var stateNames = [...]string{"unknown", "up", "empty", "missing", "not_wal", "not_a_database", "foreign_owner",
	"network_fs", "foreign_wal", "unreadable"}

// String returns the state's name as used in metrics and JSON.
func (s State) String() string {
	if int(s) < len(stateNames) {
		return stateNames[s]
	}
	return "invalid"
}

// MarshalText encodes the state by its name.
func (s State) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText decodes a state from its name.
func (s *State) UnmarshalText(text []byte) error {
	i := slices.Index(stateNames[:], string(text))
	if i < 0 {
		return fmt.Errorf("decode state: %q is none", text)
	}
	*s = State(i)
	return nil
}

// Sample is everything that was measured of one database at one instant. It is immutable once
// published: readers share it without a lock.
type Sample struct {
	At    time.Time `json:"at"`
	DB    string    `json:"db"`   // configured name, the metrics label
	Path  string    `json:"path"` // absolute, symbolic links resolved
	State State     `json:"state"`
	Err   string    `json:"error,omitempty"` // what happened and what to do, when State is not StateUp

	Database Database  `json:"database"`
	WAL      WAL       `json:"wal"`
	Readers  Readers   `json:"readers"`
	Locks    Locks     `json:"locks"`
	Disk     Disk      `json:"disk"`
	Capture  *Capture  `json:"capture,omitempty"` // nil where nothing is captured
	Replicas []Replica `json:"replicas"`
}

// Database has the facts about the main file. Source: the 100-byte header, stat(2).
type Database struct {
	SizeBytes     int64  `json:"size_bytes"`
	PageSize      int    `json:"page_size_bytes"`
	Pages         uint32 `json:"pages"`          // from the wal-index where there is one, else the header
	FreelistPages uint32 `json:"freelist_pages"` // as of the last checkpoint of page 1
	JournalMode   string `json:"journal_mode"`   // "wal" or "rollback"
	EngineVersion string `json:"engine_version"` // of the last writer of page 1, as "3.40.1"
	WALResetBug   bool   `json:"wal_reset_bug"`  // EngineVersion has the WAL-reset bug
	// its pages carry checksums (cksumvfs): it is measured, and neither checkpointed nor replicated
	PageChecksums bool `json:"page_checksums,omitempty"`
	// it is encrypted behind a plain header: it is measured, and neither checkpointed nor replicated
	Encrypted bool `json:"encrypted,omitempty"`
	// distinct processes seen holding a lock within the last minute: at least this many are attached
	Processes int `json:"processes"`
}

// WAL has the facts from the wal-index header and the WAL file. If Known is false,
// nothing consistent could be read: facts of the moment are then meaningless, not
// zero; totals and times remain valid.
type WAL struct {
	Known bool `json:"known"`
	// the application holds EXCLUSIVE locking mode: there is no wal-index, Frames was counted in the WAL, and how much is
	// checkpointed cannot be seen from outside (CheckpointedFrames equals Frames)
	Exclusive          bool   `json:"exclusive,omitempty"`
	SizeBytes          int64  `json:"size_bytes"` // of the file: a high-water mark
	PageSize           int    `json:"page_size_bytes"`
	Frames             uint32 `json:"frames"`              // mxFrame
	CheckpointedFrames uint32 `json:"checkpointed_frames"` // nBackfill, at most Frames
	Salt1              uint32 `json:"salt1"`
	Salt2              uint32 `json:"salt2"`
	Change             uint32 `json:"change"` // iChange: one more per commit

	// Totals since this process began to watch; they survive WAL restarts and
	// the wrap of the 32-bit counters they come from.
	CommitsTotal       uint64 `json:"commits_total"`
	FramesWrittenTotal uint64 `json:"frames_written_total"`
	ResetsTotal        uint64 `json:"resets_total"`

	// Zero times mean "not seen since this process began to watch".
	LastWrite time.Time `json:"last_write,omitzero"`
	// when the oldest frame not yet in the database was first seen; zero: no lag
	LagSince time.Time `json:"oldest_backlog,omitzero"`
	// when CheckpointedFrames last reached Frames
	LastCompleteCheckpoint time.Time `json:"last_complete_checkpoint,omitzero"`
	Restarted              time.Time `json:"restarted,omitzero"` // when the current WAL generation was first seen
}

// LagFrames returns the frames not backfilled into the database file yet.
func (w WAL) LagFrames() uint32 {
	if w.CheckpointedFrames >= w.Frames {
		return 0
	}
	return w.Frames - w.CheckpointedFrames
}

// Readers are the processes that keep the WAL from being reset, except this one: our
// capture's mark moves by itself when it is in the way, so nobody needs to look for
// it. Source: read-mark lock bytes.
type Readers struct {
	Active        int       `json:"active"`                // read marks that others hold
	OldestFrame   uint32    `json:"oldest_frame"`          // lowest held mark; meaningful when Active > 0
	PinnedSince   time.Time `json:"pinned_since,omitzero"` // a mark has been below the head since then; zero: none is
	OldestPID     int       `json:"oldest_pid,omitempty"`
	OldestCommand string    `json:"oldest_command,omitempty"`
	Share         float64   `json:"share"` // of recent samples, 0 to 1, that found such a mark held
}

// Locks is what lock sampling found.
type Locks struct {
	WriteHeld       bool    `json:"write_held"`
	CheckpointHeld  bool    `json:"checkpoint_held"`
	WriteRatio      float64 `json:"write_held_ratio"` // share of recent samples, 0 to 1
	CheckpointRatio float64 `json:"checkpoint_held_ratio"`
	Busy            uint64  `json:"busy_total"` // refused locks of all sources

	Watched time.Duration `json:"-"` // the time that the shares cover: at most a minute, 0 for a single look

	// The transaction that holds the write lock: since when it was seen, and whose it is.
	WriteSince    time.Time `json:"write_since,omitzero"`
	WriterPID     int       `json:"writer_pid,omitempty"`
	WriterCommand string    `json:"writer_command,omitempty"`
}

// Disk is the file system that holds the database. Source: statfs(2), mountinfo.
type Disk struct {
	Known      bool   `json:"known"`
	FreeBytes  uint64 `json:"free_bytes"` // available to unprivileged users
	SizeBytes  uint64 `json:"size_bytes"`
	FSType     string `json:"fstype"`
	Mountpoint string `json:"mountpoint"`
	Network    bool   `json:"network,omitempty"`
	ReadOnly   bool   `json:"read_only,omitempty"` // no process can write there
	// it is read-only where sqlwatch sees it, and the application may be able to write there
	ReadOnlyHere bool `json:"read_only_here,omitempty"`
}

// Replica is the progress of one replica. The replication fills it in; the collector itself measures none.
type Replica struct {
	Name         string    `json:"name"` // type and name, as "s3.main"
	Healthy      bool      `json:"healthy"`
	CaughtUp     time.Time `json:"caught_up,omitzero"` // every commit up to here is durable there
	LagSeconds   float64   `json:"lag_seconds"`        // age of the oldest commit not durable there; 0: none
	PendingBytes int64     `json:"pending_bytes"`      // captured, not yet durable there
	TXID         uint64    `json:"txid"`
	LastVerified time.Time `json:"last_verified,omitzero"` // zero: never
	Err          string    `json:"error,omitempty"`
	Reason       string    `json:"reason,omitempty"` // of Err, one word; see replicator.FailureReason
	FailingSince time.Time `json:"failing_since,omitzero"`

	ObjectiveSeconds     float64   `json:"objective_seconds"`      // the configured bound of loss
	SnapshotEverySeconds float64   `json:"snapshot_every_seconds"` // configured time between snapshot checks; 0: not known
	VerifyEverySeconds   float64   `json:"verify_every_seconds"`   // 0: only drills by hand
	StoredBytes          int64     `json:"stored_bytes"`
	LastSnapshot         time.Time `json:"last_snapshot,omitzero"` // the last snapshot check that succeeded
	OldestRestorePoint   time.Time `json:"oldest_restore_point,omitzero"`
	// how long the last restore drill took: the measured time to recover
	DrillSeconds float64 `json:"drill_seconds,omitempty"`
	DrillErr     string  `json:"drill_error,omitempty"` // why the last drill failed

	ReplicaHistory

	MonthlyUSD *float64 `json:"monthly_usd,omitempty"` // what a month like the time since the start costs; nil: not known
}

// ReplicaHistory is what was seen of a replica lately.
type ReplicaHistory struct {
	ReplicaCare

	// the maximum of lag_seconds in each of the last 60 minutes, the newest last, without the current
	// minute; null: not known
	BehindByMinute []*float64 `json:"behind_by_minute_seconds"`
}

// ReplicaCare says whether a replica is complete, maintained and written to by us alone.
type ReplicaCare struct {
	LostFiles int `json:"lost_files"` // found missing, corrupt or unreadable since the start
	// what the store does not offer against a second writer; false where that is not known yet
	WeakFencing bool `json:"weak_fencing"`
	// what keeps compaction and retention from going on, one word
	MaintenanceErr string `json:"maintenance_error,omitempty"`
}

// Capture is the state of the capture of commits. The replication fills it in.
type Capture struct {
	SpoolBytes      int64     `json:"spool_bytes"`
	SpoolLimitBytes int64     `json:"spool_limit_bytes"`
	Reason          string    `json:"reason,omitempty"` // why commits are not captured, one word; empty: they are
	Err             string    `json:"error,omitempty"`
	Since           time.Time `json:"since,omitzero"` // of Reason
}

// Reasons why commits are not captured. Any other word is a failure.
const (
	CaptureWaiting   = "waiting"    // the database's files are not open
	CaptureQueued    = "queued"     // the whole database must be read, and others come first
	CaptureSpoolFull = "spool_full" // no replica takes what was captured
	CaptureNoRoom    = "no_room"    // the state directory's file system is full
	CaptureFileCut   = "file_cut"   // the main file lacks pages
	CaptureIndexCut  = "index_cut"  // the -shm file was cut short while it was in use
	CaptureSchema    = "schema"     // SQLite cannot read the schema
)
