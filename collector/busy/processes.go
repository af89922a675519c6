package busy

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"github.com/sqlwatch/sqlwatch/internal/openfile"
)

// findEvery is how often Processes looks for processes that came or went.
const findEvery = 5 * time.Second

// Processes follows the processes that have chosen databases open, and counts their calls of
// sqlite3_step that returned SQLITE_BUSY (Steps). That includes contention within one process,
// which Collector cannot see. Such a call reports neither which lock nor which database it was
// refused: a process that has several of the chosen databases open counts for each. Calls before
// the process was found are not counted. All methods may be called concurrently.
type Processes struct {
	log  *slog.Logger
	open func(pid int) (*Steps, error) // OpenSteps; it may take as long as a disk needs to answer

	mu  sync.Mutex // a scrape waits for it: never held while a file is accessed
	dbs map[string]*stepped
}

// fileID identifies a file by device and inode.
type fileID struct{ dev, ino uint64 }

// stepped is one chosen database.
type stepped struct {
	file   fileID            // of the main file; ino is 0 until Watch
	pids   map[uint64]*Steps // by process; nil if the process cannot be followed
	before uint64            // counted in processes that have exited
}

// NewProcesses returns Processes for the databases of these names. Nothing is
// followed before Run.
func NewProcesses(dbs []string, log *slog.Logger) *Processes {
	p := &Processes{log: log, open: OpenSteps, dbs: make(map[string]*stepped)}
	for _, db := range dbs {
		p.dbs[db] = &stepped{pids: make(map[uint64]*Steps)}
	}
	return p
}

// Watch sets the file that is now database db, as stat returns it. Names that were not chosen are ignored.
func (p *Processes) Watch(db string, device, inode uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if d := p.dbs[db]; d != nil {
		d.file = fileID{device, inode}
	}
}

// Counts returns the calls that returned SQLITE_BUSY at database db so far, and
// false if db was not chosen. They never decrease.
func (p *Processes) Counts(db string) (n uint64, chosen bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	d := p.dbs[db]
	if d == nil {
		return 0, false
	}
	n = d.before
	for _, s := range d.pids {
		if s != nil {
			count, _ := s.Count() // of an open map: cannot fail
			n += count
		}
	}
	return n, true
}

// Run finds processes and follows them until ctx ends.
func (p *Processes) Run(ctx context.Context) error {
	if len(p.dbs) == 0 {
		return nil
	}
	defer p.leave(func(uint64) bool { return true })
	tick := time.NewTicker(findEvery)
	defer tick.Stop()
	for {
		p.find()
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// find follows the processes that have a chosen database open now.
func (p *Processes) find() {
	dirs, err := filepath.Glob("/proc/[0-9]*/fd")
	if err != nil {
		return
	}
	alive := make(map[uint64]bool, len(dirs))
	for _, dir := range dirs {
		pid, err := strconv.ParseUint(filepath.Base(filepath.Dir(dir)), 10, 32)
		if err != nil || int(pid) == os.Getpid() {
			continue
		}
		alive[pid] = true
		for _, db := range p.opened(dir) {
			p.follow(db, pid)
		}
	}
	p.leave(func(pid uint64) bool { return !alive[pid] })
}

// opened returns the chosen databases among the files of a directory /proc/PID/fd. It opens none of them.
func (p *Processes) opened(dir string) (dbs []string) {
	fds, err := os.ReadDir(dir)
	if err != nil {
		return nil // gone, or another user's
	}
	p.mu.Lock()
	files := make(map[string]fileID, len(p.dbs))
	for db, d := range p.dbs {
		files[db] = d.file
	}
	p.mu.Unlock()
	found := make(map[string]bool)
	for _, fd := range fds {
		at, err := openfile.At(filepath.Join(dir, fd.Name()))
		if err != nil {
			continue
		}
		for db, file := range files {
			if file.ino != 0 && file == (fileID{at.Dev, at.Ino}) && !found[db] {
				found[db] = true
				dbs = append(dbs, db)
			}
		}
	}
	return dbs
}

// follow begins to count in a process, once. Only Run's goroutine calls it.
func (p *Processes) follow(db string, pid uint64) {
	p.mu.Lock()
	_, known := p.dbs[db].pids[pid]
	p.mu.Unlock()
	if known {
		return
	}
	steps, err := p.open(int(pid))
	if errors.Is(err, fs.ErrNotExist) {
		return // it has exited in the meantime
	}
	p.mu.Lock()
	p.dbs[db].pids[pid] = steps // also if nil: another attempt would fail in the same way
	p.mu.Unlock()
	if err != nil {
		p.log.Warn("SQLITE_BUSY within this process is not counted; what it meets of other processes is", "db", db, "pid",
			pid, "err", err)
		return
	}
	p.log.Info("counting the SQLITE_BUSY that sqlite3_step returns", "db", db, "pid", pid)
}

// leave stops probing processes and keeps what was counted there.
func (p *Processes) leave(gone func(pid uint64) bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for db, d := range p.dbs {
		for pid, steps := range d.pids {
			if !gone(pid) {
				continue
			}
			delete(d.pids, pid)
			if steps == nil {
				continue
			}
			n, err := steps.Count()
			if err := errors.Join(err, steps.Close()); err != nil {
				p.log.Warn("the probe of a process did not close cleanly", "db", db, "pid", pid, "err", err)
			}
			d.before += n
		}
	}
}
