package catalog

import (
	"time"

	"github.com/sqlwatch/sqlwatch/replicator/store"
)

// Past returns at, the time of f. Where a clock that was ahead has told it, and all
// that came behind, waiting for it may take years: then f is of its upload's time.
func Past(now, at time.Time, f store.LTXFile) time.Time {
	switch uploaded := f.Object.Modified; {
	case !at.After(now):
		return at
	case !uploaded.IsZero() && !uploaded.After(now):
		return uploaded
	default:
		return now
	}
}
