// Package collector measures a watched database from its files alone and exports the
// results to Prometheus. A Sampler keeps what can only be known by watching (totals over
// WAL restarts, since-times, lock ratios) and returns a Sample; the Exporter turns
// published samples into metrics. Nothing here takes a lock, runs SQL or decides anything.
package collector

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/sqlwatch/sqlwatch/internal/dbfile"
	"github.com/sqlwatch/sqlwatch/internal/owner"
)

// SamplerOptions are a Sampler's surroundings. The zero value is usable.
type SamplerOptions struct {
	// BeforeClose is called before the Sampler closes the database's files because another file
	// has taken their place, or because they no longer exist. The owner must close its SQL
	// connections there, because otherwise they would lose their locks.
	BeforeClose func()
	// OnFiles is called with the inodes of the database's files when these have changed, for collector/busy.
	OnFiles func(dbfile.Stat)
	// AllowNetworkFS samples databases on network file systems too.
	AllowNetworkFS bool
	// Refused returns the refused locks of all sources, for Locks.Busy.
	Refused func() uint64
	// Now is the clock; nil: time.Now.
	Now func() time.Time
}

// Sampler measures one database. It takes no lock and writes nothing. It keeps what
// can only be known by watching: totals that survive WAL restarts, since-times, shares
// of time. One goroutine owns a Sampler.
type Sampler struct {
	path string
	opts SamplerOptions

	files  *dbfile.Files // nil while there is no database
	inodes inodes        // as told to OnFiles
	sides  sides         // as last seen
	sample Sample        // the one being filled

	// The wal-index.
	index     dbfile.WALIndex // as last seen
	watching  bool            // index is a base to count from
	rebuilt   bool            // a wal-index seen next counts from zero
	scanning  bool            // index came from the scan
	paired    bool            // the WAL's header was compared with index
	indexSeen time.Time       // when index was last confirmed
	scan      walScan
	lag       lag
	locks     lockWatch
	foreign   *dbfile.ForeignError // who works with another WAL; nil: nobody is known to
	engine    uint32               // LibraryVersion that sample.Database.EngineVersion stands for
	factsRead time.Time
	disk      diskWatch
}

type inodes struct{ dev, database, shm uint64 }

// sides is the inodes of the side files; 0: there is none.
type sides struct{ wal, shm uint64 }

// How often what changes slowly is looked at again.
const factsEvery = time.Second // which files there are, their sizes, the header, who is attached

// indexGrace is how long the last good wal-index stands in for one that cannot
// be read: recovery by a connection that is just opening the database takes a
// moment, and so may a writer that was stopped between the header's two copies.
const indexGrace = 5 * time.Second

// NewSampler returns a Sampler of the database at path, which is called name in
// metrics. It touches no file before the first Sample.
func NewSampler(name, path string, opts SamplerOptions) *Sampler {
	if opts.Now == nil {
		opts.Now = time.Now
	}
	return &Sampler{path: path, opts: opts, sample: Sample{DB: name, Path: path}, locks: lockWatch{self: os.Getpid()}}
}

// Files returns the database's open files, nil while there are none. They stay
// the Sampler's: whoever shares them stops when BeforeClose is called.
func (r *Sampler) Files() *dbfile.Files { return r.files }

// Close closes the database's files. The owner has closed its SQL connections before.
func (r *Sampler) Close() error {
	if r.files == nil {
		return nil
	}
	err := r.files.Close()
	r.files = nil
	return err
}

