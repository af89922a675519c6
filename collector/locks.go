package collector

import (
	"fmt"
	"math"
	"os"
	"strings"
	"time"

	"github.com/sqlwatch/sqlwatch/internal/dbfile"
)

// recent is how far back "recent samples" reach: the weight of a sample falls
// to 1/e in this time.
const recent = time.Minute

// heldRatio is the share of recent samples that found a lock held. Samples may
// come at uneven intervals.
type heldRatio struct {
	held, all float64
	last      time.Time
}

func (h *heldRatio) observe(now time.Time, held bool) float64 {
	if !h.last.IsZero() {
		fade := math.Exp(-max(0, now.Sub(h.last).Seconds()) / recent.Seconds())
		h.held *= fade
		h.all *= fade
	}
	h.last = now
	h.all++
	if held {
		h.held++
	}
	return h.held / h.all
}

// lockWatch is what only someone who keeps looking at the locks knows.
type lockWatch struct {
	write, checkpoint heldRatio
	processes         map[int]time.Time // pid → last seen holding a lock

	// The lowest held read mark below the head, as of the last look.
	pinned      bool
	pinnedSince time.Time
	pinnedMark  uint32
	pinnedSalt  uint32

	pid     int // whose command is known
	command string
	self    int // our own pid
}

// processLimit bounds the processes remembered for one database.
const processLimit = 1024

func (w *lockWatch) observe(now time.Time, l *dbfile.Locks) (locks Locks, processes int) {
	locks.WriteHeld, locks.CheckpointHeld = l.Write.Held, l.Checkpoint.Held
	locks.WriteRatio = w.write.observe(now, l.Write.Held)
	locks.CheckpointRatio = w.checkpoint.observe(now, l.Checkpoint.Held)
	if w.processes == nil {
		w.processes = make(map[int]time.Time)
	}
	for _, h := range [...]dbfile.Holder{l.Write, l.Checkpoint, l.Recover, l.DMS, l.Shared, l.Read[0], l.Read[1], l.Read[2], l.Read[3], l.Read[4]} {
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

// readers finds who keeps the WAL from being reset. A mark counts only while
// its lock byte is held, and shared: exclusively held, it is being moved. Our
// own is no reader's.
func (w *lockWatch) readers(now time.Time, l *dbfile.Locks, x *dbfile.WALIndex) Readers {
	r := Readers{OldestFrame: math.MaxUint32}
	var oldest dbfile.Holder
	for i, h := range l.Read {
		if !h.Held || h.Exclusive || h.PID == w.self {
			continue
		}
		r.Active++
		mark := min(x.ReadMarks[i], x.MaxFrame)
		if i == 0 { // reads the database file: what is in it must stay as it is
			mark = min(x.Backfilled, x.MaxFrame)
		}
		if mark < r.OldestFrame {
			r.OldestFrame, oldest = mark, h
		}
	}
	if r.Active == 0 {
		w.pinned = false
		return Readers{}
	}
	w.pin(now, r.OldestFrame, x)
	if w.pinned {
		r.PinnedSince = w.pinnedSince
	}
	r.OldestPID = max(0, oldest.PID)
	r.OldestCommand = w.commandOf(oldest.PID)
	return r
}

// pin keeps the time since when the lowest mark has stood below the head. A
// mark that moved up, or a new generation, is another reader: readers that come
// and go pin nothing.
func (w *lockWatch) pin(now time.Time, mark uint32, x *dbfile.WALIndex) {
	if mark >= x.MaxFrame {
		w.pinned = false
		return
	}
	if !w.pinned || mark > w.pinnedMark || x.Salt1 != w.pinnedSalt {
		w.pinnedSince = now
		w.pid = 0 // pids are reused: look again
	}
	w.pinned, w.pinnedMark, w.pinnedSalt = true, mark, x.Salt1
}

// commandOf returns the name of a process, looked up when the process is not
// the one of the last call. The name only: an argument may be a secret.
func (w *lockWatch) commandOf(pid int) string {
	if pid <= 0 {
		return ""
	}
	if pid != w.pid {
		w.pid, w.command = pid, ""
		if name, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid)); err == nil {
			w.command = strings.TrimSuffix(string(name), "\n")
		}
	}
	return w.command
}
