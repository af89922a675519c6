package pace

import "time"

// Bounds of the time between two attempts to restart a WAL, and multiples of the bytes at which one is due.
const (
	minRetry    = 25 * time.Millisecond
	maxRetry    = 5 * time.Second
	growthRetry = 200 * time.Millisecond // when the WAL has grown by its bound once more
	boldAt      = 2                      // do not wait for calm any longer
	handOverAt  = 4                      // leave the restart to the application
)

// Restart says when a WAL is to be restarted, and what an attempt may cost. It backs off while something is in the way.
// A WAL that keeps growing is retried sooner: on a busy machine the obstacle is more often a slow moment than a long
// reader.
type Restart struct {
	at        int64         // bytes of live WAL
	took      time.Duration // by the last restart, the rehearsal included
	delay     time.Duration // after the last failed attempt
	notBefore time.Time     // of the next attempt, unless the WAL grows
	grown     int64         // bytes of live WAL at which the next attempt may come sooner
	whenGrown time.Time     // and then not before
}

// NewRestart returns a Restart of a WAL that is to be restarted when its live part has that many bytes.
func NewRestart(at int64) *Restart { return &Restart{at: at} }

// Large reports whether the WAL is large enough to be restarted. growing is its growth in bytes per second: the
// faster it grows, the earlier a restart begins, so that the WAL stays within its bound until the restart is done.
func (r *Restart) Large(live int64, growing float64) bool {
	return live+min(int64(growing*r.took.Seconds()/2), r.at/2) >= r.at
}

// Due reports whether it is time to retry a restart that failed.
func (r *Restart) Due(now time.Time, live int64) bool {
	return now.After(r.notBefore) || live >= r.grown && now.After(r.whenGrown)
}

// MayBeBold reports whether an attempt that begins now may be bold. That is no more often than the delay allows: even a
// freeze that is given up has delayed writers.
func (r *Restart) MayBeBold(now time.Time) bool { return now.After(r.notBefore) }

// Bold returns how long the last round of a rehearsal may have taken where usual is allowed at first: on a disk that is
// never that fast, the WAL must not grow without end. The further it is beyond its bound, the longer it may be, and the
// freeze is given up in time if necessary. bold: do not wait for a moment without commits any longer.
func (r *Restart) Bold(live int64, usual time.Duration) (round time.Duration, bold bool) {
	times := max(1, float64(live)/float64(r.at))
	return time.Duration(float64(usual) * times), times >= boldAt
}

// HandOver reports whether the WAL is so large that the application is to restart it, if a bold attempt fails.
func (r *Restart) HandOver(live int64) bool { return live >= handOverAt*r.at }

// Tried records how an attempt ended that lasted from start to now.
func (r *Restart) Tried(start, now time.Time, live int64, done bool) {
	if done {
		r.took, r.delay = now.Sub(start), 0
		return
	}
	r.delay = min(max(2*r.delay, minRetry), maxRetry)
	r.notBefore, r.whenGrown = now.Add(r.delay), now.Add(min(r.delay, growthRetry))
	r.grown = live + r.at
}
