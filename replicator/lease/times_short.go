//go:build shortlease

package lease

import "time"

// Times for tests in which hosts wait for each other; no released program has them.
const (
	busyLife  = 4 * time.Second
	idleLife  = 10 * time.Second
	margin    = 1500 * time.Millisecond
	idleAfter = 3 * time.Second
	idleEvery = 7 * time.Second

	confirmAfter = time.Second
)