// Sample measures the database now. It never fails: Sample's State and Err say what went wrong.
// Once ctx is done it returns the last Sample again.
func (r *Sampler) Sample(ctx context.Context) Sample {
	if ctx.Err() != nil {
		return r.sample
	}
	now := r.opts.Now()
	s := &r.sample
	s.At = now
	if err := r.look(now); err != nil {
		s.State, s.Err = diagnose(r.path, err)
		s.WAL.Known = false
		s.Readers, s.Locks = Readers{}, Locks{WriteRatio: s.Locks.WriteRatio, CheckpointRatio: s.Locks.CheckpointRatio,
			Busy: s.Locks.Busy}
		if s.State == StateMissing || s.State == StateNotDatabase {
			s.Database = Database{}
		}
	} else if r.foreign != nil {
		s.State, s.Err = diagnose(r.path, r.foreign)
		s.WAL.Known = s.WAL.Known && s.WAL.Exclusive // its frames, at least, are in the WAL
		s.Readers, s.Locks.WriteHeld, s.Locks.CheckpointHeld = Readers{}, false, false
	} else {
		s.State, s.Err = StateUp, ""
	}
	if r.opts.Refused != nil {
		s.Locks.Busy = r.opts.Refused()
	}
	return *s
}

// Poll only looks at the wal-index and the locks. Between two Samples it keeps totals and shares
// of time accurate; it does nothing while the database is not up.
func (r *Sampler) Poll() {
	if r.files == nil || r.sample.State != StateUp || r.sample.WAL.Exclusive {
		return
	}
	now := r.opts.Now()
	x, err := r.files.WALIndex()
	if err != nil {
		return // the next Sample finds out what is wrong
	}
	r.observe(now, x)
	if l, err := r.lockState(false); err == nil {
		r.observeLocks(now, &l)
	}
}

// look measures everything, in the order in which it can go wrong. It examines what
// changes slowly only when that is due, or when the wal-index shows activity; a sample
// soon after another costs two system calls.
func (r *Sampler) look(now time.Time) (err error) {
	defer func() {
		if err != nil {
			r.factsRead = time.Time{} // read all of it again at the next sample
		}
	}()
	if err := r.onDisk(now); err != nil {
		return err
	}
	due := r.files == nil || r.scanning || now.Sub(r.factsRead) >= factsEvery
	l, x, exclusive, err := r.measure(now, due)
	if err == nil && !due && x != r.index {
		l, x, exclusive, err = r.measure(now, true)
	}
	if err != nil {
		return err
	}
	w := &r.sample.WAL
	w.Known, w.Exclusive = true, exclusive
	r.observe(now, x)
	if exclusive {
		w.CheckpointedFrames, w.LagSince = w.Frames, time.Time{}
		r.lag.clear()
	}
	r.observeLocks(now, &l)
	r.sample.Readers = r.locks.readers(now, &l, &x)
	return nil
}

// measure reads the locks and the wal-index, and before them the facts.
func (r *Sampler) measure(now time.Time, facts bool) (l dbfile.Locks, x dbfile.WALIndex, exclusive bool, err error) {
	if facts {
		if err := r.facts(now); err != nil {
			return l, x, false, err
		}
		if err := r.company(); err != nil {
			return l, x, false, err
		}
	}
	if l, err = r.lockState(facts); err != nil {
		return l, x, false, err
	}
	x, exclusive, err = r.currentIndex(now, &l)
	return l, x, exclusive, err
}

// company checks whether other processes use the WAL that is measured here.
func (r *Sampler) company() error {
	_, err := r.files.Others()
	switch foreign := (*dbfile.ForeignError)(nil); {
	case err == nil:
		r.foreign = nil
	case errors.As(err, &foreign):
		r.foreign = foreign
	case !errors.Is(err, dbfile.ErrUnclear): // otherwise keep the last result until it is clear
		return err
	}
	return nil
}

// lockState reads the locks. Which processes are attached is remembered from the last time that
// all locks were read.
func (r *Sampler) lockState(all bool) (dbfile.Locks, error) {
	if all {
		l, err := r.files.Locks()
		r.locks.attached = l
		return l, err
	}
	l, err := r.files.WALLocks()
	l.Shared, l.DMS = r.locks.attached.Shared, r.locks.attached.DMS
	return l, err
}

