// Package presence tracks which other processes use a database, and since when.
package presence

import (
	"errors"
	"time"

	"github.com/sqlwatch/sqlwatch/internal/dbfile"
)

// Other processes that were seen for a second, at several looks, are not short-lived.
const (
	aloneFor    = 200 * time.Millisecond // nobody was seen for so long: the others have left
	longLife    = time.Second
	longLooks   = 8
	shortMemory = 10 * time.Minute // for so long after a short-lived process was missed, others count as short-lived
)

// A process needs less time than this to open or close a database.
const (
	unclearTries = 4
	unclearPause = 5 * time.Millisecond
)

// Presence tracks which other processes use the database, and since when. It is not for concurrent use.
type Presence struct {
	files     *dbfile.Files
	attached  bool      // other processes are connected
	since     time.Time // attached has been what it is
	last      time.Time // of the last look that found it so
	looks     int       // how many looks found it so
	long      bool      // the last ones that were connected were so for long
	short     time.Time // others count as short-lived until then
	exclusive bool      // a process was seen that had the file for itself

	user     int // the process that used the wal-index at each look since then; 0: unknown, -1: not always the same
	familiar int // the user of a long time without a break; 0: none

	waiting map[int]time.Time // processes that have the file open and no lock on it, and when each was first seen
	refused time.Time         // when one of them was last found to be waiting
	asked   time.Time         // when Refused last looked
}

// Look looks which other processes are connected. Errors: dbfile.ErrUnclear, *dbfile.ForeignError.
func (p *Presence) Look(now time.Time) error {
	attached, err := p.files.Others()
	if foreign := (*dbfile.ForeignError)(nil); err == nil || errors.As(err, &foreign) {
		p.met(now, attached || foreign != nil)
		p.exclusive = p.exclusive || foreign != nil && foreign.Kind == dbfile.ForeignExclusive
		if attached {
			user, _ := p.files.IndexUser()
			p.recognise(user.PID)
		}
	}
	return err
}

// recognise notes which process uses the wal-index. A process that was connected for long may interrupt that
// itself (VACUUM, journal_mode): if it is there again, no short-lived one was missed.
func (p *Presence) recognise(pid int) {
	switch {
	case pid <= 0:
		return // in another pid namespace, or an OFD lock
	case p.user == 0:
		p.user = pid
	case p.user != pid:
		p.user = -1
	}
	if pid == p.familiar {
		p.short = time.Time{}
	}
}

func (p *Presence) met(now time.Time, attached bool) {
	if p.looks++; attached == p.attached && !p.since.IsZero() {
		p.last = now
		return
	}
	if p.attached {
		// Count up to the last look that saw them: of a database at rest, the looks are as far apart as a long
		// life is.
		p.long = p.last.Sub(p.since) >= longLife
		if !p.long {
			p.short = now.Add(shortMemory)
			if p.user == p.familiar { // it comes and goes
				p.familiar = 0
			}
		} else if p.user > 0 {
			p.familiar = p.user
		}
	}
	p.attached, p.since, p.last, p.looks, p.user = attached, now, now, 1, 0
}

// Missed notes that the other processes are short-lived, and that one was missed or nearly so.
func (p *Presence) Missed(now time.Time) {
	if p.attached && !p.Fresh(now) && p.user > 0 {
		p.familiar = p.user
	}
	p.long, p.short = false, now.Add(shortMemory)
}

// Alone reports whether no other process has been connected for a moment.
func (p *Presence) Alone(now time.Time) bool {
	return !p.attached && (p.exclusive || now.Sub(p.since) >= aloneFor)
}

// Stay reports whether other processes are connected and long-lived.
func (p *Presence) Stay(now time.Time) bool { return p.attached && !p.Fresh(now) && now.After(p.short) }

// Fresh reports whether the other processes have only just connected.
func (p *Presence) Fresh(now time.Time) bool {
	return p.attached && (now.Sub(p.since) < longLife || p.looks < longLooks)
}

// New returns the Presence of a database at which no other process was seen yet.
func New(files *dbfile.Files) *Presence { return &Presence{files: files} }

// Attend is Look, repeated a few times while a process is just opening or closing the database.
func (p *Presence) Attend(now time.Time) error {
	err := p.Look(now)
	for try := 0; errors.Is(err, dbfile.ErrUnclear) && try < unclearTries; try++ {
		time.Sleep(unclearPause)
		err = p.Look(now)
	}
	return err
}

// Attached reports whether other processes are connected, as of the last look.
func (p *Presence) Attached() bool { return p.attached }

// Since returns since when Attached has been what it is.
func (p *Presence) Since() time.Time { return p.since }

// Exclusive reports whether a process was ever seen that wants the file for itself. While we are connected such
// a process is refused, and its attempts show in no lock.
func (p *Presence) Exclusive() bool { return p.exclusive }

// A process that has had the database open without a lock for waitsAfter is taken to wait for us to leave.
// After waitsAtMost it is not: it has opened the database and simply not begun to use it. Once a process was
// found waiting, nothing is opened for another waitsAfter, so as not to be in its way again.
const (
	waitsAfter  = 300 * time.Millisecond
	waitsAtMost = 20 * time.Second
)

// ErrWaited says that another process waits for exclusive use of the database, which we have open.
var ErrWaited = errors.New("another process waits for exclusive use of the database")

// Waited reports whether a process seems to be refused the file because we are connected. No lock shows its
// attempts, so the open files of all processes are looked at.
func (p *Presence) Waited() bool {
	pids, at, err := dbfile.Waiting(p.files, len(p.waiting) > 0)
	return err == nil && !p.attached && p.wait(pids, at)
}

// Refused is Waited for the middle of long work, at most once each waitsAfter: it returns ErrWaited where a
// process waits.
func (p *Presence) Refused(now time.Time) error {
	if now.Sub(p.asked) < waitsAfter {
		return nil
	}
	p.asked = now
	if err := p.Look(now); err == nil && p.Waited() {
		return ErrWaited
	}
	return nil
}

// Coming reports, before we connect, whether a process may be about to be refused because of us: it has opened
// the database just now and taken no lock, or was found waiting a moment ago.
func (p *Presence) Coming() bool {
	pids, at, err := dbfile.Waiting(p.files, true)
	if err != nil || p.attached {
		return false
	}
	p.wait(pids, at)
	return len(pids) > 0 && p.comes(at)
}

func (p *Presence) comes(at time.Time) (comes bool) {
	for _, since := range p.waiting {
		comes = comes || at.Sub(since) < waitsAfter
	}
	return comes || at.Sub(p.refused) < waitsAfter
}

func (p *Presence) wait(pids []int, at time.Time) (waited bool) {
	before := p.waiting
	p.waiting = make(map[int]time.Time, len(pids))
	for _, pid := range pids {
		since, known := before[pid]
		if !known {
			since = at
		}
		p.waiting[pid] = since
		waited = waited || at.Sub(since) >= waitsAfter && at.Sub(since) < waitsAtMost
	}
	if waited {
		p.refused = at
	}
	return waited
}

// Long reports whether the processes that were connected last were connected for long.
func (p *Presence) Long() bool { return p.long }
