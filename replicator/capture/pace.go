package capture

import (
	"math"
	"time"
)

// When to look again. Each look wakes threads up, which costs more than the look;
// a busy WAL is read in portions that fit a cache.
const (
	nextOnZero   = time.Millisecond
	nextBusy     = 10 * time.Millisecond
	nextFirst    = 20 * time.Millisecond  // after the first commits in a while: is it a rush?
	nextActive   = 100 * time.Millisecond // for so long may a checkpoint of the application's wait for our mark
	nextLevel    = 200 * time.Millisecond // on READ0 nobody waits for us
	nextIdle     = time.Second
	portionBytes = 4 << 20
)

// pacing is how busy the database is, and when to look at it again.
type pacing struct {
	stepped  time.Time // when the last Step began
	frames   float64   // read by it, for each second since the one before
	busy     time.Time // when commits were last seen
	first    bool      // those read last were the first in a while
	active   time.Time // when a commit was last read
	level    time.Time // not to be tried before
	failing  time.Time // since when every Step has failed; zero: the last did not
	stayOpen bool      // closing an idle database's connections once cost a comparison: the application closes it too
}

// observe takes in what the Step read that began at at. A burst is remembered for a second or two: the
// steps around a restart of the WAL find nothing.
func (p *pacing) observe(at time.Time, commits, frames int) {
	seconds := max(at.Sub(p.stepped), nextBusy).Seconds()
	if p.first = commits > 0 && at.Sub(p.busy) > 2*nextActive; commits > 0 {
		p.busy = at
	}
	p.stepped = at
	p.frames = max(float64(frames)/seconds, p.frames*math.Exp2(-2*seconds))
}

// failPatience is for how long the WAL is held while no Step succeeds.
const failPatience = 2 * time.Second

// fails takes in how the Step that began at now ended, and reports whether they have
// failed for too long.
func (p *pacing) fails(now time.Time, err error) bool {
	switch {
	case err == nil:
		p.failing = time.Time{}
	case p.failing.IsZero():
		p.failing = now
	}
	return err != nil && now.Sub(p.failing) >= failPatience
}

// next is how long the database takes to fill a portion.
func (p *pacing) next(frameSize int) time.Duration {
	if portion := portionBytes / float64(frameSize); p.frames*nextActive.Seconds() > portion {
		return max(nextBusy, time.Duration(portion/p.frames*float64(time.Second)))
	}
	if p.first {
		return nextFirst
	}
	return nextActive
}

// growth is by how many bytes the WAL grows in a second.
func (p *pacing) growth(frameSize int) float64 { return p.frames * float64(frameSize) }

// onZero is how soon READ0 is to be left once frames appear: while it is held, each
// commit of a busy application tries a checkpoint in vain.
func (p *pacing) onZero(frameSize int) time.Duration {
	if p.next(frameSize) < nextActive {
		return nextOnZero
	}
	return nextLevel
}

// rhythmic returns the time to the next multiple of a rhythm, at which all databases of that
// rhythm are looked at, so that they wake the machine once. Who is in a hurry has
// no rhythm.
func rhythmic(now time.Time, rhythm time.Duration) time.Duration {
	if rhythm < nextActive {
		return rhythm
	}
	return now.Truncate(rhythm).Add(rhythm).Sub(now)
}
