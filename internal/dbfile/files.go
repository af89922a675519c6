package dbfile

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sqlwatch/sqlwatch/internal/cksum"
)

// registry holds every database this process has open. It is a variable of the
// package because POSIX locks belong to the process: two Files of one inode
// anywhere in it, and the first Close drops the locks of both.
var registry = struct {
	sync.Mutex
	open map[inode]string // resolved path
}{open: make(map[inode]string)}

// Files is one database's main file, WAL and wal-index, opened once each. It
// must be opened before this process's first SQL connection to the database
// and closed after the last one. Methods may be called concurrently.
type Files struct {
	name string // as it was opened, absolute: a link in it may be retargeted
	path string // links resolved; the side files lie beside it

	walPath, shmPath string
	pid              int // our own: asking for it is a system call

	mu       sync.RWMutex // guards the pointers, not the reading
	database *descriptor
	wal      *descriptor   // nil while there is none
	shm      *descriptor   // nil while there is none
	retired  []*descriptor // wal-indexes that are no longer at their path; see sweepRetired
	pinned   bool          // see Pin
	left     bool          // the pinned files are no longer at their paths
	indexed  atomic.Int64  // bytes of the wal-index when this process stood back: see StandBack

	company company
}

// Open opens the database at path, whose main file must exist; -wal and -shm
// need not, and are never created. A database of no bytes is accepted. Errors:
// fs.ErrNotExist, ErrNotRegular (without having opened or waited for it),
// ErrNotDatabase, ErrAlreadyOpen (before opening anything, because the close
// would drop locks; so is ErrNotDatabase of another's -wal or -shm), ErrDescriptors.
func Open(path string) (*Files, error) {
	name, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	resolved, err := filepath.EvalSymlinks(name)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	if err := notSideFile(resolved); err != nil {
		return nil, err
	}
	p, err := pinFile(resolved)
	if err != nil {
		return nil, err
	}
	defer p.close()
	if err := register(p.id, resolved); err != nil {
		return nil, err
	}
	f := &Files{name: name, path: resolved, walPath: resolved + "-wal", shmPath: resolved + "-shm", pid: os.Getpid()}
	f.company.path, f.company.walPath, f.company.pid = f.path, f.walPath, f.pid
	if f.database, err = p.open(); err != nil {
		unregister(p.id)
		return nil, err
	}
	if _, err = f.Header(); err == nil || errors.Is(err, ErrEmpty) {
		_, err = f.Refresh()
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// notSideFile refuses the -wal or -shm of a file that is there: the locks of our SQL connections to that
// database are on its -shm, and would end with the first close of it.
func notSideFile(path string) error {
	for _, suffix := range []string{"-wal", "-shm"} {
		main, is := strings.CutSuffix(path, suffix)
		if !is {
			continue
		}
		if st, ok, err := statPath(main); err != nil || ok && st.Mode&unix.S_IFMT == unix.S_IFREG {
			return errors.Join(err, fmt.Errorf("open %s: it is the %s of %s: %w", path, suffix, main, ErrNotDatabase))
		}
	}
	return nil
}

func register(id inode, path string) error {
	registry.Lock()
	defer registry.Unlock()
	if other, ok := registry.open[id]; ok {
		return fmt.Errorf("open %s: %w as %s: watch it under one path only", path, ErrAlreadyOpen, other)
	}
	if !spare(len(registry.open)) {
		return fmt.Errorf("open %s: %w", path, ErrDescriptors)
	}
	registry.open[id] = path
	return nil
}

func unregister(id inode) {
	registry.Lock()
	defer registry.Unlock()
	delete(registry.open, id)
}

// Close closes every descriptor. Call it only after this process's last SQL
// connection to the database was closed: it drops the process's locks.
func (f *Files) Close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.database == nil {
		return nil
	}
	var errs []error
	for _, d := range append(f.retired, f.wal, f.shm, f.database) {
		if d != nil {
			errs = append(errs, d.Close())
		}
	}
	id := f.database.id
	f.database, f.wal, f.shm, f.retired = nil, nil, nil, nil
	unregister(id)
	return errors.Join(errs...)
}

// Path returns the main file's absolute path, symbolic links resolved when it
// was opened.
func (f *Files) Path() string { return f.path }

// Change says which of the three files is another than before. A file that
// appeared or vanished has changed too.
type Change struct {
	Database bool // not the file that is held: close the SQL connections, then Close, and Open again
	WAL      bool // since the last Refresh
	Shm      bool // since the last Refresh
}

// Refresh compares the held files with those at their paths now, and takes up
// a -wal or -shm that appeared or was replaced. It stays with the old main
// file: only the owner knows when its SQL connections are closed. It costs
// three stats where nothing changed.
func (f *Files) Refresh() (Change, error) {
	c, _, err := f.takeUp()
	return c, err
}

// Look is Refresh and Stat for the price of Refresh: for a path that leads to the held file, stat(2) returns what
// fstat(2) would. The Stat is zero where another main file is at the path.
func (f *Files) Look() (Change, Stat, error) {
	c, st, err := f.takeUp()
	if err != nil || c.Database {
		return c, Stat{}, err
	}
	if c.WAL || c.Shm { // the files taken up may be newer than the stat
		s, err := f.Stat()
		return c, s, err
	}
	return c, st.facts(), nil
}

// takeUp is Refresh, and also returns what stat says of the paths, zero where there is no file.
func (f *Files) takeUp() (c Change, st stats, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.database == nil {
		return c, st, fmt.Errorf("refresh %s: %w", f.path, fs.ErrClosed)
	}
	f.sweepRetired()
	var ok bool
	if st.database, ok, err = statPath(f.name); err != nil {
		return c, st, err
	}
	if !ok || inodeOf(&st.database) != f.database.id {
		// The side files now at the paths may belong to the new database.
		c.Database = true
		return c, st, nil
	}
	if f.pinned {
		return f.compare(st)
	}
	old := f.wal
	if f.wal, c.WAL, st.wal, err = replace(old, f.walPath); err != nil {
		return c, st, err
	}
	if c.WAL && old != nil {
		old.Close() // no SQLite lock lives on a WAL file
	}
	old = f.shm
	if f.shm, c.Shm, st.shm, err = replace(old, f.shmPath); err != nil {
		return c, st, err
	}
	if c.Shm && old != nil {
		f.retired = append(f.retired, old)
	}
	return c, st, nil
}

// Pin keeps the held -wal and -shm until Unpin, even when other files, or none, are at their paths. SQLite's last
// close unlinks both, and a caller that has not read all of them then still can. In the meantime Refresh and Look
// report the change at each call.
func (f *Files) Pin() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.pinned = true
}

