package dbfile

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// foreign waits until Others reports a foreign use.
func foreign(t *testing.T, f *Files) *ForeignError {
	t.Helper()
	var found *ForeignError
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		if _, err := f.Refresh(); err != nil {
			t.Fatal(err)
		}
		_, err := f.Others()
		if errors.As(err, &found) {
			return found
		}
		if err != nil && !errors.Is(err, ErrUnclear) {
			t.Fatal(err)
		}
		if time.Now().After(deadline) {
			t.Fatalf("no foreign use was told: %v", err)
		}
	}
}

// unopenable waits until MayOpen reports a foreign use, which may take a moment after its last
// look.
func unopenable(t *testing.T, f *Files, kind ForeignKind) *ForeignError {
	t.Helper()
	var found *ForeignError
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		err := f.MayOpen()
		if errors.As(err, &found) {
			if found.Kind != kind {
				t.Fatalf("MayOpen: got %v, want kind %d", err, kind)
			}
			return found
		}
		if time.Now().After(deadline) {
			t.Fatalf("MayOpen: got %v, want kind %d", err, kind)
		}
	}
}

// friendly fails the test if anything is foreign.
func friendly(t *testing.T, f *Files, attached bool) {
	t.Helper()
	if err := f.MayOpen(); err != nil {
		t.Fatalf("MayOpen: %v", err)
	}
	if got, err := f.Others(); err != nil || got != attached {
		t.Fatalf("Others: got %v, %v, want %v", got, err, attached)
	}
}

// TestOthers/D15 and D24: applications of every kind, as the kernel shows them.
func TestOthers(t *testing.T) {
	t.Parallel()
	t.Run("ordinary", func(t *testing.T) {
		t.Parallel()
		a, path := newWAL(t, 4096)
		f := mustOpen(t, path)
		friendly(t, f, true)
		a.do("fill(c, 3)")
		friendly(t, f, true)
		a.do("c.close()")
		refresh(t, f, Change{WAL: true, Shm: true})
		friendly(t, f, false)
		a.do("d = sqlite3.connect(path)") // it has not read yet: it has no lock and no WAL
		friendly(t, f, false)
	})
	t.Run("D24_exclusive", func(t *testing.T) {
		t.Parallel()
		a, path := newWAL(t, 4096)
		a.do("c.close(); c = sqlite3.connect(path, isolation_level=None)")
		a.do("c.execute('pragma locking_mode=exclusive'); c.execute('insert into t(v) values(1)')")
		f := mustOpen(t, path)
		if got := foreign(t, f); got.Kind != ForeignExclusive || got.PID != a.PID {
			t.Errorf("got %+v, want EXCLUSIVE by %d", got, a.PID)
		}
		a.do("c.close()")
		friendly(t, f, false)
	})
	t.Run("D24_unix_excl", func(t *testing.T) {
		t.Parallel()
		a, path := newWAL(t, 4096)
		a.do("c.close(); c = sqlite3.connect('file:'+path+'?vfs=unix-excl', uri=True, isolation_level=None); " +
			"c.execute('insert into t(v) values(1)')")
		if got := foreign(t, mustOpen(t, path)); got.Kind != ForeignExclusive && got.Kind != ForeignIndex {
			t.Errorf("got %+v", got)
		}
	})
	for _, vfs := range []string{"unix-none", "unix-dotfile"} {
		t.Run("D24_"+strings.ReplaceAll(vfs, "-", "_"), func(t *testing.T) {
			t.Parallel()
			a, path := newWAL(t, 4096)
			a.do("c.close(); c = sqlite3.connect('file:'+path+'?vfs=%s', uri=True, isolation_level=None)", vfs)
			a.do("c.execute('pragma locking_mode=exclusive'); c.execute('insert into t(v) values(1)')")
			f := mustOpen(t, path)
			foreign(t, f) // even before anybody wants to open it
			if found := unopenable(t, f, ForeignUnlocked); found.PID != a.PID {
				t.Errorf("got pid %d, want %d", found.PID, a.PID)
			}
			foreign(t, f) // as long as that application lives
			a.Kill()
			for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(50 * time.Millisecond) {
				if _, err := f.Others(); err == nil {
					break
				} else if time.Now().After(deadline) {
					t.Fatalf("told although it is gone: %v", err)
				}
			}
		})
	}
	t.Run("D24_forked", func(t *testing.T) { // a child inherits its parent's descriptors, but not its locks
		t.Parallel()
		a, path := newWAL(t, 4096)
		a.do("fill(c, 3)")
		a.do("import signal; k = os.fork() or signal.pause()")
		f := mustOpen(t, path)
		friendly(t, f, true)
		a.do("os.kill(k, 9); os.waitpid(k, 0)")
	})
	t.Run("D15_lost_locks", func(t *testing.T) {
		t.Parallel()
		a, path := newWAL(t, 4096)
		a.do("fill(c, 3); [open(path+s,'rb').read() for s in ('', '-wal', '-shm')]")
		unopenable(t, mustOpen(t, path), ForeignUnlocked)
	})
	t.Run("D15_lost_lock_of_main", func(t *testing.T) { // as with another sqlwatch that stands back
		t.Parallel()
		a, path := newWAL(t, 4096)
		a.do("fill(c, 3); open(path,'rb').read()")
		friendly(t, mustOpen(t, path), true)
	})
	for _, rm := range []string{"-shm", "-shm -wal"} {
		t.Run("D15_removed"+strings.ReplaceAll(rm, " ", ""), func(t *testing.T) {
			t.Parallel()
			a, path := newWAL(t, 4096)
			f := mustOpen(t, path)
			friendly(t, f, true)
			for _, side := range strings.Fields(rm) {
				if err := os.Remove(path + side); err != nil {
					t.Fatal(err)
				}
			}
			a.do("fill(c, 1)")
			if got := foreign(t, f); got.Kind != ForeignIndex || got.PID != a.PID {
				t.Errorf("got %+v, want another wal-index, of pid %d", got, a.PID)
			}
		})
	}
	t.Run("D15_two_apps_one_with_removed_files", func(t *testing.T) {
		t.Parallel()
		a, path := newWAL(t, 4096)
		a.do("fill(c, 1)")
		if err := errors.Join(os.Remove(path+"-wal"), os.Remove(path+"-shm")); err != nil {
			t.Fatal(err)
		}
		b := startApp(t, path)
		b.do("c = connect(); c.execute('create table if not exists u(x)')")
		unopenable(t, mustOpen(t, path), ForeignIndex)
	})
}

