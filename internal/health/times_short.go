//go:build shortlease

package health

import "time"

// The times for tests that cause conditions; no released program uses them.
const (
	HungAfter    = 20 * time.Second
	starvedAfter = 20 * time.Second
	lagAtLeast   = 20 * time.Second
	pinnedInfo   = 15 * time.Second
	overlapAfter = 20 * time.Second
)
