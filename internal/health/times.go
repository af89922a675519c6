//go:build !shortlease

package health

import "time"

// How long something lasts before it is a condition.
const (
	HungAfter    = time.Minute // a database was not heard of
	starvedAfter = 15 * time.Minute
	lagAtLeast   = time.Minute // as the alert SqlwatchReplicaStale
	pinnedInfo   = 30 * time.Second
	overlapAfter = time.Minute
)
