//go:build !shortlease

package replicator

import "time"

// systemClock is the default of Options.Clock.
func systemClock() time.Time { return time.Now() }
