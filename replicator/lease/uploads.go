package lease

import (
	"errors"
	"sync/atomic"
)

// Uploads tracks whether uploads to which no reply came may still reach the store.
type Uploads struct{ commits, whole atomic.Bool }

// Note records whether a file may still arrive: one of new commits, or (whole) one of the whole
// database. One flag for each kind is enough, because a later file of a kind covers an earlier
// one.
func (u *Uploads) Note(whole, adrift bool) {
	which := &u.commits
	if whole {
		which = &u.whole
	}
	which.Store(adrift)
}

func (u *Uploads) adrift() bool { return u.commits.Load() || u.whole.Load() }

// errAdrift says why a lease is left to expire: a host that finds it released joins the tip at once.
var errAdrift = errors.New("release lease: an upload that was not answered may still arrive")
