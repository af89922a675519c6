package restore_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sqlwatch/sqlwatch/internal/cage"
	"github.com/sqlwatch/sqlwatch/internal/dbfile"
	"github.com/sqlwatch/sqlwatch/internal/sqlite"
	"github.com/sqlwatch/sqlwatch/replicator/catalog"
	"github.com/sqlwatch/sqlwatch/replicator/restore"
	"github.com/sqlwatch/sqlwatch/replicator/stage"
	"github.com/sqlwatch/sqlwatch/replicator/store"
	"github.com/sqlwatch/sqlwatch/replicator/store/storetest"
)

// restoreTo restores the newest state to out.
func restoreTo(st store.Store, out string, edit func(*restore.Options)) (restore.Result, error) {
	o := restore.Options{Output: out}
	if edit != nil {
		edit(&o)
	}
	return restore.Run(context.Background(), st, o)
}

func force(o *restore.Options) { o.Force = true }

func wantFile(t *testing.T, path string, want []byte) {
	t.Helper()
	if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, want) {
		t.Errorf("%s has %d bytes (%v), want another content of %d bytes", path, len(got), err, len(want))
	}
}

// onlyFiles checks that the directory of a restore holds exactly these files, not counting files
// that were set aside.
func onlyFiles(t *testing.T, dir string, names ...string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range entries {
		if !strings.Contains(e.Name(), ".replaced-") {
			got = append(got, e.Name())
		}
	}
	if strings.Join(got, " ") != strings.Join(names, " ") {
		t.Errorf("the directory holds %q, want %q", got, names)
	}
}

