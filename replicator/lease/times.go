//go:build !shortlease

package lease

import "time"

// The lease's times. A writer renews before it writes; one that has nothing to write
// says so with a longer life and renews seldom. Who wants the lease watches it for the
// life that it states, and the owner stops believing in it a margin before that.
const (
	busyLife  = 2 * time.Minute
	idleLife  = 14 * time.Minute
	margin    = 30 * time.Second
	idleAfter = 100 * time.Second // after the last renewal of a writer
	idleEvery = 10 * time.Minute  // at most: databases take turns

	confirmAfter = 3 * time.Second // longer than a write is under way, where nothing refuses it
)
