package doctor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sqlwatch/sqlwatch/internal/dbfile"
	"github.com/sqlwatch/sqlwatch/internal/filesystem"
	"github.com/sqlwatch/sqlwatch/internal/owner"
	"github.com/sqlwatch/sqlwatch/internal/sqlite"
)

// observation is the time between the two looks at the locks. A reader or writer that is
// there at both is not just a short transaction.
const observation = 300 * time.Millisecond

// Gather looks at the database at path, which takes as long as observation. The caller fills
// in Replicas and Expected.
func Gather(ctx context.Context, name, path string) Facts {
	return gather(ctx, name, path, func() {})
}

// gather is Gather, but calls next before each look.
func gather(ctx context.Context, name, path string, next func()) Facts {
	can, err := owner.CanChown()
	f := Facts{Name: name, Path: path, Real: path, UID: os.Geteuid(), CanChown: can && err == nil}
	if real, err := filepath.EvalSymlinks(path); err == nil {
		f.Real = real
	}
	next()
	f.place()
	if f.Place.Network { // opening a file there may block forever
		f.State = StateUnexamined
		return f
	}
	next()
	files, err := dbfile.Open(path)
	if err != nil {
		f.State, f.StateErr = StateNotDatabase, err.Error()
		switch {
		case errors.Is(err, fs.ErrNotExist):
			f.State = StateMissing
		case errors.Is(err, fs.ErrPermission):
			f.State = StateUnreadable
		}
		return f
	}
	defer files.Close()
	next()
	f.header(files)
	if f.State != StateDatabase {
		return f
	}
	for _, look := range []func(){f.names, f.sides, func() { f.processes(files, next) }, func() { f.wal(ctx, files) },
		func() { f.tables(ctx) }, f.litestream} {
		next()
		look()
	}
	return f
}

func (f *Facts) place() {
	if m, err := filesystem.Of(f.Real); err == nil {
		f.Place = placeOf(m)
	}
}

func placeOf(m filesystem.Mount) Place {
	return Place{Type: m.Type, Point: m.Point, Size: m.Size, Available: m.Available, Network: m.Network,
		Volatile: m.Volatile, ReadOnly: m.ReadOnly, ReadOnlyHere: m.ReadOnlyHere}
}

func (f *Facts) header(files *dbfile.Files) {
	h, err := files.Header()
	if errors.Is(err, dbfile.ErrEmpty) {
		f.State = StateEmpty
		return
	}
	st, statErr := files.Stat()
	if err = errors.Join(err, statErr); err != nil {
		f.State, f.StateErr = StateNotDatabase, err.Error()
		return
	}
	f.File = File{
		Size: st.DatabaseSize, WALSize: st.WALSize, PageSize: h.PageSize, WALMode: h.WAL(),
		Engine: dbfile.EngineVersion(h.LibraryVersion), WALResetBug: dbfile.HasWALResetBug(h.LibraryVersion),
		PageChecksums: files.PageChecksums(h), Encrypted: h.Encrypted,
		UID: int(st.UID), GID: int(st.GID), Mode: st.Mode, Links: st.Links, Dir: filepath.Dir(f.Real),
	}
}

// names examines the path and the directory.
func (f *Facts) names() {
	if info, err := os.Lstat(f.Path); err == nil && info.Mode()&fs.ModeSymlink != 0 {
		f.File.Symlink = f.Real
	}
	if dir, err := filepath.EvalSymlinks(filepath.Dir(f.Path)); err == nil {
		f.File.SymlinkDirectory = dir != filepath.Clean(filepath.Dir(f.Path))
	}
	if info, err := os.Stat(f.File.Dir); err == nil {
		f.File.DirMode = info.Mode()
		if st, ok := info.Sys().(*syscall.Stat_t); ok {
			f.File.DirUID, f.File.DirGID = int(st.Uid), int(st.Gid)
		}
	}
}

