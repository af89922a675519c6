package collector

import (
	"fmt"
	"math"
	"os"
	"strings"
	"time"

	"github.com/sqlwatch/sqlwatch/internal/dbfile"
)

// recent is how far back "recent samples" reach: the weight of a sample decreases to 1/e in this time.
const recent = time.Minute

// heldRatio is the share of recent samples that found a lock held. The intervals
// between samples may vary.
type heldRatio struct {
	held, all   float64
	first, last time.Time
}

func (h *heldRatio) observe(now time.Time, held bool) float64 {
	if !h.last.IsZero() {
		fade := math.Exp(-max(0, now.Sub(h.last).Seconds()) / recent.Seconds())
		h.held *= fade
		h.all *= fade
	} else {
		h.first = now
	}
	h.last = now
	h.all++
	if held {
		h.held++
	}
	return h.held / h.all
}

// over returns the length of the time that the share covers.
func (h *heldRatio) over() time.Duration { return min(h.last.Sub(h.first), recent) }

// lockWatch is what can be known about locks only by looking again and again.
type lockWatch struct {
	write, checkpoint heldRatio
	share             heldRatio         // of samples with readers
	processes         map[int]time.Time // pid → last seen holding a lock
	attached          dbfile.Locks      // Shared and DMS, when all locks were last asked for

	// The lowest held read mark below the head, as of the last look.
	pinned      bool
	pinnedSince time.Time
	pinnedMark  uint32
	pinnedSalt  uint32

	// The transaction that holds the write lock, as of the last look.
	writeSince  time.Time // zero: no process holds it
	writeChange uint32    // the database's change counter during it

	reader, writer process
	self           int // our own pid
}

// process is a process whose name was looked up.
type process struct {
	pid     int
	command string
}

// processLimit limits the processes that are remembered for one database.
const processLimit = 1024

func (w *lockWatch) observe(now time.Time, l *dbfile.Locks, change uint32) (locks Locks, processes int) {
	w.hold(now, l.Write, change, &locks)
	locks.WriteHeld, locks.CheckpointHeld = l.Write.Held, l.Checkpoint.Held
	locks.WriteRatio = w.write.observe(now, l.Write.Held)
	locks.CheckpointRatio = w.checkpoint.observe(now, l.Checkpoint.Held)
	locks.Watched = w.write.over()
	if w.processes == nil {
		w.processes = make(map[int]time.Time)
	}
	for _, h := range [...]dbfile.Holder{l.Write, l.Checkpoint, l.Recover, l.DMS, l.Shared, l.Read[0], l.Read[1],
		l.Read[2], l.Read[3], l.Read[4]} {
		if _, known := w.processes[h.PID]; h.Held && (known || len(w.processes) < processLimit) {
			w.processes[h.PID] = now // an OFD holder (-1) or one of another namespace (0) counts as one process
		}
	}
	for pid, seen := range w.processes {
		if now.Sub(seen) > recent {
			delete(w.processes, pid)
		}
	}
	return locks, len(w.processes)
}

// hold updates since when one transaction has held the write lock. A commit, or
// another holder in between, makes it another transaction. Our own holds are ignored:
// they are bounded and harm nobody.
func (w *lockWatch) hold(now time.Time, h dbfile.Holder, change uint32, locks *Locks) {
	if !h.Held || h.PID == w.self {
		w.writeSince = time.Time{}
		return
	}
	if w.writeSince.IsZero() || change != w.writeChange || h.PID != w.writer.pid {
		w.writeSince, w.writeChange, w.writer = now, change, process{pid: h.PID}
	}
	locks.WriteSince, locks.WriterPID = w.writeSince, max(0, h.PID)
	if now.Sub(w.writeSince) >= namedAfter {
		locks.WriterCommand = w.writer.name()
	}
}

// namedAfter is how long a transaction must last before its process is worth naming.
const namedAfter = time.Second

// readers finds the processes that keep the WAL from being reset. A mark counts only
// while its lock byte is held and shared; if it is held exclusively, it is being
// moved. Our own marks are not readers.
func (w *lockWatch) readers(now time.Time, l *dbfile.Locks, x *dbfile.WALIndex) Readers {
	r := Readers{OldestFrame: math.MaxUint32}
	var oldest dbfile.Holder
	for i, h := range l.Read {
		if !h.Held || h.Exclusive || h.PID == w.self {
			continue
		}
		r.Active++
		mark := min(x.ReadMarks[i], x.MaxFrame)
		if i == 0 { // it reads the database file, whose content must stay as it is
			mark = min(x.Backfilled, x.MaxFrame)
		}
		if mark < r.OldestFrame {
			r.OldestFrame, oldest = mark, h
		}
	}
	r.Share = w.share.observe(now, r.Active > 0)
	if r.Active == 0 {
		w.pinned = false
		return Readers{Share: r.Share}
	}
	w.pin(now, r.OldestFrame, x)
	if w.pinned {
		r.PinnedSince = w.pinnedSince
	}
	r.OldestPID = max(0, oldest.PID)
	if oldest.PID != w.reader.pid {
		w.reader = process{pid: oldest.PID}
	}
	r.OldestCommand = w.reader.name()
	return r
}

// pin updates since when the lowest mark has been below the head. A mark that moved up,
// or a new generation, means another reader: readers that come and go do not pin the WAL.
func (w *lockWatch) pin(now time.Time, mark uint32, x *dbfile.WALIndex) {
	if mark >= x.MaxFrame {
		w.pinned = false
		return
	}
	if !w.pinned || mark > w.pinnedMark || x.Salt1 != w.pinnedSalt {
		w.pinnedSince = now
		w.reader = process{} // pids are reused: look again
	}
	w.pinned, w.pinnedMark, w.pinnedSalt = true, mark, x.Salt1
}

// name returns the name of the process, looked up once, without its arguments: they may contain secrets.
func (p *process) name() string {
	if p.pid <= 0 || p.command != "" {
		return p.command
	}
	if name, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", p.pid)); err == nil {
		p.command = strings.TrimSuffix(string(name), "\n")
	}
	return p.command
}