func TestRestoreOutput(t *testing.T) {
	m := storetest.NewMemory()
	h := realHistory(t, m)
	want := h.states[6]
	old := []byte("an old database")

	t.Run("R18_checked", func(t *testing.T) {
		out := filepath.Join(t.TempDir(), "out.db")
		result, err := restoreTo(m, out, nil)
		if err != nil || !result.Compared || result.Check != restore.CheckQuick || result.TXID != 6 {
			t.Fatalf("%+v, %v", result, err)
		}
		if sum := h.checksum(6); result.Checksum != sum {
			t.Errorf("checksum %s, want %s", result.Checksum, sum)
		}
		wantFile(t, out, want)
		onlyFiles(t, filepath.Dir(out), "out.db")
	})
	t.Run("R14_mode", func(t *testing.T) {
		defer syscall.Umask(syscall.Umask(0))
		out := filepath.Join(t.TempDir(), "out.db")
		if _, err := restoreTo(m, out, nil); err != nil {
			t.Fatal(err)
		}
		if info, err := os.Stat(out); err != nil || info.Mode() != 0o600 {
			t.Errorf("mode %v, %v", info.Mode(), err)
		}
	})
	t.Run("R4_exists", func(t *testing.T) {
		out := filepath.Join(t.TempDir(), "out.db")
		write(t, out, old)
		_, err := restoreTo(m, out, nil)
		var occupied *stage.OccupiedError
		if !errors.As(err, &occupied) || !errors.Is(err, fs.ErrExist) || !strings.Contains(err.Error(), "--force") {
			t.Errorf("without force: %v", err)
		}
		wantFile(t, out, old)
		if r, err := restoreTo(m, out, func(o *restore.Options) { o.IfNotExists = true }); err != nil || !r.Skipped {
			t.Errorf("if not exists: %+v, %v", r, err)
		}
		wantFile(t, out, old)
		r, err := restoreTo(m, out, force)
		if err != nil || len(r.Aside) != 1 {
			t.Fatalf("with force: set aside %v, %v", r.Aside, err)
		}
		wantFile(t, out, want)
		wantFile(t, r.Aside[0], old)
		onlyFiles(t, filepath.Dir(out), "out.db")
	})
	t.Run("R5_side files", func(t *testing.T) {
		out := filepath.Join(t.TempDir(), "out.db")
		for _, suffix := range []string{"-wal", "-shm", "-journal"} {
			write(t, out+suffix, old)
			if _, err := restoreTo(m, out, nil); err == nil || !strings.Contains(err.Error(), out+suffix) {
				t.Errorf("a stale %s: %v", suffix, err)
			}
			onlyFiles(t, filepath.Dir(out), "out.db"+suffix)
			if _, err := restoreTo(m, out, force); err != nil {
				t.Error(err)
			}
			onlyFiles(t, filepath.Dir(out), "out.db")
			wantFile(t, out, want)
			if err := os.Remove(out); err != nil {
				t.Fatal(err)
			}
		}
	})
	t.Run("open elsewhere", func(t *testing.T) {
		out := filepath.Join(t.TempDir(), "out.db")
		write(t, out, old)
		holder := exec.Command("sleep", "600")
		f, err := os.Open(out)
		if err != nil {
			t.Fatal(err)
		}
		holder.Stdin = f
		if err := holder.Start(); err != nil {
			t.Fatal(err)
		}
		f.Close()
		defer func() { holder.Process.Kill(); holder.Wait() }()
		var occupied *stage.OccupiedError
		if _, err := restoreTo(m, out, nil); !errors.As(err, &occupied) || len(occupied.Users) != 1 ||
			occupied.Users[0] != holder.Process.Pid {
			t.Errorf("%v, want the holder %d", err, holder.Process.Pid)
		}
		if _, err := restoreTo(m, out, force); !errors.As(err, &occupied) {
			t.Errorf("with force: %v", err)
		}
		wantFile(t, out, old)
	})
	t.Run("R8_places", func(t *testing.T) {
		dir := t.TempDir()
		real := filepath.Join(dir, "real")
		if err := os.Mkdir(real, 0o700); err != nil {
			t.Fatal(err)
		}
		link := filepath.Join(dir, "link.db")
		if err := os.Symlink(filepath.Join(real, "out.db"), link); err != nil {
			t.Fatal(err)
		}
		if _, err := restoreTo(m, link, nil); err == nil || !strings.Contains(err.Error(), "leads nowhere") {
			t.Errorf("a link to nothing: %v", err)
		}
		write(t, filepath.Join(real, "out.db"), old)
		if _, err := restoreTo(m, link, nil); !errors.Is(err, fs.ErrExist) {
			t.Errorf("a link to a database: %v", err)
		}
		if _, err := restoreTo(m, link, force); err != nil {
			t.Error(err)
		}
		wantFile(t, filepath.Join(real, "out.db"), want)
		if info, err := os.Lstat(link); err != nil || info.Mode()&fs.ModeSymlink == 0 {
			t.Error("the link was replaced")
		}
		if _, err := restoreTo(m, filepath.Join(dir, "missing", "out.db"), nil); !errors.Is(err, fs.ErrNotExist) ||
			!strings.Contains(err.Error(), "make it first") {
			t.Errorf("no directory: %v", err)
		}
		if _, err := restoreTo(m, real, force); err == nil || !strings.Contains(err.Error(), "directory") {
			t.Errorf("to a directory: %v", err)
		}
		fifo := filepath.Join(dir, "fifo")
		if err := unix.Mkfifo(fifo, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := restoreTo(m, fifo, force); err == nil || !strings.Contains(err.Error(), "pipe") {
			t.Errorf("to a pipe: %v", err)
		}
		trap := filepath.Join(dir, ".trap.db.sqlwatch-restore")
		if err := os.Symlink(filepath.Join(real, "out.db"), trap); err != nil {
			t.Fatal(err)
		}
		if _, err := restoreTo(m, filepath.Join(dir, "trap.db"), nil); err != nil {
			t.Errorf("a link like a stage: %v", err)
		}
		wantFile(t, filepath.Join(real, "out.db"), want) // the link was not followed
	})
	t.Run("R14_owner", func(t *testing.T) {
		if os.Geteuid() != 0 {
			t.Skip("only root may change the owner of files")
		}
		dir := t.TempDir()
		out := filepath.Join(dir, "out.db")
		owner := func(path string, uid, gid int, mode fs.FileMode) {
			t.Helper()
			info, err := os.Stat(path)
			if err != nil {
				t.Fatal(err)
			}
			if sys := info.Sys().(*syscall.Stat_t); int(sys.Uid) != uid || int(sys.Gid) != gid || info.Mode().Perm() != mode {
				t.Errorf("%s has uid %d, gid %d, mode %v; want %d, %d, %v", path, sys.Uid, sys.Gid, info.Mode(), uid, gid, mode)
			}
		}
		if err := os.Chown(dir, 1234, 2345); err != nil {
			t.Fatal(err)
		}
		if _, err := restoreTo(m, out, nil); err != nil {
			t.Fatal(err)
		}
		owner(out, 1234, 2345, 0o600)
		if err := errors.Join(os.Chown(out, 4321, 5432), os.Chmod(out, 0o660)); err != nil {
			t.Fatal(err)
		}
		if _, err := restoreTo(m, out, force); err != nil {
			t.Fatal(err)
		}
		owner(out, 4321, 5432, 0o660)
		if err := os.Chmod(dir, 0o777|fs.ModeSticky); err != nil {
			t.Fatal(err)
		}
		if _, err := restoreTo(m, out, force); err != nil {
			t.Fatal(err)
		}
		owner(out, 0, 0, 0o600) // not the old file's owner: anybody might have put that file into this directory
	})
	t.Run("R4_in use", func(t *testing.T) {
		out := filepath.Join(t.TempDir(), "out.db")
		user := exec.Command("python3", "-c", `
import sqlite3, sys, os
db = sqlite3.connect(sys.argv[1]); db.execute("pragma journal_mode=wal"); db.execute("create table t(v)")
print("ready", flush=True); sys.stdin.read()`, out)
		in, err := user.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		ready, err := user.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := user.Start(); err != nil {
			t.Fatal(err)
		}
		if _, err := ready.Read(make([]byte, 6)); err != nil {
			t.Fatal(err)
		}
		if _, err := dbfile.Replacing(out); !errors.Is(err, dbfile.ErrInUse) {
			t.Errorf("claimed beside a connection: %v", err)
		}
		var occupied *stage.OccupiedError
		if _, err := restoreTo(m, out, force); !errors.As(err, &occupied) {
			t.Errorf("with force beside a connection: %v", err)
		}
		in.Close()
		if err := user.Wait(); err != nil {
			t.Fatal(err)
		}
		if _, err := restoreTo(m, out, force); err != nil {
			t.Errorf("after it: %v", err)
		}
		wantFile(t, out, want)
	})
	t.Run("R6_a killed restore's stage is taken over", func(t *testing.T) {
		out := filepath.Join(t.TempDir(), "out.db")
		write(t, filepath.Join(filepath.Dir(out), ".out.db.sqlwatch-restore"), bytes.Repeat([]byte("half"), 1<<20))
		if _, err := restoreTo(m, out, nil); err != nil {
			t.Fatal(err)
		}
		wantFile(t, out, want)
		onlyFiles(t, filepath.Dir(out), "out.db")
	})
	t.Run("corrupt at the source", func(t *testing.T) {
		broken := storetest.NewMemory()
		b := newHistory(t, broken, 4096, 1)
		state := bytes.Clone(want)
		copy(state[2*4096:], bytes.Repeat([]byte{0xee}, 4096))
		b.commitState(state)
		out := filepath.Join(t.TempDir(), "out.db")
		if _, err := restoreTo(broken, out, nil); !errors.Is(err, sqlite.ErrCorrupt) || !strings.Contains(err.Error(),
			"--check none") {
			t.Errorf("%v, want ErrCorrupt", err)
		}
		onlyFiles(t, filepath.Dir(out))
		if _, err := restoreTo(broken, out, func(o *restore.Options) { o.Check = restore.CheckNone }); err != nil {
			t.Error(err)
		}
		wantFile(t, out, state)
	})
	t.Run("dry run", func(t *testing.T) {
		r, err := restoreTo(m, "", func(o *restore.Options) { o.DryRun = true })
		if err != nil || r.TXID != 6 || len(r.Objects) != 3 {
			t.Errorf("%+v, %v", r, err)
		}
	})
}

func write(t *testing.T, path string, data []byte) {
	t.Helper()
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestRestore_C7_twoAtATime(t *testing.T) {
	m := storetest.NewMemory()
	h := newHistory(t, m, 4096, 1)
	for range 5 {
		h.commit()
	}
	out := filepath.Join(scratch(t), "out.db")
	reached, resume := make(chan struct{}), make(chan struct{})
	var once sync.Once
	slow := storetest.NewFaulty(m, func(op, key string, _ int) storetest.Fault {
		if op == "get" && strings.HasSuffix(key, "1.ltx") {
			once.Do(func() { close(reached); <-resume })
		}
		return storetest.None
	})
	unchecked := func(o *restore.Options) { o.Check = restore.CheckNone }
	first := make(chan error, 1)
	go func() { _, err := restoreTo(slow, out, unchecked); first <- err }()
	<-reached
	if _, err := restoreTo(m, out, unchecked); err == nil || !strings.Contains(err.Error(), "another restore") {
		t.Errorf("the second restore: %v", err)
	}
	close(resume)
	if err := <-first; err != nil {
		t.Errorf("the first restore: %v", err)
	}
	wantFile(t, out, h.states[5])
	onlyFiles(t, filepath.Dir(out), "out.db")
}

func TestRestore_R12_claims(t *testing.T) {
	key := store.LTXKey(1, 2, 3)
	for _, edit := range []func(data []byte){
		func(data []byte) { copy(data[12:16], "\xff\xff\xff\xf0") },   // header: 2³² pages
		func(data []byte) { copy(data[106:110], "\xff\xff\xff\xff") }, // page: 4 GiB compressed
		func(data []byte) { copy(data[12:16], "\x00\x00\x01\x00") },
	} {
		m, _ := small(t, true)
		if err := m.Delete(context.Background(), store.LTXKey(0, 2, 2), store.LTXKey(0, 3, 3)); err != nil {
			t.Fatal(err)
		}
		m.Tamper(key, func(data []byte) []byte { edit(data); return data })
		before := totalAlloc()
		_, _, err := restored(t, m, catalog.Target{})
		if err == nil || !strings.Contains(err.Error(), key) {
			t.Errorf("%v, want %s named", err, key)
		}
		if used := totalAlloc() - before; used > 64<<20 {
			t.Errorf("%d bytes were allocated because of a false claim", used)
		}
	}
}

func TestRestore_R19_noSpace(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("mounting a small tmpfs needs root")
	}
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=64k"); err != nil {
		t.Skipf("mount tmpfs: %v", err)
	}
	defer unix.Unmount(dir, 0)
	m := storetest.NewMemory()
	h := newHistory(t, m, 4096, 1)
	h.commitState(h.randomPages(100))
	out := filepath.Join(dir, "out.db")
	_, err := restoreTo(m, out, nil)
	if !errors.Is(err, syscall.ENOSPC) || !strings.Contains(err.Error(), "needs 410 kB") {
		t.Errorf("%v, want ENOSPC and the size", err)
	}
	if m.Requests()["get"] > 3 {
		t.Errorf("%d objects were fetched for nothing", m.Requests()["get"])
	}
	onlyFiles(t, dir)
}

