package capture

import (
	"context"
	"errors"
	"math"
	"time"

	"golang.org/x/sys/unix"
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

// pacing is how busy the database is, and when to try again what costs something
// to try.
type pacing struct {
	stepped        time.Time     // when the last Step began
	frames         float64       // read by it, for each second since the one before
	busy           time.Time     // when commits were last seen
	first          bool          // those read last were the first in a while
	took           time.Duration // by the last restart, what went before it included
	restart, level time.Time     // not before
	restartGrown   time.Time     // not before, when there are
	grown          int64         // so many bytes in the WAL
	delay          time.Duration // after the last failed restart
	failing        time.Time     // since when every Step has failed; zero: the last did not
	disk           time.Time     // when to ask for free space again
	diskLow        bool          // what it answered
	stayOpen       bool          // closing an idle database's connections once cost a diff: the application closes it too
}

// observe takes in what a Step read. A burst is remembered for a second or two: the
// steps around a restart of the WAL find nothing.
func (p *pacing) observe(did Progress) {
	since := did.At.Sub(p.stepped)
	seconds := max(since, nextBusy).Seconds()
	if p.first = did.Commits > 0 && did.At.Sub(p.busy) > 2*nextActive; did.Commits > 0 {
		p.busy = did.At
	}
	p.stepped = did.At
	p.frames = max(float64(did.Frames)/seconds, p.frames*math.Exp2(-2*seconds))
}

// failPatience is for how long the WAL is held while no Step succeeds.
const failPatience = 2 * time.Second

// fails takes in how the Step that began at now ended, and says whether they have
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

// growth is by how many bytes the WAL grows during the first half of a restart, or the
// most that shall count: that much earlier it is begun, so that the bound is what the
// WAL has, not where it starts out from.
func (p *pacing) growth(frameSize int, most int64) int64 {
	return min(int64(p.frames*p.took.Seconds()/2*float64(frameSize)), most)
}

// onZero is how soon READ0 is to be left once frames appear: while it is held, each
// commit of a busy application tries a checkpoint in vain.
func (p *pacing) onZero(frameSize int) time.Duration {
	if p.next(frameSize) < nextActive {
		return nextOnZero
	}
	return nextLevel
}

// beat is the time to the next multiple of a rhythm, at which all databases of that
// rhythm are looked at, so that they wake the machine once. Who is in a hurry has
// no rhythm.
func beat(now time.Time, rhythm time.Duration) time.Duration {
	if rhythm < nextActive {
		return rhythm
	}
	return now.Truncate(rhythm).Add(rhythm).Sub(now)
}

// tryRestart restarts the WAL, less and less often while something is in the way.
// One that grows meanwhile does not wait that long: on a busy machine, what was
// in the way is more often a slow moment than a reader who stays.
func (c *Capture) tryRestart(ctx context.Context, live int64) error {
	// No oftener than the delay allows: a freeze that is given up has held writers up.
	start := c.o.Clock()
	bold := live >= 4*c.o.RestartAt && start.After(c.pace.restart)
	done, err := c.restart(ctx, bold)
	now := c.o.Clock()
	if done {
		c.pace.took = now.Sub(start)
		c.pace.delay = 0
		c.tally.Next = nextOnZero
		return err
	}
	c.pace.delay = min(max(2*c.pace.delay, minRetry), maxRetry)
	c.pace.restart, c.pace.restartGrown = now.Add(c.pace.delay), now.Add(min(c.pace.delay, growthRetry))
	c.pace.grown = live + c.o.RestartAt
	if bold && live >= handOverAt*c.o.RestartAt && errors.Is(err, errBudget) {
		return c.handOver(ctx)
	}
	return err
}

// restartDue says whether a restart that failed is to be tried again.
func (p pacing) restartDue(now time.Time, live int64) bool {
	return now.After(p.restart) || live >= p.grown && now.After(p.restartGrown)
}

// diskFloor is what capture leaves free on the state directory's file system, in bytes.
const diskFloor = 64 << 20

// diskLow looks at most once a second.
func (c *Capture) diskLow() bool {
	if now := c.o.Clock(); now.After(c.pace.disk) {
		c.pace.disk = now.Add(time.Second)
		var fs unix.Statfs_t
		err := unix.Statfs(c.o.StateDir, &fs)
		c.pace.diskLow = err == nil && fs.Bavail*uint64(fs.Bsize) < diskFloor
	}
	return c.pace.diskLow
}
