//go:build !shortlease

package lease

import "time"

// The lease's times. A writer renews before it writes; one that has nothing to write states
// a longer life and renews seldom. A host that wants the lease watches it unchanged for the
// stated life and a margin; the owner stops relying on it a margin before that life ends.
const (
	busyLife  = 2 * time.Minute
	idleLife  = 14 * time.Minute
	margin    = 30 * time.Second
	idleAfter = 100 * time.Second // from a writer's last renewal to its first idle one
	idleEvery = 10 * time.Minute  // at most; less a random part, so that databases do not renew all at once

	confirmAfter = 3 * time.Second // longer than an unguarded write normally takes
)
