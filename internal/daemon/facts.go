package daemon

import (
	"errors"
	"time"

	"github.com/sqlwatch/sqlwatch/collector"
	"github.com/sqlwatch/sqlwatch/internal/sqlite"
	"github.com/sqlwatch/sqlwatch/replicator"
	"github.com/sqlwatch/sqlwatch/replicator/capture"
)

// capturing returns a function that returns the state of capture, for samples. One goroutine
// at a time may call it.
func capturing(r *replicator.Replicator) func() *collector.Capture {
	var since time.Time // since when commits have not been captured; zero: they are
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
	c := &collector.Capture{SpoolBytes: spooled, SpoolLimitBytes: replicator.DefaultSpoolLimit, Since: since}
	if err == nil {
		return c
	}
	c.Err, c.Reason = err.Error(), "failed"
	switch {
	case errors.Is(err, replicator.ErrNotOpen):
		c.Reason = collector.CaptureWaiting
	case errors.Is(err, capture.ErrQueued):
		c.Reason = collector.CaptureQueued
	case errors.Is(err, capture.ErrNoRoom): // no replica is the cause
		c.Reason = collector.CaptureNoRoom
	case errors.Is(err, capture.ErrSpoolFull):
		c.Reason = collector.CaptureSpoolFull
	case errors.Is(err, capture.ErrCut):
		c.Reason = collector.CaptureFileCut
	case errors.Is(err, sqlite.ErrIndexCut):
		c.Reason = collector.CaptureIndexCut
	case errors.Is(err, sqlite.ErrSchema):
		c.Reason = collector.CaptureSchema
	}
	return c
}
