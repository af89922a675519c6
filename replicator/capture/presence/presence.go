// Package presence is who else uses a database, and since when.
package presence

import (
	"errors"
	"time"

	"github.com/sqlwatch/sqlwatch/internal/dbfile"
)

// Others that were there for a second, at some looks, are no short-lived ones.
const (
	aloneFor    = 200 * time.Millisecond // without anybody: the others have left
	longLife    = time.Second
	longLooks   = 8
	shortMemory = 10 * time.Minute // for so long after a life was missed, others count as short-lived
)

// To open or close a database takes its user less than this.
const (
	unclearTries = 4
	unclearPause = 5 * time.Millisecond
)

// Presence is who else uses the database, and since when. It is not for concurrent use.
type Presence struct {
	files     *dbfile.Files
	attached  bool      // others are
	since     time.Time // the same is so
	last      time.Time // it was found so
	looks     int       // as often it was found
	long      bool      // those who were there last were there for long
	short     time.Time // others count as short-lived until then
	exclusive bool      // somebody had the file for himself

	waiting map[int]time.Time // processes that have the file open and no lock on it, and when each was first seen
	refused time.Time         // one of them was found to wait
	asked   time.Time         // by Refused
}

// Look looks who is there. Errors: dbfile.ErrUnclear, *dbfile.ForeignError.
func (p *Presence) Look(now time.Time) error {
	attached, err := p.files.Others()
	if foreign := (*dbfile.ForeignError)(nil); err == nil || errors.As(err, &foreign) {
		p.met(now, attached || foreign != nil)
		p.exclusive = p.exclusive || foreign != nil && foreign.Kind == dbfile.ForeignExclusive
	}
	return err
}

func (p *Presence) met(now time.Time, attached bool) {
	if p.looks++; attached == p.attached && !p.since.IsZero() {
		p.last = now
		return
	}
	if p.attached {
		// As far as they were seen: of a database at rest, looks are as far apart as a long life is.
		if p.long = p.last.Sub(p.since) >= longLife; !p.long {
			p.Missed(now)
		}
	}
	p.attached, p.since, p.last, p.looks = attached, now, now, 1
}

// Missed notes that others are such as come and go, of whom one was missed, or nearly.
func (p *Presence) Missed(now time.Time) { p.long, p.short = false, now.Add(shortMemory) }

// Alone reports whether nobody else has been there for a moment.
func (p *Presence) Alone(now time.Time) bool {
	return !p.attached && (p.exclusive || now.Sub(p.since) >= aloneFor)
}

// Stay reports whether the others are such as stay.
func (p *Presence) Stay(now time.Time) bool { return p.attached && !p.Fresh(now) && now.After(p.short) }

// Fresh reports whether the others have come just now.
func (p *Presence) Fresh(now time.Time) bool {
	return p.attached && (now.Sub(p.since) < longLife || p.looks < longLooks)
}

// New returns what is known of a database that nobody was seen at yet.
func New(files *dbfile.Files) *Presence { return &Presence{files: files} }

// Attend is Look, once more where somebody is just opening or closing the database.
func (p *Presence) Attend(now time.Time) error {
	err := p.Look(now)
	for try := 0; errors.Is(err, dbfile.ErrUnclear) && try < unclearTries; try++ {
		time.Sleep(unclearPause)
		err = p.Look(now)
	}
	return err
}

// Attached reports whether others are there, as of the last look.
func (p *Presence) Attached() bool { return p.attached }

// Since returns since when that is so.
func (p *Presence) Since() time.Time { return p.since }

// Exclusive reports whether somebody was ever seen who wants the file for himself. He is refused
// while we are connected, and asks in a way that nobody sees.
func (p *Presence) Exclusive() bool { return p.exclusive }

// Who has a database open and takes no lock for so long is waiting for us to go; who then takes
// none for so long has only not begun. For as long as the first, nobody stands in his way again.
const (
	waitsAfter  = 300 * time.Millisecond
	waitsAtMost = 20 * time.Second
)

// ErrWaited says that a process waits for exclusive use of the database, and that we have it open.
var ErrWaited = errors.New("another process waits for exclusive use of the database")

// Waited reports whether a process seems to be refused the file because we are connected: it asks in a
// way that no lock tells.
func (p *Presence) Waited() bool {
	pids, at, err := dbfile.Waiting(p.files, len(p.waiting) > 0)
	return err == nil && !p.attached && p.wait(pids, at)
}

// Refused is Waited in the middle of long work: it returns ErrWaited then.
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

// Coming reports whether, before we have connected, somebody may be about to find that he is refused: he
// has just opened the database and taken no lock, or was refused before.
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

// Long reports whether those who were there last were there for long.
func (p *Presence) Long() bool { return p.long }