// sides examines the files beside the database by name only.
func (f *Facts) sides() {
	for _, suffix := range []string{"-wal", "-shm", "-journal"} {
		info, err := os.Lstat(f.Real + suffix)
		if err != nil {
			continue
		}
		if st, ok := info.Sys().(*syscall.Stat_t); ok {
			f.File.SideFiles = append(f.File.SideFiles, SideFile{Path: f.Real + suffix, UID: int(st.Uid), Mode: info.Mode()})
		}
	}
	base := filepath.Base(f.Real)
	for _, name := range []string{"." + base + "-litestream", base + "-litestream"} {
		dir := filepath.Join(f.File.Dir, name)
		if info, err := os.Stat(dir); err == nil && info.IsDir() {
			f.Litestream.Dirs = append(f.Litestream.Dirs, dir)
		}
	}
}

// processes finds the processes that hold a lock: in WAL mode, every connected process does.
func (f *Facts) processes(files *dbfile.Files, next func()) {
	holders, err := dbfile.LockHolders(files)
	if err != nil {
		return
	}
	for _, h := range holders {
		if h.PID == 0 {
			f.Hidden = true
		}
		if h.PID <= 0 || h.PID == os.Getpid() || slices.ContainsFunc(f.Processes,
			func(p Process) bool { return p.PID == h.PID }) {
			continue
		}
		next()
		p, whole := describeSoon(h.PID, h.Command, h.Age)
		if f.Processes = append(f.Processes, p); !whole {
			f.Unexamined = append(f.Unexamined, p)
		}
	}
}

// wal looks at the wal-index and the locks twice.
func (f *Facts) wal(ctx context.Context, files *dbfile.Files) {
	first, firstErr := files.WALIndex()
	before, err := files.Locks()
	if err != nil {
		return
	}
	w := &f.WAL
	w.Attached = before.DMS.Held
	w.Exclusive = f.File.WALMode && before.Shared.Held && before.Shared.Exclusive && !before.DMS.Held
	w.LargestEver = max(0, f.File.WALSize-dbfile.WALHeaderSize) / int64(dbfile.FrameHeaderSize+f.File.PageSize)
	if firstErr != nil {
		if w.Attached && (errors.Is(firstErr, dbfile.ErrTorn) || errors.Is(firstErr, dbfile.ErrFormat)) {
			w.IndexErr = firstErr.Error()
		}
		return
	}
	w.Known, w.Frames, w.Backfilled = true, first.MaxFrame, first.Backfilled
	if !w.Attached {
		return
	}
	start := time.Now()
	select {
	case <-ctx.Done():
		return
	case <-time.After(observation):
	}
	after, err := files.Locks()
	if err != nil {
		return
	}
	second, err := files.WALIndex()
	if err != nil {
		return
	}
	w.ObservedOver, w.Frames, w.Backfilled = time.Since(start), second.MaxFrame, second.Backfilled
	if same(before.Write, after.Write) && first.Change == second.Change {
		w.WriterStuck, w.Writer = true, f.process(after.Write.PID)
	}
	for i := range after.Read {
		mark := second.ReadMarks[i]
		if i == 0 { // READ0, a reader of the file itself: no frame after the backfilled ones can be copied
			mark = second.Backfilled
		}
		if !same(before.Read[i], after.Read[i]) || i > 0 && mark != first.ReadMarks[i] || mark >= second.MaxFrame {
			continue
		}
		if by := f.process(after.Read[i].PID); !w.Pinned || pinsRather(by, mark, w.PinnedBy, w.PinnedFrame) {
			w.Pinned, w.PinnedFrame, w.PinnedBy, w.PinnedOnFile = true, mark, by, i == 0
		}
	}
}

// pinsRather reports whether to name process a, at its mark, rather than b: the one with the
// lower mark, but any other process before sqlwatch, whose capture keeps a low mark on
// purpose and moves it when the others allow.
func pinsRather(a Process, markA uint32, b Process, markB uint32) bool {
	if a.isSqlwatch() != b.isSqlwatch() {
		return b.isSqlwatch()
	}
	return markA < markB
}