// TestDrill_R19_room: a drill checks for free space before it fetches anything, and leaves enough
// of the disk to others.
func TestDrill_R19_room(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("mounting a small tmpfs needs root")
	}
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprint("size=", restore.DrillLeaves)); err != nil {
		t.Skipf("mount tmpfs: %v", err)
	}
	defer unix.Unmount(dir, 0)
	m := storetest.NewMemory()
	h := newHistory(t, m, 4096, 1)
	h.commitState(h.randomPages(100))
	_, err := restore.Drill(t.Context(), m, restore.DrillOptions{Scratch: dir})
	if !errors.Is(err, syscall.ENOSPC) || !strings.Contains(err.Error(), "stay free") {
		t.Errorf("%v, want ENOSPC and how much stays free", err)
	}
	if m.Requests()["get"] > 3 {
		t.Errorf("%d objects were fetched for nothing", m.Requests()["get"])
	}
	onlyFiles(t, dir)
	larger := fmt.Sprint("size=", restore.DrillLeaves+1<<20)
	if err := unix.Mount("tmpfs", dir, "tmpfs", unix.MS_REMOUNT, larger); err != nil {
		t.Fatal(err)
	}
	if _, err := restore.Drill(t.Context(), m, restore.DrillOptions{Scratch: dir, Check: restore.CheckNone}); err != nil {
		t.Errorf("with a megabyte more: %v", err)
	}
	onlyFiles(t, dir)
}

