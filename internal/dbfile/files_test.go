package dbfile

import (
	"errors"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// openDescriptors counts this process's descriptors of files under dir.
func openDescriptors(t *testing.T, dir string) int {
	t.Helper()
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, fd := range fds {
		if target, err := os.Readlink("/proc/self/fd/" + fd.Name()); err == nil && strings.HasPrefix(target, dir) {
			n++
		}
	}
	return n
}

// TestOpen/D19: a file that is not a database is refused at once, with a typed error, and nothing
// stays open or registered.
func TestOpen(t *testing.T) {
	dir := t.TempDir()
	file := func(name string, b string) string {
		path := filepath.Join(dir, name)
		writeFile(t, path, []byte(b))
		return path
	}
	fifo := filepath.Join(dir, "fifo")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(dir, "socket")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	link := func(name, target string) string {
		path := filepath.Join(dir, name)
		if err := os.Symlink(target, path); err != nil {
			t.Fatal(err)
		}
		return path
	}
	tests := []struct {
		name, path string
		want       error
	}{
		{"D19_fifo", fifo, ErrNotRegular},
		{"D19_link_to_fifo", link("fifolink", fifo), ErrNotRegular},
		{"D19_socket", socket, ErrNotRegular},
		{"D19_device", "/dev/null", ErrNotRegular},
		{"D19_terminal", "/dev/ptmx", ErrNotRegular},
		{"D19_directory", dir, ErrNotRegular},
		{"D19_text", file("text", strings.Repeat("hello, world\n", 100)), ErrNotDatabase},
		{"D19_short_text", file("short", "x"), ErrNotDatabase},
		{"D19_encrypted", file("cipher", strings.Repeat("\x91\x07\xc3\x5e", 1024)), ErrNotDatabase},
		{"D19_magic_only", file("magic", databaseMagic), ErrNotDatabase},
		{"missing", filepath.Join(dir, "none"), fs.ErrNotExist},
		{"D22_dangling_link", link("dangling", filepath.Join(dir, "none")), fs.ErrNotExist},
		{"D23_too_long", filepath.Join(dir, strings.Repeat("x", 300)), unix.ENAMETOOLONG},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			before := openDescriptors(t, dir)
			within(t, 30*time.Second, func() {
				f, err := Open(tt.path)
				if !errors.Is(err, tt.want) || f != nil {
					t.Errorf("got %v, want %v", err, tt.want)
				}
			})
			if after := openDescriptors(t, dir); after != before {
				t.Errorf("%d descriptors left open", after-before)
			}
			if _, err := Open(tt.path); errors.Is(err, ErrAlreadyOpen) {
				t.Error("left in the registry")
			}
		})
	}
	if _, err := Open(link("loop", filepath.Join(dir, "loop"))); err == nil {
		t.Error("a loop of links was opened")
	}
}

// TestOpenNames/D23: no character of a path has a special meaning.
func TestOpenNames(t *testing.T) {
	for _, name := range []string{"ünï→.db", "with space.db", "q?mode=ro.db", "frag#1.db", "100%25.db", "new\nline.db",
		"file:x.db", strings.Repeat("n", 240), "back\\slash"} {
		t.Run("D23_"+name[:min(len(name), 12)], func(t *testing.T) {
			path := filepath.Join(t.TempDir(), name)
			writeFile(t, path, sampleHeader())
			writeFile(t, path+"-wal", nil)
			f := mustOpen(t, path)
			if f.Path() != path {
				t.Errorf("got path %q, want %q", f.Path(), path)
			}
			if f.WAL() == nil {
				t.Error("the WAL beside it was not found")
			}
		})
	}
}

