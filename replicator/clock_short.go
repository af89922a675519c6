//go:build shortlease

package replicator

import (
	"os"
	"time"
)

// skew is how wrong this host's clock is, in tests of several hosts.
var skew, _ = time.ParseDuration(os.Getenv("SQLWATCH_TEST_CLOCK"))

func systemClock() time.Time { return time.Now().Add(skew) }