// same reports whether the same process held a lock at both looks.
func same(a, b dbfile.Holder) bool { return a.Held && b.Held && a.PID == b.PID }

func (f *Facts) process(pid int) Process {
	for _, p := range f.Processes {
		if p.PID == pid {
			return p
		}
	}
	return Process{PID: pid, UID: -1}
}

func (f *Facts) tables(ctx context.Context) {
	l := &f.Litestream
	tables, err := sqlite.TableNames(ctx, f.Real, "_litestream_", f.File.WALMode && f.WAL.Attached && !f.WAL.Exclusive)
	if err != nil {
		l.TablesErr = err.Error()
	}
	l.Tables = tables
}

func (f *Facts) litestream() {
	l := &f.Litestream
	for _, p := range f.Processes {
		if p.isLitestream() {
			l.Process = &p
			return
		}
	}
	// It holds no lock at the moment, or we may not look into it.
	for pid, command := range others(f.Processes) {
		p := Process{Command: command}
		switch open, known := hasOpen(pid, f.Real); {
		case open:
			if p, _ = describeSoon(pid, command, 0); p.isLitestream() {
				l.Process = &p
				return
			}
		case !known && p.isLitestream():
			l.Elsewhere = true
		}
	}
}

// SilentHost is GatherHost for a state directory whose disk does not answer.
func SilentHost(stateDir string, tips []string) Host {
	return Host{StateDir: stateDir, UID: os.Geteuid(), ConfigurationTip: tips, StateDirErr: errSilent.Error()}
}

// GatherHost examines the state directory. If it does not exist, the nearest existing parent
// tells whether it could be created.
func GatherHost(stateDir string, tips []string) Host {
	h := Host{StateDir: stateDir, UID: os.Geteuid(), ConfigurationTip: tips}
	info, err := os.Stat(stateDir)
	switch {
	case err == nil && !info.IsDir():
		h.StateDirErr = "it is not a directory"
		return h
	case err == nil:
		h.StateDirExists, h.StateDirMode = true, info.Mode()
	case !errors.Is(err, fs.ErrNotExist):
		h.StateDirErr = err.Error()
		return h
	}
	at := existingParent(stateDir)
	if err := unix.Faccessat(unix.AT_FDCWD, at, unix.W_OK|unix.X_OK, unix.AT_EACCESS); err != nil {
		h.StateDirErr = at + " cannot be written: " + err.Error()
	}
	if m, err := filesystem.Of(at); err == nil {
		h.StateDirPlace = placeOf(m)
	}
	return h
}

// existingParent returns dir, or the nearest directory above it that exists.
func existingParent(dir string) string {
	for dir = filepath.Clean(dir); ; dir = filepath.Dir(dir) {
		if _, err := os.Stat(dir); err == nil || dir == "/" || dir == "." {
			return dir
		}
	}
}

// FileReplica examines a replica's directory without touching it: whether a round trip is
// allowed there, and whether it is on the database's disk. A probe under another uid would
// leave directories that the daemon cannot use.
func FileReplica(dir, database string) Replica {
	r := Replica{Kind: "file", Dir: ReplicaDir{SameDisk: sameDevice(existingParent(dir), database)}}
	info, err := os.Stat(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		r.Dir.Missing = true
		if unix.Faccessat(unix.AT_FDCWD, existingParent(dir), unix.W_OK|unix.X_OK, unix.AT_EACCESS) != nil {
			r.Dir.Forbidden = true
		} else {
			r.Skipped = "the directory does not exist yet"
		}
		return r
	case err != nil:
		r.ListErr = err
		return r
	}
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		r.Dir.UID = int(st.Uid)
		if os.Geteuid() == 0 && r.Dir.UID != 0 {
			r.Skipped = fmt.Sprintf("it belongs to uid %d, and what root writes there that user could not change", r.Dir.UID)
		}
	}
	return r
}

func sameDevice(a, b string) bool {
	var sa, sb unix.Stat_t
	return unix.Stat(a, &sa) == nil && unix.Stat(b, &sb) == nil && sa.Dev == sb.Dev
}
