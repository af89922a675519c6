//go:build shortlease

package health

import "time"

// The times of tests that make conditions happen; of no program that is given to anybody.
const (
	HungAfter    = 20 * time.Second
	starvedAfter = 20 * time.Second
	lagAtLeast   = 20 * time.Second
	pinnedInfo   = 15 * time.Second
	overlapAfter = 20 * time.Second
)
