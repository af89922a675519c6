package progress

import (
	"time"

	"github.com/superfly/ltx"

	"github.com/sqlwatch/sqlwatch/replicator/lease"
	"github.com/sqlwatch/sqlwatch/replicator/lineage"
)

// Status is what is known about one replica without a request to its store.
type Status struct {
	Name         string        `json:"name"`
	Healthy      bool          `json:"healthy"` // the last attempt at anything succeeded
	Err          string        `json:"error,omitempty"`
	Reason       string        `json:"reason,omitempty"` // the kind of Err, in one word
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

// Holdings say what a replica holds, and what it costs.
type Holdings struct {
	StoredBytes        int64     `json:"stored_bytes"`
	LastSnapshot       time.Time `json:"last_snapshot"` // or when a check last found that none is needed
	OldestRestorePoint time.Time `json:"oldest_restore_point"`
	MonthlyUSD         *float64  `json:"monthly_usd,omitempty"` // see requests.Prices.Monthly; nil: unknown
}

// Drill says how the last restore drills went.
type Drill struct {
	LastVerified   time.Time     `json:"last_verified"`
	VerifyDuration time.Duration `json:"verify_duration_ns"`
	DrillErr       string        `json:"drill_error,omitempty"` // why the last one failed
}

// Ownership says whose the replica is.
type Ownership struct {
	Guard   lease.Guard     `json:"guard,omitempty"`   // the conditional writes that the store honours
	Custody lineage.Verdict `json:"custody,omitempty"` // the last verdict: whether we may write, and why
	Lineage string          `json:"lineage,omitempty"` // the one found in the replica, or ours once it is named for it
}

// Maintenance says what compaction, retention, snapshots and drills have met.
type Maintenance struct {
	// files found gone, corrupt or unreadable since the start: some restore points are lost
	LostFiles int `json:"lost_files,omitempty"`
	// the kind of error that keeps maintenance from succeeding
	MaintenanceErr string `json:"maintenance_error,omitempty"`
}