// TestNamesOfAFile/D22 tests several names of one file, and a mount of a single file.
func TestNamesOfAFile(t *testing.T) {
	t.Parallel()
	t.Run("D22_hard_link", func(t *testing.T) {
		t.Parallel()
		_, path := newWAL(t, 4096)
		f := mustOpen(t, path)
		friendly(t, f, true)
		if err := os.Link(path, path+".link"); err != nil {
			t.Fatal(err)
		}
		if got := foreign(t, f); got.Kind != ForeignLinks {
			t.Errorf("got %+v, want hard links", got)
		}
		if err := os.Remove(path + ".link"); err != nil {
			t.Fatal(err)
		}
		for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(50 * time.Millisecond) {
			if _, err := f.Others(); err == nil {
				break
			} else if time.Now().After(deadline) {
				t.Fatal(err)
			}
		}
	})
	t.Run("D15_mount", func(t *testing.T) {
		t.Parallel()
		_, path := newWAL(t, 4096)
		point := filepath.Join(t.TempDir(), "mounted.db")
		writeFile(t, point, nil)
		if err := unix.Mount(path, point, "", unix.MS_BIND, ""); err != nil {
			t.Skipf("mounting needs root: %v", err)
		}
		t.Cleanup(func() { _ = unix.Unmount(point, unix.MNT_DETACH) })
		if got := foreign(t, mustOpen(t, point)); got.Kind != ForeignMount {
			t.Errorf("got %+v, want a mount point", got)
		}
	})
	t.Run("D15_overlay", func(t *testing.T) {
		t.Parallel()
		upper := t.TempDir()
		merged := mountOverlay(t, upper)
		a := startApp(t, filepath.Join(merged, "app.db"))
		a.do("c = wal(); fill(c, 3)")
		f := mustOpen(t, filepath.Join(upper, "app.db"))
		got := unopenable(t, f, ForeignOverlay)
		for deadline := time.Now().Add(20 * time.Second); got.Path != filepath.Join(merged, "app.db"); got = foreign(t, f) {
			if time.Now().After(deadline) { // longer than a reading of the mounts is used
				t.Fatalf("got %+v, want the path in %s", got, merged)
			}
			time.Sleep(50 * time.Millisecond)
		}
		a.Kill()
		if got := foreign(t, f); got.Kind != ForeignOverlay {
			t.Errorf("without a process: got %+v, want an overlay", got)
		}
		friendly(t, mustOpen(t, filepath.Join(merged, "app.db")), false)
	})
	t.Run("D15_overlay_of_a_process", func(t *testing.T) {
		t.Parallel()
		dir, err := os.Open(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		defer dir.Close()
		// As in another mount namespace, our own mounts do not show where its upper directory is.
		merged := mountOverlay(t, fmt.Sprintf("/proc/self/fd/%d", dir.Fd()))
		a := startApp(t, filepath.Join(merged, "app.db"))
		a.do("c = wal(); fill(c, 3)")
		if got := unopenable(t, mustOpen(t, filepath.Join(dir.Name(), "app.db")), ForeignOverlay); got.PID != a.PID {
			t.Errorf("got %+v, want pid %d", got, a.PID)
		}
	})
}

// mountOverlay mounts an overlay file system with an upper directory, and returns where.
func mountOverlay(t *testing.T, upper string) (merged string) {
	t.Helper()
	merged = t.TempDir()
	options := fmt.Sprintf("lowerdir=%s,upperdir=%s,workdir=%s", t.TempDir(), upper, t.TempDir())
	if err := unix.Mount("overlay", merged, "overlay", 0, options); err != nil {
		t.Skipf("mounting an overlay needs root, and a disk: %v", err)
	}
	t.Cleanup(func() { _ = unix.Unmount(merged, unix.MNT_DETACH) })
	return merged
}

// TestStrangersWAL/D5: a WAL that is older than the file beside it belongs to another database.
func TestStrangersWAL(t *testing.T) {
	t.Parallel()
	t.Run("D5", func(t *testing.T) {
		t.Parallel()
		a, path := newWAL(t, 4096)
		a.do("fill(c, 10)")
		a.Kill()
		f := mustOpen(t, path)
		friendly(t, f, false)
		time.Sleep(20 * time.Millisecond) // beyond the resolution of file times
		other := startApp(t, path+".other")
		other.do("c = wal(); fill(c, 3); c.close()")
		if err := os.Rename(path+".other", path); err != nil {
			t.Fatal(err)
		}
		g := mustOpen(t, path)
		found := unopenable(t, g, ForeignWAL)
		if foreign(t, g); found.Cure() == "" || found.Error() == "" {
			t.Error("nothing is said of it")
		}
		// SQLite takes the WAL for that of the database it opens, and then it is.
		other.do("c = connect(path.removesuffix('.other')); c.execute('pragma schema_version')")
		if _, err := g.Refresh(); err != nil {
			t.Fatal(err)
		}
		for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(50 * time.Millisecond) {
			if _, err := g.Others(); err == nil {
				break
			} else if time.Now().After(deadline) {
				t.Fatal(err)
			}
		}
	})
	t.Run("D5_an_older_file_moved_in", func(t *testing.T) {
		t.Parallel()
		path := filepath.Join(t.TempDir(), "app.db")
		older := startApp(t, path+".older")
		older.do("c = wal(); fill(c, 3); c.close()")
		a := startApp(t, path)
		a.do("c = wal(); fill(c, 10)")
		a.Kill()
		time.Sleep(20 * time.Millisecond) // beyond the resolution of file times
		if err := os.Rename(path+".older", path); err != nil {
			t.Fatal(err)
		}
		unopenable(t, mustOpen(t, path), ForeignWAL)
	})
	t.Run("D5_killed_after_a_checkpoint", func(t *testing.T) {
		t.Parallel()
		a, path := newWAL(t, 4096)
		a.do("fill(c, 10); c.execute('pragma wal_checkpoint').fetchone()")
		a.Kill()
		friendly(t, mustOpen(t, path), false)
	})
	t.Run("D5_killed_then_chmod", func(t *testing.T) {
		t.Parallel()
		a, path := newWAL(t, 4096)
		a.do("fill(c, 10)")
		a.Kill()
		time.Sleep(2 * renameTime)
		if err := os.Chmod(path, 0o640); err != nil {
			t.Fatal(err)
		}
		friendly(t, mustOpen(t, path), false)
	})
	t.Run("D5_both_copied", func(t *testing.T) {
		t.Parallel()
		a, path := newWAL(t, 4096)
		a.do("fill(c, 10)")
		a.Kill()
		to := filepath.Join(t.TempDir(), "app.db")
		for _, side := range []string{"", "-wal"} {
			copyFile(t, to+side, path+side)
			old := time.Now().Add(-time.Hour) // as cp -p does
			if err := os.Chtimes(to+side, old, old); err != nil {
				t.Fatal(err)
			}
		}
		friendly(t, mustOpen(t, to), false)
	})
}

// TestPin reads a WAL to its end after SQLite has unlinked it.
func TestPin(t *testing.T) {
	t.Parallel()
	a, path := newWAL(t, 4096)
	a.do("fill(c, 5)")
	f := mustOpen(t, path)
	f.Pin()
	a.do("fill(c, 5); c.close(); c = connect(); fill(c, 1)")
	for range 2 {
		refresh(t, f, Change{WAL: true, Shm: true})
	}
	x, err := f.WALIndex()
	if err != nil || x.Change < 10 || x.Backfilled != x.MaxFrame {
		t.Errorf("got %+v, %v, want the whole life that ended", x, err)
	}
	h, err := f.WALHeader()
	if err != nil || h.Salt1 != x.Salt1 {
		t.Errorf("got %+v, %v, want the WAL of the index", h, err)
	}
	f.Unpin()
	refresh(t, f, Change{WAL: true, Shm: true})
	refresh(t, f, Change{})
	if x, err := f.WALIndex(); err != nil || x.Change != 1 {
		t.Errorf("got %+v, %v, want the new life", x, err)
	}
}

func BenchmarkMayOpen(b *testing.B) {
	path := filepath.Join(b.TempDir(), "app.db")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		b.Fatal(err)
	}
	f, err := Open(path)
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	for _, c := range []struct {
		name string
		ask  func() error
	}{{"Others", func() error { _, err := f.Others(); return err }}, {"MayOpen", f.MayOpen}} {
		b.Run(fmt.Sprint(c.name), func(b *testing.B) {
			for b.Loop() {
				if err := c.ask(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
