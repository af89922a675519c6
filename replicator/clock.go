//go:build !shortlease

package replicator

import "time"

// systemClock is Options.Clock where none is given.
func systemClock() time.Time { return time.Now() }