// TestOpenLinks/D22: one inode has one Files, whatever its names.
func TestOpenLinks(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	a, b, soft, hard := filepath.Join(dir, "a.db"), filepath.Join(dir, "b.db"), filepath.Join(dir,
		"soft"), filepath.Join(dir, "hard")
	writeFile(t, a, sampleHeader())
	writeFile(t, b, sampleHeader())
	if err := errors.Join(os.Symlink("a.db", soft), os.Link(a, hard)); err != nil {
		t.Fatal(err)
	}
	f := mustOpen(t, soft)
	if f.Path() != a {
		t.Errorf("got path %s, want %s", f.Path(), a)
	}
	before := openDescriptors(t, dir)
	for name, path := range map[string]string{"D22_same_path": soft, "D22_resolved": a, "D22_hard_link": hard} {
		t.Run(name, func(t *testing.T) {
			if _, err := Open(path); !errors.Is(err, ErrAlreadyOpen) {
				t.Errorf("got %v, want ErrAlreadyOpen", err)
			}
			if after := openDescriptors(t, dir); after != before {
				t.Errorf("got %d descriptors, want %d", after, before)
			}
		})
	}
	if s, err := f.Stat(); err != nil || s.Links != 2 {
		t.Errorf("got %d links, %v, want 2", s.Links, err)
	}
	t.Run("D22_retargeted", func(t *testing.T) {
		refresh(t, f, Change{})
		if err := errors.Join(os.Remove(soft), os.Symlink("b.db", soft)); err != nil {
			t.Fatal(err)
		}
		refresh(t, f, Change{Database: true})
		refresh(t, f, Change{Database: true}) // until the owner reopens
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
		if got := mustOpen(t, soft).Path(); got != b {
			t.Errorf("got path %s, want %s", got, b)
		}
	})
}

// TestReplacedDatabase/D3 and D4: another file at the path is noticed, and the old one stays
// readable until its owner closes it.
func TestReplacedDatabase(t *testing.T) {
	for name, change := range map[string]func(path string) error{
		"D3_recreated": func(path string) error {
			return errors.Join(os.Remove(path), os.WriteFile(path, sampleHeader(), 0o600))
		},
		"D4_renamed_over": func(path string) error {
			return errors.Join(os.WriteFile(path+".new", sampleHeader(), 0o600), os.Rename(path+".new", path))
		},
		"D3_removed": os.Remove,
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "app.db")
			writeFile(t, path, sampleHeader())
			f := mustOpen(t, path)
			refresh(t, f, Change{})
			if err := change(path); err != nil {
				t.Fatal(err)
			}
			refresh(t, f, Change{Database: true})
			if h, err := f.Header(); err != nil || h.PageSize != 4096 {
				t.Errorf("old file: got %+v, %v", h, err)
			}
		})
	}
}

// TestEmptyStates/D16: a file to which nothing has been written yet is a state, not a failure.
func TestEmptyStates(t *testing.T) {
	path := filepath.Join(t.TempDir(), "app.db")
	writeFile(t, path, nil)
	f := mustOpen(t, path)
	if _, err := f.Header(); !errors.Is(err, ErrEmpty) {
		t.Errorf("D16 empty database: got %v, want ErrEmpty", err)
	}
	if f.WAL() != nil {
		t.Errorf("D16 empty database: got WAL %v", f.WAL())
	}
	if _, err := f.WALHeader(); !errors.Is(err, ErrNoWAL) {
		t.Errorf("D16 no WAL: got %v, want ErrNoWAL", err)
	}
	if _, err := f.WALIndex(); !errors.Is(err, ErrNoWALIndex) {
		t.Errorf("D15 no wal-index: got %v, want ErrNoWALIndex", err)
	}
	if l, err := f.Locks(); err != nil || l != (Locks{}) {
		t.Errorf("D15 no wal-index: got %+v, %v, want no lock", l, err)
	}
	writeFile(t, path+"-wal", nil)
	writeFile(t, path+"-shm", nil)
	refresh(t, f, Change{WAL: true, Shm: true})
	if _, err := f.WALHeader(); !errors.Is(err, ErrNoWAL) {
		t.Errorf("D16 WAL of 0 bytes: got %v, want ErrNoWAL", err)
	}
	if _, err := f.WALIndex(); !errors.Is(err, ErrUninitialised) {
		t.Errorf("D16 wal-index of 0 bytes: got %v, want ErrUninitialised", err)
	}
	header, h := encodeWAL(t, false, 4096, nil)
	writeFile(t, path+"-wal", header)
	refresh(t, f, Change{}) // the same inode, only longer
	got, err := f.WALHeader()
	if err != nil || got != h {
		t.Errorf("D16 WAL header only: got %+v, %v", got, err)
	}
	if c, err := ScanCommitted(f.WAL(), h, h.Start()); err != nil || c.Commits != 0 || c.Position != h.Start() {
		t.Errorf("D16 WAL header only: got %+v, %v, want nothing committed", c, err)
	}
}