// Unpin lets the next Refresh take up what is at the paths.
func (f *Files) Unpin() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.pinned, f.left = false, false
}

// compare is takeUp while the side files are pinned: it takes up nothing.
func (f *Files) compare(st stats) (c Change, _ stats, err error) {
	for _, side := range []struct {
		path string
		held *descriptor
		st   *unix.Stat_t
		is   *bool
	}{{f.walPath, f.wal, &st.wal, &c.WAL}, {f.shmPath, f.shm, &st.shm, &c.Shm}} {
		var ok bool
		if *side.st, ok, err = statPath(side.path); err != nil {
			return c, st, err
		}
		*side.is = ok != (side.held != nil) || ok && inodeOf(side.st) != side.held.id
	}
	f.left = c.WAL || c.Shm
	return c, st, nil
}

// replace returns the descriptor of the file now at path: held itself where it
// is the same inode, nil where there is no file. It closes nothing.
func replace(held *descriptor, path string) (_ *descriptor, changed bool, st unix.Stat_t, err error) {
	st, ok, err := statPath(path)
	if err != nil {
		return held, false, st, err
	}
	if !ok {
		return nil, held != nil, st, nil
	}
	if held != nil && held.id == inodeOf(&st) {
		return held, false, st, nil
	}
	p, err := pinFile(path)
	if errors.Is(err, fs.ErrNotExist) { // unlinked since the stat
		return nil, held != nil, unix.Stat_t{}, nil
	}
	if err != nil {
		return held, false, st, err
	}
	defer p.close()
	if held != nil && held.id == p.id { // moved back since the stat
		st, err = held.fstat()
		return held, false, st, err
	}
	d, err := p.open()
	if err != nil {
		return held, false, st, err
	}
	return d, true, st, nil
}

