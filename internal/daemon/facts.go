package daemon

import (
	"errors"
	"time"

	"github.com/sqlwatch/sqlwatch/collector"
	"github.com/sqlwatch/sqlwatch/replicator"
	"github.com/sqlwatch/sqlwatch/replicator/capture"
	"github.com/sqlwatch/sqlwatch/replicator/lease"
	"github.com/sqlwatch/sqlwatch/replicator/store"
)

// replicasNow returns how far each replica has come, for samples.
// failing remembers since when each fails.
func replicasNow(r *replicator.Replicator, options []replicator.ReplicaOptions, failing []time.Time) []collector.Replica {
	out := []collector.Replica{}
	for i, s := range r.Replicas() {
		switch {
		case s.Healthy:
			failing[i] = time.Time{}
		case failing[i].IsZero():
			failing[i] = time.Now()
		}
		out = append(out, collector.Replica{
			Name: s.Name, Healthy: s.Healthy, CaughtUp: s.CaughtUp, LagSeconds: s.LagSeconds, PendingBytes: s.PendingBytes,
			TXID: uint64(s.TXID), LastVerified: s.LastVerified, Err: s.Err, MonthlyUSD: s.MonthlyUSD,
			Reason: reasonOf(s.Failed), FailingSince: failing[i], DrillErr: s.DrillErr, DrillSeconds: s.VerifyDuration.Seconds(),
			ObjectiveSeconds: s.Objective.Seconds(), SnapshotEverySeconds: options[i].SnapshotEvery.Seconds(),
			VerifyEverySeconds: options[i].VerifyEvery.Seconds(), StoredBytes: s.StoredBytes,
			LastSnapshot: s.LastSnapshot, OldestRestorePoint: s.OldestRestorePoint,
		})
	}
	return out
}

// reasonOf returns the word for what keeps a replica back, "" for nil.
func reasonOf(err error) string {
	switch {
	case errors.Is(err, lease.ErrFenced):
		return "fenced"
	case errors.Is(err, lease.ErrHeld):
		return "held"
	case errors.Is(err, lease.ErrMoved):
		return "looking_anew"
	case errors.Is(err, replicator.ErrForeign):
		return "foreign"
	}
	return store.FailureReason(err)
}

// capturing returns what tells how capture fares, for samples. It is called by one
// goroutine at a time.
func capturing(r *replicator.Replicator) func() *collector.Capture {
	var since time.Time // commits have not been captured
	return func() *collector.Capture {
		spooled, err := r.Captured()
		switch {
		case err == nil:
			since = time.Time{}
		case since.IsZero():
			since = time.Now()
		}
		return captureOf(spooled, err, since)
	}
}

func captureOf(spooled int64, err error, since time.Time) *collector.Capture {
	c := &collector.Capture{SpoolBytes: spooled, SpoolLimitBytes: capture.DefaultSpoolLimit, Since: since}
	if err == nil {
		return c
	}
	c.Err, c.Reason = err.Error(), "failed"
	switch {
	case errors.Is(err, replicator.ErrNotOpen):
		c.Reason = collector.CaptureWaiting
	case errors.Is(err, capture.ErrSpoolFull):
		c.Reason = collector.CaptureSpoolFull
	}
	return c
}