func TestDrill(t *testing.T) {
	m := storetest.NewMemory()
	h := realHistory(t, m)
	dir := t.TempDir()
	drill := func(source func(context.Context, ltxTXID) (ltxChecksum, bool, error)) (restore.DrillResult, error) {
		return restore.Drill(context.Background(), m, restore.DrillOptions{Scratch: dir, Source: source})
	}
	r, err := drill(func(_ context.Context, txid ltxTXID) (ltxChecksum, bool, error) {
		return h.checksum(txid), true,
			nil
	})
	if err != nil || !r.Compared || r.Restore.Check != restore.CheckFull {
		t.Errorf("%+v, %v", r, err)
	}
	if _, err := drill(func(context.Context, ltxTXID) (ltxChecksum, bool, error) { return 1, true, nil }); !errors.Is(err,
		restore.ErrDiffers) {
		t.Errorf("%v, want ErrDiffers", err)
	}
	onlyFiles(t, dir)
}

func TestPageChecksums(t *testing.T) {
	m := storetest.NewMemory()
	h := layered(t, m, 1024, 8)
	txid, sums, err := restore.PageChecksums(context.Background(), m, catalog.Target{})
	if err != nil || txid != 60 || sums.PageSize != 1024 || len(sums.Sums) != len(h.states[60])/1024 ||
		!sums.Timestamp.Equal(h.times[60]) || sums.Lineage == "" {
		t.Fatalf("txid %d, %d sums of %d bytes, %v", txid, len(sums.Sums), sums.PageSize, err)
	}
	for i, sum := range sums.Sums {
		if want := pageSum(uint32(i+1), h.states[60][i*1024:][:1024]); sum != want {
			t.Errorf("page %d: %s, want %s", i+1, sum, want)
		}
	}
	if txid, _, err := restore.PageChecksums(context.Background(), storetest.NewMemory(), catalog.Target{}); txid != 0 ||
		err != nil {
		t.Errorf("an empty replica: txid %d, %v", txid, err)
	}
}

