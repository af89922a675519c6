package progress

import (
	"time"

	"github.com/superfly/ltx"

	"github.com/sqlwatch/sqlwatch/replicator/lease"
	"github.com/sqlwatch/sqlwatch/replicator/lineage"
)

// Status is what is known about one replica without asking it.
type Status struct {
	Name         string        `json:"name"`
	Healthy      bool          `json:"healthy"` // the last attempt at anything succeeded
	Err          string        `json:"error,omitempty"`
	Reason       string        `json:"reason,omitempty"` // of Err, one word
	FailingSince time.Time     `json:"failing_since,omitzero"`
	TXID         ltx.TXID      `json:"txid"`
	CaughtUp     time.Time     `json:"caught_up"`
	LagSeconds   float64       `json:"lag_seconds"`
	PendingBytes int64         `json:"pending_bytes"`
	Objective    time.Duration `json:"objective_ns"`

	Holdings
	Drill
	Ownership
	Maintenance
}

// Holdings are what a replica holds, and what that costs.
type Holdings struct {
	StoredBytes        int64     `json:"stored_bytes"`
	LastSnapshot       time.Time `json:"last_snapshot"` // or when it was last found that none is needed
	OldestRestorePoint time.Time `json:"oldest_restore_point"`
	MonthlyUSD         *float64  `json:"monthly_usd,omitempty"` // see requests.Prices.Monthly; nil: not known
}

// Drill is how the last restore drills went.
type Drill struct {
	LastVerified   time.Time     `json:"last_verified"`
	VerifyDuration time.Duration `json:"verify_duration_ns"`
	DrillErr       string        `json:"drill_error,omitempty"` // why the last one failed
}

// Ownership is whose the replica is.
type Ownership struct {
	Guard   lease.Guard     `json:"guard,omitempty"`   // what the store offers against a second writer
	Custody lineage.Verdict `json:"custody,omitempty"` // why it is not written to, or that it is
	Lineage string          `json:"lineage,omitempty"` // that is written to
}

// Maintenance is what compaction, retention, snapshots and drills met.
type Maintenance struct {
	// gone or unreadable since the start: the past has gaps
	LostFiles int `json:"lost_files,omitempty"`
	// the kind of what keeps them from going on
	MaintenanceErr string `json:"maintenance_error,omitempty"`
}
