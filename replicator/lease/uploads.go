package lease

import (
	"errors"
	"sync/atomic"
)

// Uploads knows what may still arrive at the store that nobody has answered for.
type Uploads struct{ commits, whole atomic.Bool }

// Note notes whether a file may still arrive: of what was committed since the replica's tip,
// or of the whole database. A later one of the same kind holds what it holds.
func (u *Uploads) Note(whole, adrift bool) {
	which := &u.commits
	if whole {
		which = &u.whole
	}
	which.Store(adrift)
}

func (u *Uploads) adrift() bool { return u.commits.Load() || u.whole.Load() }

// errAdrift says why a lease is left to expire: who finds it released joins the replica's tip.
var errAdrift = errors.New("release lease: an upload that was not answered may still arrive")