// TestRestore_R6_interrupted cancels a restore at each of its steps, including the check by SQLite.
// The old output file stays, nothing else is left, and nothing is reported as corrupt.
func TestRestore_R6_interrupted(t *testing.T) {
	t.Parallel()
	m := storetest.NewMemory()
	realHistory(t, m)
	dir := scratch(t)
	out := filepath.Join(dir, "app.db")
	old := []byte("the database before")
	write(t, out, old)
	whole := 0 // steps of an uninterrupted restore
	for stop := 0; stop <= whole; stop++ {
		ctx, cancel := context.WithCancel(context.Background())
		steps := 0
		o := restore.Options{Output: out, Force: true, Progress: func(int64, int64) {
			if steps++; steps == stop {
				cancel()
			}
		}}
		if stop == 0 {
			o.Output = filepath.Join(scratch(t), "whole.db")
		}
		_, err := restore.Run(ctx, m, o)
		cancel()
		if stop == 0 {
			if whole = steps; err != nil || whole < 2 {
				t.Fatalf("uninterrupted: %d steps, %v", whole, err)
			}
			continue
		}
		if !errors.Is(err, context.Canceled) || strings.Contains(err.Error(), "corrupt") {
			t.Errorf("interrupted at step %d of %d: %v", stop, whole, err)
		}
		wantFile(t, out, old)
		onlyFiles(t, dir, "app.db")
	}
}

// TestRestore_R4_appearsMeanwhile: a file that the application creates at the output's path during
// the download stays.
func TestRestore_R4_appearsMeanwhile(t *testing.T) {
	t.Parallel()
	m := storetest.NewMemory()
	realHistory(t, m)
	out := filepath.Join(scratch(t), "app.db")
	theirs := []byte("made by the application just now")
	result, err := restore.Run(context.Background(), m, restore.Options{Output: out, IfNotExists: true,
		Progress: func(done, total int64) {
			if done == total {
				write(t, out, theirs)
			}
		}})
	if err != nil || !result.Skipped {
		t.Errorf("restored: %+v, %v; want it to be skipped", result, err)
	}
	wantFile(t, out, theirs)
}

// TestRestore_D36_bomb: the schema of a replica makes a check use gigabytes. The restore fails, and
// the check harms only the child process that it runs in.
func TestRestore_D36_bomb(t *testing.T) {
	t.Parallel()
	columns := make([]string, 60)
	for i := range columns {
		columns[i] = fmt.Sprintf("replace(hex(zeroblob(15000000)), '0', '0%d')", i%10)
	}
	path := filepath.Join(t.TempDir(), "bomb.db")
	if out, err := exec.Command("python3", "-c", `
import sqlite3, sys
db = sqlite3.connect(sys.argv[1], isolation_level=None)
db.executescript("PRAGMA page_size=4096; CREATE TABLE t(a); CREATE INDEX i ON t(length(a)); INSERT INTO t VALUES (1)")
db.execute("PRAGMA writable_schema=ON")
db.execute("UPDATE sqlite_master SET sql=? WHERE name='i'", (sys.argv[2],))`, path,
		"CREATE INDEX i ON t("+strings.Join(columns, ", ")+")").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	state, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	m := storetest.NewMemory()
	newHistory(t, m, 4096, 1).commitState(state)
	out := filepath.Join(t.TempDir(), "out.db")
	full := func(o *restore.Options) { o.Check = restore.CheckFull }
	if _, err := restoreTo(m, out, full); !errors.Is(err, cage.ErrLimit) || !strings.Contains(err.Error(),
		"--check none") {
		t.Errorf("%v, want ErrLimit", err)
	}
	onlyFiles(t, filepath.Dir(out))
	if _, err := restore.Drill(t.Context(), m, restore.DrillOptions{Scratch: t.TempDir()}); !errors.Is(err,
		cage.ErrLimit) {
		t.Errorf("a drill: %v, want ErrLimit", err)
	}
}
