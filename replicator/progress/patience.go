package progress

import (
	"errors"
	"time"

	"github.com/sqlwatch/sqlwatch/replicator/custody"
	"github.com/sqlwatch/sqlwatch/replicator/lease"
	"github.com/sqlwatch/sqlwatch/replicator/store"
	"github.com/sqlwatch/sqlwatch/replicator/worker"
)

// Patience returns how long to wait after err. Errors that only a person can cure are retried
// seldom, and a replica that another writer has taken over least often.
func Patience(err error, failures int) time.Duration {
	if errors.Is(err, lease.ErrConfirming) {
		return 500 * time.Millisecond
	}
	if unsent := store.Unsent(nil); errors.As(err, &unsent) {
		return worker.Backoff(1) // the request has waited already, and is released when the store answers again
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

// Pause is Patience that keeps growing, to ten minutes: each attempt at maintenance may read
// much, so one that keeps failing is retried seldom.
func Pause(err error, failures int) time.Duration {
	wait := Patience(err, failures)
	if failures > 5 && !errors.Is(err, lease.ErrConfirming) {
		wait = min(wait+time.Second<<min(failures, 10), 10*time.Minute)
	}
	return wait
}

// Hopeless reports whether only a person can cure err.
func Hopeless(err error) bool {
	return errors.Is(err, lease.ErrFenced) || errors.Is(err, custody.ErrForeign) || errors.Is(err, store.ErrMisplaced) ||
		errors.Is(err, store.ErrAuth)
}
