// Package pace is how busy a database is, and when to look at it again.
package pace

import (
	"math"
	"time"
)

// When to look again. Each look wakes threads up, which costs more than the look;
// a busy WAL is read in portions that fit a cache.
const (
	OnZero       = time.Millisecond
	Busy         = 10 * time.Millisecond
	First        = 20 * time.Millisecond  // after the first commits in a while: is it a rush?
	Active       = 100 * time.Millisecond // for so long may a checkpoint of the application's wait for our mark
	Level        = 200 * time.Millisecond // on READ0 nobody waits for us
	Idle         = time.Second
	portionBytes = 4 << 20
)

// Pace is how busy the database is, and when to look at it again.
type Pace struct {
	stepped  time.Time // when the last Step began
	frames   float64   // read by it, for each second since the one before
	Met      time.Time // when commits were last seen
	first    bool      // those read last were the first in a while
	Read     time.Time // when a commit was last read
	NoLevel  time.Time // not to be tried before
	failing  time.Time // since when every Step has failed; zero: the last did not
	hindered time.Time // since when every Step met what lasts a moment only; zero: the last did not
	StayOpen bool      // closing an idle database's connections once cost a comparison: the application closes it too
}

// Observe takes in what the Step read that began at at. A burst is remembered for a second or two: the
// steps around a restart of the WAL find nothing.
func (p *Pace) Observe(at time.Time, commits, frames int) {
	seconds := max(at.Sub(p.stepped), Busy).Seconds()
	if p.first = commits > 0 && at.Sub(p.Met) > 2*Active; commits > 0 {
		p.Met = at
	}
	p.stepped = at
	p.frames = max(float64(frames)/seconds, p.frames*math.Exp2(-2*seconds))
}

// failPatience is for how long the WAL is held while no Step succeeds.
const failPatience = 2 * time.Second

// Fails takes in how the Step that began at now ended, and reports whether they have
// failed for too long.
func (p *Pace) Fails(now time.Time, err error) bool {
	switch {
	case err == nil:
		p.failing = time.Time{}
	case p.failing.IsZero():
		p.failing = now
	}
	return err != nil && now.Sub(p.failing) >= failPatience
}

// hinderedPatience is for how long what lasts a moment only is no failure.
const hinderedPatience = 10 * time.Second

// Passes takes in whether the Step that began at now met what lasts a moment only, and
// reports whether to believe that: it may last for ever nevertheless, and whoever waits
// is to be told.
func (p *Pace) Passes(now time.Time, hindered bool) bool {
	switch {
	case !hindered:
		p.hindered = time.Time{}
	case p.hindered.IsZero():
		p.hindered = now
	}
	return hindered && now.Sub(p.hindered) < hinderedPatience
}

// Next is how long the database takes to fill a portion.
func (p *Pace) Next(frameSize int) time.Duration {
	if portion := portionBytes / float64(frameSize); p.frames*Active.Seconds() > portion {
		return max(Busy, time.Duration(portion/p.frames*float64(time.Second)))
	}
	if p.first {
		return First
	}
	return Active
}

// Growth is by how many bytes the WAL grows in a second.
func (p *Pace) Growth(frameSize int) float64 { return p.frames * float64(frameSize) }

// LeaveZero is how soon READ0 is to be left once frames appear: while it is held, each
// commit of a busy application tries a checkpoint in vain.
func (p *Pace) LeaveZero(frameSize int) time.Duration {
	if p.Next(frameSize) < Active {
		return OnZero
	}
	return Level
}

// Rhythmic returns the time to the next multiple of a rhythm, at which all databases of that
// rhythm are looked at, so that they wake the machine once. Who is in a hurry has
// no rhythm.
func Rhythmic(now time.Time, rhythm time.Duration) time.Duration {
	if rhythm < Active {
		return rhythm
	}
	return now.Truncate(rhythm).Add(rhythm).Sub(now)
}
