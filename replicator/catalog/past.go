package catalog

import (
	"time"

	"github.com/sqlwatch/sqlwatch/replicator/store"
)

// Past returns at, the time of f, unless it is in the future. Then a clock that was ahead has
// set it, and schedules based on it might wait for years: Past returns when f was uploaded, or
// now.
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