// sweepRetired closes wal-indexes that left their path, where that can drop no lock. A SQL connection of this
// process may still use one (someone removed the file under it): it shares the DMS byte, or the next byte where it
// stands back, for as long as it lives, and no new connection can open a file without a path. So where both bytes
// are free, no connection is left there. Nor can the last SQLite to close remove the file under a connection that
// is just opening it: the remover needs the main file exclusively, and the opener already shares it.
func (f *Files) sweepRetired() {
	kept := f.retired[:0]
	for _, d := range f.retired {
		var used [2]Holder // DMS, and the byte of a connection that stands back
		if err := d.queryLocks(f.pid, shmDMS, used[:]); err != nil || used[0].Held || used[1].Held {
			kept = append(kept, d)
			continue
		}
		d.Close()
	}
	clear(f.retired[len(kept):])
	f.retired = kept
}

// held returns one of the descriptors. Reading goes on outside the mutex:
// os.File keeps a descriptor open while a call uses it.
func (f *Files) held(which **descriptor, missing error) (*descriptor, error) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	switch {
	case f.database == nil:
		return nil, fmt.Errorf("%s: %w", f.path, fs.ErrClosed)
	case *which == nil:
		return nil, fmt.Errorf("%s: %w", f.path, missing)
	}
	return *which, nil
}

// Database returns a reader of the main file, nil after Close.
func (f *Files) Database() io.ReaderAt { return f.reader(&f.database) }

// WAL returns a reader of the -wal file as of the last Refresh, nil where
// there is none. It fails with fs.ErrClosed once a Refresh has replaced it.
func (f *Files) WAL() io.ReaderAt { return f.reader(&f.wal) }

func (f *Files) reader(which **descriptor) io.ReaderAt {
	d, err := f.held(which, ErrNoWAL)
	if err != nil {
		return nil
	}
	return d.File
}

// Header reads the main file's header. Errors: ErrEmpty for a file of no
// bytes, ErrNotDatabase.
func (f *Files) Header() (DatabaseHeader, error) {
	d, err := f.held(&f.database, ErrEmpty)
	if err != nil {
		return DatabaseHeader{}, err
	}
	var b [DatabaseHeaderSize]byte
	n, err := d.ReadAt(b[:], 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return DatabaseHeader{}, err
	}
	if n == 0 {
		return DatabaseHeader{}, fmt.Errorf("%s: %w", f.path, ErrEmpty)
	}
	h, err := ParseDatabaseHeader(b[:n])
	if err != nil {
		return h, fmt.Errorf("%s: %w", f.path, err)
	}
	return h, nil
}

// PageChecksums reports whether the database's pages carry checksums that its
// application's SQLite wants to find there: see package cksum. h is its header.
func (f *Files) PageChecksums(h DatabaseHeader) bool {
	main := f.Database()
	return main != nil && cksum.Has(main, h.PageSize, h.ReservedBytes)
}

// WALHeader reads the -wal file's header. Errors: ErrNoWAL where there is no
// file or it is shorter than a header, ErrFormat, ErrChecksum.
func (f *Files) WALHeader() (WALHeader, error) {
	d, err := f.held(&f.wal, ErrNoWAL)
	if err != nil {
		return WALHeader{}, err
	}
	var b [WALHeaderSize]byte
	n, err := d.ReadAt(b[:], 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return WALHeader{}, err
	}
	h, err := ParseWALHeader(b[:n])
	if err != nil {
		return h, fmt.Errorf("%s-wal: %w", f.path, err)
	}
	return h, nil
}

// walIndexTries bounds the reading of a wal-index that is being written. At
// 77,000 commits a second 0.3 % of reads were torn; one that stays so has a
// writer that was stopped or killed between the two copies.
const walIndexTries = 40