// TestSideFiles/D15: side files come and go; Files follows them and never creates them.
func TestSideFiles(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "app.db")
	a := startApp(t, path)
	a.do("c = wal(); fill(c, 3); c.close()") // a clean last close removes both
	f := mustOpen(t, path)
	for _, side := range []string{"-wal", "-shm"} {
		if _, err := os.Stat(path + side); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("D15: %s exists after Open: %v", side, err)
		}
	}
	a.do("c = connect(); fill(c, 1)")
	refresh(t, f, Change{WAL: true, Shm: true})
	x, err := f.WALIndex()
	if err != nil || x.MaxFrame == 0 {
		t.Fatalf("got %+v, %v, want a frame", x, err)
	}
	t.Run("D15_deleted_while_running", func(t *testing.T) {
		if err := os.Remove(path + "-shm"); err != nil {
			t.Fatal(err)
		}
		refresh(t, f, Change{Shm: true})
		if _, err := f.WALIndex(); !errors.Is(err, ErrNoWALIndex) {
			t.Errorf("got %v, want ErrNoWALIndex", err)
		}
		if _, err := os.Stat(path + "-shm"); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("the wal-index is there again: %v", err)
		}
		a.do("d = connect(); fill(d, 1)") // same process; its inode may be the old one or a new one
	})
	a.do("c.close(); d.close(); c = connect(); fill(c, 1)")
	if _, err := f.Refresh(); err != nil {
		t.Fatal(err)
	}
	if _, err := f.WALIndex(); err != nil {
		t.Errorf("after the application came back: %v", err)
	}
	s, err := f.Stat()
	if err != nil || s.WALSize == 0 || s.ShmInode == 0 || s.DatabaseSize == 0 || s.UID != uint32(os.Getuid()) ||
		s.ModTime.IsZero() {
		t.Errorf("got %+v, %v", s, err)
	}
}

// TestRetiredShm: wal-indexes that have left their path do not accumulate, but one that a
// connection still uses stays open.
func TestRetiredShm(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "app.db")
	writeFile(t, path, sampleHeader())
	f := mustOpen(t, path)
	for range 5 {
		writeFile(t, path+"-shm", nil)
		refresh(t, f, Change{Shm: true})
		if err := os.Remove(path + "-shm"); err != nil {
			t.Fatal(err)
		}
		refresh(t, f, Change{Shm: true})
	}
	refresh(t, f, Change{})
	if n := openDescriptors(t, dir); n != 1 {
		t.Errorf("got %d descriptors, want only the main file's", n)
	}

	writeFile(t, path+"-shm", nil)
	refresh(t, f, Change{Shm: true})
	held := holdLocks(t, path+"-shm", shmDMS) // as a connection of this process does
	if err := os.Remove(path + "-shm"); err != nil {
		t.Fatal(err)
	}
	refresh(t, f, Change{Shm: true})
	refresh(t, f, Change{})
	if n := openDescriptors(t, dir); n != 3 { // the main file, our wal-index, that of holdLocks
		t.Errorf("with a connection on it: got %d descriptors, want 3", n)
	}
	held.set(unix.F_UNLCK)
	refresh(t, f, Change{})
	if n := openDescriptors(t, dir); n != 2 {
		t.Errorf("after it was let go: got %d descriptors, want 2", n)
	}
}

