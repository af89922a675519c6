// Package pace measures how busy a database is, and says when to look at it again and when to restart its WAL.
package pace

import (
	"math"
	"time"
)

// When to look again. Each look wakes threads up, which costs more than the look itself; a busy WAL is read in
// portions that fit a cache.
const (
	OnZero       = time.Millisecond
	Busy         = 10 * time.Millisecond
	First        = 20 * time.Millisecond  // after the first commits in a while: are there more?
	Active       = 100 * time.Millisecond // so long may the application's own checkpoint wait for our read mark
	Level        = 200 * time.Millisecond // on READ0 nobody waits for us
	Idle         = time.Second
	portionBytes = 4 << 20
)

// Pace measures how busy the database is, and says when to look at it again.
type Pace struct {
	stepped  time.Time // when the last Step began
	frames   float64   // frames read per second, as a decaying maximum
	Met      time.Time // when commits were last seen
	first    bool      // the commits read last were the first in a while
	Read     time.Time // when a commit was last read
	NoLevel  time.Time // hold.level is not tried before
	failing  time.Time // since when every Step has failed; zero: the last one did not
	hindered time.Time // since when every Step met a transient error; zero: the last one did not
	StayOpen bool      // closing them when idle once cost a comparison, as the application closes too: keep them open
}

// Observe records what the Step read that began at the time at. A burst is remembered for a second or two,
// because the steps around a restart of the WAL find nothing.
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

// Fails records how the Step that began at now ended, and reports whether Steps have failed for too long.
func (p *Pace) Fails(now time.Time, err error) bool {
	switch {
	case err == nil:
		p.failing = time.Time{}
	case p.failing.IsZero():
		p.failing = now
	}
	return err != nil && now.Sub(p.failing) >= failPatience
}

// hinderedPatience is for how long a transient error is not a failure.
const hinderedPatience = 10 * time.Second

// Passes records whether the Step that began at now met a transient error, and reports whether to treat it as
// one: it may persist nevertheless, and then has to be reported to the caller.
func (p *Pace) Passes(now time.Time, hindered bool) bool {
	switch {
	case !hindered:
		p.hindered = time.Time{}
	case p.hindered.IsZero():
		p.hindered = now
	}
	return hindered && now.Sub(p.hindered) < hinderedPatience
}

// Next returns when to look again: after the time that a busy database takes to fill a portion, else First or
// Active.
func (p *Pace) Next(frameSize int) time.Duration {
	if portion := portionBytes / float64(frameSize); p.frames*Active.Seconds() > portion {
		return max(Busy, time.Duration(portion/p.frames*float64(time.Second)))
	}
	if p.first {
		return First
	}
	return Active
}

// Growth returns by how many bytes the WAL grows per second.
func (p *Pace) Growth(frameSize int) float64 { return p.frames * float64(frameSize) }

// LeaveZero returns how soon READ0 is to be left once frames appear: while we hold it, each commit of a busy
// application attempts a checkpoint in vain.
func (p *Pace) LeaveZero(frameSize int) time.Duration {
	if p.Next(frameSize) < Active {
		return OnZero
	}
	return Level
}

// Rhythmic returns the time to the next multiple of rhythm. All databases of one rhythm are then looked at
// together, so that they wake the machine once. A rhythm below Active is returned as it is.
func Rhythmic(now time.Time, rhythm time.Duration) time.Duration {
	if rhythm < Active {
		return rhythm
	}
	return now.Truncate(rhythm).Add(rhythm).Sub(now)
}
