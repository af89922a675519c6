package replicator

import (
	"errors"
	"time"

	"github.com/sqlwatch/sqlwatch/replicator/custody"
	"github.com/sqlwatch/sqlwatch/replicator/lease"
	"github.com/sqlwatch/sqlwatch/replicator/store"
	"github.com/sqlwatch/sqlwatch/replicator/worker"
)

// patience is the wait after err: what only a person can cure is not asked often, and
// who has the lease in our place least of all.
func patience(err error, failures int) time.Duration {
	if errors.Is(err, lease.ErrConfirming) {
		return 500 * time.Millisecond
	}
	if unsent := store.Unsent(nil); errors.As(err, &unsent) {
		return worker.Backoff(1) // it has waited: all who wait there are released when the store is back
	}
	for _, slow := range []error{custody.ErrForeign, lease.ErrFenced} {
		if errors.Is(err, slow) {
			return time.Second + min(worker.Backoff(failures)<<min(failures, 5), 5*time.Minute)
		}
	}
	for _, slow := range []error{store.ErrAuth, store.ErrMisplaced, lease.ErrHeld} {
		if errors.Is(err, slow) {
			return min(worker.Backoff(failures)*4, 30*time.Second)
		}
	}
	return worker.Backoff(failures)
}

// pause is patience that keeps growing, to ten minutes: what failed for long is asked
// seldom, because each attempt may read much.
func pause(err error, failures int) time.Duration {
	wait := patience(err, failures)
	if failures > 5 && !errors.Is(err, lease.ErrConfirming) {
		wait = min(wait+time.Second<<min(failures, 10), 10*time.Minute)
	}
	return wait
}