// WALIndex reads the wal-index header until its copies agree, for at most a
// few milliseconds. Errors: ErrNoWALIndex, ErrUninitialised, ErrTorn,
// ErrFormat.
func (f *Files) WALIndex() (WALIndex, error) {
	d, err := f.held(&f.shm, ErrNoWALIndex)
	if err != nil {
		return WALIndex{}, err
	}
	var b [WALIndexSize]byte
	var x WALIndex
	for try := range walIndexTries {
		n, rerr := d.ReadAt(b[:], 0)
		if rerr != nil && !errors.Is(rerr, io.EOF) {
			return WALIndex{}, rerr
		}
		if x, err = ParseWALIndex(b[:n]); err == nil {
			return x, nil
		}
		if !errors.Is(err, ErrTorn) {
			break
		}
		if try < walIndexTries/2 {
			runtime.Gosched()
		} else { // the writer was preempted: give it our CPU
			time.Sleep(100 * time.Microsecond)
		}
	}
	return x, fmt.Errorf("%s-shm: %w", f.path, err)
}

// Stat is what fstat says of the held files. Values of a side file that does
// not exist are zero.
type Stat struct {
	Dev                     uint64
	DatabaseInode, WALInode uint64
	ShmInode                uint64
	DatabaseSize, WALSize   int64 // in bytes; a WAL's size is its high-water mark
	ModTime, WALModTime     time.Time
	ChangeTime              time.Time   // of the main file: it rises also where ModTime is set back
	UID, GID                uint32      // of the main file
	Mode                    fs.FileMode // the permissions
	Links                   uint64      // hard links; SQLite is only safe with 1
}

// stats is what stat(2) said of the three files.
type stats struct{ database, wal, shm unix.Stat_t }

func (st *stats) facts() Stat {
	modified := func(st *unix.Stat_t) time.Time {
		if st.Ino == 0 {
			return time.Time{}
		}
		return time.Unix(st.Mtim.Unix())
	}
	return Stat{
		Dev: uint64(st.database.Dev), DatabaseInode: st.database.Ino, WALInode: st.wal.Ino, ShmInode: st.shm.Ino,
		DatabaseSize: st.database.Size, WALSize: st.wal.Size,
		ModTime: modified(&st.database), WALModTime: modified(&st.wal),
		ChangeTime: time.Unix(st.database.Ctim.Unix()),
		UID:        st.database.Uid, GID: st.database.Gid,
		Mode: fs.FileMode(st.database.Mode & 0o777), Links: uint64(st.database.Nlink),
	}
}

// Stat asks the held descriptors, not the paths: sizes of files that were
// replaced are those of the old ones until Refresh.
func (f *Files) Stat() (s Stat, err error) {
	d, err := f.held(&f.database, ErrEmpty)
	if err != nil {
		return Stat{}, err
	}
	var st stats
	if st.database, err = d.fstat(); err != nil {
		return Stat{}, err
	}
	if d, err := f.held(&f.wal, ErrNoWAL); err == nil {
		if st.wal, err = d.fstat(); err != nil {
			return Stat{}, err
		}
	}
	if d, err := f.held(&f.shm, ErrNoWALIndex); err == nil {
		st.shm.Ino = d.id.Ino
	}
	return st.facts(), nil
}

// WALUnlinked returns when the -wal that is held was unlinked, the zero time where it
// was not.
func (f *Files) WALUnlinked() (time.Time, error) {
	d, err := f.held(&f.wal, ErrNoWAL)
	if err != nil {
		return time.Time{}, err
	}
	st, err := d.fstat()
	if err != nil || st.Nlink > 0 {
		return time.Time{}, err
	}
	return time.Unix(st.Ctim.Unix()), nil
}

// SyncDatabase makes the main file's content durable (fdatasync). A checkpoint
// that follows then has little left to sync while it holds locks.
func (f *Files) SyncDatabase() error { return f.with(&f.database, ErrEmpty, (*descriptor).sync) }

// SyncWAL does the same for the -wal file, which a checkpoint syncs first.
func (f *Files) SyncWAL() error { return f.with(&f.wal, ErrNoWAL, (*descriptor).sync) }

// ForgetWAL drops the WAL's clean pages from the page cache: the file is freed in half
// the time without them. It does nothing where there is no WAL.
func (f *Files) ForgetWAL() error {
	err := f.with(&f.wal, ErrNoWAL, (*descriptor).forget)
	if errors.Is(err, ErrNoWAL) {
		return nil
	}
	return err
}

// with calls do with one of the held descriptors.
func (f *Files) with(which **descriptor, missing error, do func(*descriptor) error) error {
	d, err := f.held(which, missing)
	if err != nil {
		return err
	}
	return do(d)
}
