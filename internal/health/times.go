//go:build !shortlease

package health

import "time"

// How long something lasts before it is a condition.
const (
	HungAfter    = time.Minute // nothing was published about a database
	starvedAfter = 15 * time.Minute
	lagAtLeast   = time.Minute // the same as in the alert SqlwatchReplicaStale
	pinnedInfo   = 30 * time.Second
	overlapAfter = time.Minute
)
