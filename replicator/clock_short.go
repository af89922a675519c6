//go:build shortlease

package replicator

import (
	"os"
	"time"
)

// skew is the clock error that tests of several hosts give this host.
var skew, _ = time.ParseDuration(os.Getenv("SQLWATCH_TEST_CLOCK"))

func systemClock() time.Time { return time.Now().Add(skew) }