// open opens the files if none are open, and otherwise follows changes to them.
func (r *Sampler) open() (dbfile.Stat, error) {
	if r.files != nil {
		c, st, err := r.files.Look()
		if err != nil {
			return st, err
		}
		if !c.Database {
			// Compare the inodes, not c: others that share the files look too, and each change is reported once.
			now := sides{st.WALInode, st.ShmInode}
			r.paired = r.paired && now == r.sides
			r.rebuilt = r.rebuilt || now.shm != r.sides.shm
			r.sides = now
			return st, nil
		}
		if r.opts.BeforeClose != nil {
			r.opts.BeforeClose()
		}
		if err := r.Close(); err != nil {
			return st, fmt.Errorf("close the files of %s, which were replaced: %w", r.path, err)
		}
		r.disk.read = time.Time{}
	}
	r.forget()
	f, err := dbfile.Open(r.path)
	if err != nil {
		return dbfile.Stat{}, err
	}
	r.files = f
	r.sample.Path = f.Path()
	st, err := f.Stat()
	if r.sample.State != StateUnknown {
		r.watching, r.rebuilt = true, true // the wal-index was created while we watched: what it counts is new
	}
	r.sides = sides{st.WALInode, st.ShmInode}
	return st, err
}

// forget drops what was known of the previous file at the path. Totals and times of what was seen remain.
func (r *Sampler) forget() {
	r.watching, r.rebuilt, r.paired, r.scanning = false, false, false, false
	r.index, r.indexSeen = dbfile.WALIndex{}, time.Time{}
	r.scan = walScan{}
	r.lag.clear()
	r.locks.pinned, r.foreign = false, nil
	r.sample.Database, r.engine = Database{}, 0
	r.sample.WAL.Restarted = time.Time{}
	r.factsRead = time.Time{}
}

// facts reads which files exist and what they contain, whatever the state, and decides whether
// this is a database that may be watched.
func (r *Sampler) facts(now time.Time) error {
	st, err := r.open()
	if err != nil {
		return err
	}
	if id := (inodes{st.Dev, st.DatabaseInode, st.ShmInode}); id != r.inodes {
		r.inodes = id
		if r.opts.OnFiles != nil {
			r.opts.OnFiles(st)
		}
	}
	d := &r.sample.Database
	d.SizeBytes, r.sample.WAL.SizeBytes = st.DatabaseSize, st.WALSize
	h, err := r.files.Header()
	if errors.Is(err, dbfile.ErrEmpty) {
		// We see everything that is written from now on.
		r.index, r.watching, r.rebuilt = dbfile.WALIndex{}, true, true
		*d = Database{}
	}
	if err != nil {
		return err
	}
	if d.Encrypted = h.Encrypted; h.Encrypted {
		h.FreelistPages, h.Pages, h.LibraryVersion = 0, 0, 0 // they are not known
	}
	d.PageSize, d.FreelistPages = h.PageSize, h.FreelistPages
	d.Pages = uint32(st.DatabaseSize / int64(h.PageSize))
	if h.PagesValid() {
		d.Pages = h.Pages
	}
	d.JournalMode = "rollback"
	if h.WAL() {
		d.JournalMode = "wal"
	}
	if r.engine != h.LibraryVersion || d.EngineVersion == "" {
		r.engine = h.LibraryVersion
		d.EngineVersion = dbfile.EngineVersion(h.LibraryVersion)
		d.WALResetBug = dbfile.HasWALResetBug(h.LibraryVersion)
	}
	d.PageChecksums = r.files.PageChecksums(h)
	if os.Geteuid() != 0 { // as root we give away the files that we create, or do not open the database
		if err := owner.Check(r.files.Path()); err != nil {
			return err
		}
	}
	if !h.WAL() {
		return errNotWAL
	}
	r.factsRead = now
	return nil
}

// onDisk examines the file system, and rejects one whose locks cannot be trusted.
func (r *Sampler) onDisk(now time.Time) error {
	d := &r.sample.Disk
	r.disk.look(r.path, now, d)
	if d.Network && !r.opts.AllowNetworkFS {
		return networkFSError{fstype: d.FSType}
	}
	return nil
}

func (r *Sampler) observeLocks(now time.Time, l *dbfile.Locks) {
	locks, processes := r.locks.observe(now, l, r.index.Change)
	locks.Busy = r.sample.Locks.Busy
	r.sample.Locks, r.sample.Database.Processes = locks, processes
}
