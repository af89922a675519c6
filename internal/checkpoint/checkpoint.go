// Package checkpoint is what a checkpoint is asked for and how it ended. It is apart from
// internal/sqlite, which runs checkpoints, so that policies decide without SQLite.
package checkpoint

import "time"

// Mode is a checkpoint mode. FULL and RESTART are not offered: they block
// writers as TRUNCATE does and give less.
type Mode uint8

// The checkpoint modes.
const (
	Passive  Mode = iota // copies what it can, waits for nobody, blocks nobody
	Truncate             // takes the write lock, copies the tail, empties the WAL file
)

// String returns the mode as it is written in configuration and metrics.
func (m Mode) String() string {
	if m == Truncate {
		return "truncate"
	}
	return "passive"
}

// Budget bounds what one checkpoint may cost the application.
type Budget struct {
	BusyTimeout time.Duration // how long SQLite may wait for a lock; 0: not at all
	Stall       time.Duration // how long writers may wait in total; 0: DefaultStall
}

// DefaultStall is the stall budget where none is given.
const DefaultStall = 200 * time.Millisecond

// Outcome says how a checkpoint ended. Decisions rest on it, never on an
// error's text.
type Outcome uint8

// The outcomes of a checkpoint.
const (
	OutcomeNone        Outcome = iota // none was run
	OutcomeTruncated                  // the WAL file is empty
	OutcomeComplete                   // every frame is in the database
	OutcomePartial                    // some frames remain; nothing was in the way for long
	OutcomePinned                     // a reader's mark keeps frames back
	OutcomeContended                  // another checkpointer was at work: retry in milliseconds, no failed attempt
	OutcomeWriterBusy                 // for all of the busy timeout a transaction of another process was open
	OutcomeNotReset                   // every frame is in the database, but a reader keeps the WAL from being emptied
	OutcomeBudgetSpent                // interrupted: writers had waited for the whole stall budget
	OutcomeNotWAL                     // the database is not in WAL mode
	OutcomeFailed                     // an error: see the error returned beside it
	// the WAL is reset, and its file shorter: to cut off all would have passed the stall budget
	OutcomeShortened
)

var outcomeNames = [...]string{"none", "truncated", "complete", "partial", "pinned", "contended", "writer_busy",
	"not_reset", "stall_budget", "not_wal", "io", "shortened"}

// String returns the outcome as it stands in logs and JSON.
func (o Outcome) String() string {
	if int(o) < len(outcomeNames) {
		return outcomeNames[o]
	}
	return "invalid"
}

// MarshalText encodes the outcome by its name.
func (o Outcome) MarshalText() ([]byte, error) { return []byte(o.String()), nil }

// Result is what one checkpoint did.
type Result struct {
	Mode    Mode    `json:"-"`
	Outcome Outcome `json:"outcome"`
	Frames  int     `json:"frames"` // frames in the WAL when it ended; 0 after a truncation, -1 unknown
	// frames in the database when it ended; 0 after a truncation, -1 unknown
	Backfilled  int           `json:"backfilled"`
	Duration    time.Duration `json:"duration"`     // of the whole call
	WriterStall time.Duration `json:"writer_stall"` // how long the write lock was ours
	Reclaimed   int64         `json:"reclaimed"`    // bytes by which the WAL file shrank
}
