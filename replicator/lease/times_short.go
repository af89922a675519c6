//go:build shortlease

package lease

import "time"

// The times of tests in which hosts wait for each other; of no program that is given to anybody.
const (
	busyLife  = 8 * time.Second
	idleLife  = 20 * time.Second
	margin    = 3 * time.Second
	idleAfter = 6 * time.Second
	idleEvery = 14 * time.Second

	confirmAfter = time.Second
)