func TestClose(t *testing.T) {
	path := filepath.Join(t.TempDir(), "app.db")
	writeFile(t, path, sampleHeader())
	f, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(f.SyncDatabase(), f.Close(), f.Close()); err != nil {
		t.Fatal(err)
	}
	if n := openDescriptors(t, filepath.Dir(path)); n != 0 {
		t.Errorf("got %d descriptors, want none", n)
	}
	_, headerErr := f.Header()
	_, walErr := f.WALHeader()
	_, indexErr := f.WALIndex()
	_, lockErr := f.Locks()
	_, holderErr := LockHolders(f)
	_, statErr := f.Stat()
	_, refreshErr := f.Refresh()
	for i, err := range []error{headerErr, walErr, indexErr, lockErr, holderErr, statErr, refreshErr, f.SyncDatabase()} {
		if !errors.Is(err, fs.ErrClosed) {
			t.Errorf("call %d after Close: got %v, want fs.ErrClosed", i, err)
		}
	}
	if f.Database() != nil || f.WAL() != nil {
		t.Error("readers after Close are not nil")
	}
	mustOpen(t, path) // its inode is free again
}

// TestConcurrentUse reads from several goroutines while the application commits and its side
// files come and go, for the race detector.
func TestConcurrentUse(t *testing.T) {
	path := filepath.Join(t.TempDir(), "app.db")
	a := startApp(t, path)
	a.do("c = wal(); fill(c, 3)")
	f := mustOpen(t, path)
	stop := make(chan struct{})
	done := make(chan error, 3)
	for _, read := range []func() error{
		func() error { _, err := f.WALIndex(); return err },
		func() error { _, err := f.Locks(); return err },
		func() error {
			if r := f.WAL(); r != nil {
				if _, err := r.ReadAt(make([]byte, 64), 0); err != nil && !errors.Is(err, fs.ErrClosed) && !errors.Is(err, io.EOF) {
					return err
				}
			}
			_, err := f.Stat()
			return err
		},
	} {
		go func() {
			for {
				select {
				case <-stop:
					done <- nil
					return
				default:
				}
				err := read()
				for _, fine := range []error{ErrNoWALIndex, ErrUninitialised, fs.ErrClosed, ErrTorn} {
					if errors.Is(err, fine) {
						err = nil
					}
				}
				if err != nil {
					done <- err
					return
				}
			}
		}()
	}
	for range 6 {
		a.do("fill(c, 20); c.close(); c = connect(); fill(c, 1)")
		if _, err := f.Refresh(); err != nil {
			t.Error(err)
		}
	}
	close(stop)
	for range 3 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

// TestLook: Look returns what Refresh and Stat return.
func TestLook(t *testing.T) {
	t.Parallel()
	a, path := newWAL(t, 4096)
	f := mustOpen(t, path)
	agrees := func(what string, want Change) {
		t.Helper()
		c, got, err := f.Look()
		if err != nil || c != want {
			t.Fatalf("%s: %+v, %v, want %+v", what, c, err, want)
		}
		if st, err := f.Stat(); err != nil || got != st {
			t.Errorf("%s: Look says %+v\nStat says %+v, %v", what, got, st, err)
		}
	}
	agrees("at first", Change{})
	a.do("fill(c, 10)")
	agrees("after commits", Change{})
	a.do("c.close()")
	agrees("without side files", Change{WAL: true, Shm: true})
	agrees("still without", Change{})
	a.do("c = connect(); fill(c, 1)")
	agrees("with new side files", Change{WAL: true, Shm: true})
	writeFile(t, path+".new", sampleHeader())
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
	if c, st, err := f.Look(); err != nil || !c.Database || st != (Stat{}) {
		t.Errorf("another database: %+v, %+v, %v", c, st, err)
	}
}
