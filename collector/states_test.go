package collector

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestSamplerStates(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		create func(t *testing.T, path string)
		want   State
	}{
		"missing":           {func(*testing.T, string) {}, StateMissing},
		"missing directory": {nil, StateMissing},
		"D16_empty_file":    {writer(""), StateEmpty},
		"D19_text_file":     {writer(strings.Repeat("not a database\n", 50)), StateNotDatabase},
		"D19_short_file":    {writer("SQLite format 3\x00"), StateNotDatabase},
		"D19_random_bytes":  {writer(strings.Repeat("\x93\x11\x00\xfe", 2048)), StateNotDatabase},
		"D19_directory": {func(t *testing.T, path string) {
			if err := os.Mkdir(path, 0o755); err != nil {
				t.Fatal(err)
			}
		}, StateNotDatabase},
		"D19_fifo": {func(t *testing.T, path string) {
			if err := unix.Mkfifo(path, 0o644); err != nil {
				t.Fatal(err)
			}
		}, StateNotDatabase},
		"D19_device": {func(t *testing.T, path string) {
			if err := os.Symlink("/dev/zero", path); err != nil {
				t.Fatal(err)
			}
		}, StateNotDatabase},
		"D22_dangling_link": {func(t *testing.T, path string) {
			if err := os.Symlink("nowhere", path); err != nil {
				t.Fatal(err)
			}
		}, StateMissing},
		"D1_rollback_journal": {func(t *testing.T, path string) {
			startApp(t, path).run("c = connect()", "c.execute('create table t(x)')")
		}, StateNotWAL},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			path := tempDB(t)
			if tt.create == nil {
				path = filepath.Join(path, "deeper", "app.db")
			} else {
				tt.create(t, path)
			}
			r, _ := newTestSampler(t, path)
			for range 3 { // the same each time: sampling changes nothing
				wantState(t, r, tt.want)
			}
		})
	}
}

func writer(content string) func(*testing.T, string) {
	return func(t *testing.T, path string) {
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func TestSamplerD1StillMeasuresRollbackDatabase(t *testing.T) {
	t.Parallel()
	path := tempDB(t)
	startApp(t, path).run("c = connect()", "c.execute('create table t(x)')")
	r, _ := newTestSampler(t, path)
	s := wantState(t, r, StateNotWAL)
	if s.Database.SizeBytes != 8192 || s.Database.Pages != 2 || s.Database.JournalMode != "rollback" || !s.Disk.Known {
		t.Errorf("database %+v, disk %+v", s.Database, s.Disk)
	}
	if !strings.Contains(s.Err, "journal_mode=WAL") {
		t.Errorf("message names no cure: %s", s.Err)
	}
}

func TestSamplerD2JournalModeSwitched(t *testing.T) {
	t.Parallel()
	path := tempDB(t)
	a := walApp(t, path)
	r, clock := newTestSampler(t, path)
	wantState(t, r, StateUp)
	a.run(insert)
	wantState(t, r, StateUp)
	a.run("c.execute('pragma journal_mode=delete')", insert)
	clock.forward(time.Second)
	s := wantState(t, r, StateNotWAL)
	if s.WAL.CommitsTotal != 1 {
		t.Errorf("%d commits, want the one to the WAL", s.WAL.CommitsTotal)
	}
	wantState(t, r, StateNotWAL)
	a.run("c.execute('pragma journal_mode=wal')", insert, insert)
	clock.forward(time.Second)
	if s = wantState(t, r, StateUp); s.WAL.CommitsTotal != 3 || s.WAL.ResetsTotal != 1 {
		t.Errorf("back in WAL mode: %+v", s.WAL)
	}
}

func TestSamplerD3DeletedAndRecreated(t *testing.T) {
	t.Parallel()
	path := tempDB(t)
	a := walApp(t, path)
	r, _ := newTestSampler(t, path)
	closed := 0
	r.opts.BeforeClose = func() {
		closed++
		if r.Files() == nil {
			t.Error("files were closed before BeforeClose")
		}
	}
	a.run(insert)
	wantState(t, r, StateUp)
	a.run(insert)
	before := wantState(t, r, StateUp)
	a.run("c.close()", "os.unlink(path)")
	s := wantState(t, r, StateMissing)
	if closed != 1 || r.Files() != nil {
		t.Errorf("BeforeClose called %d times, files %v", closed, r.Files())
	}
	if s.Database.SizeBytes != 0 {
		t.Errorf("size of a file that is not there: %d", s.Database.SizeBytes)
	}
	wantState(t, r, StateMissing)
	walApp(t, path).run(insert)
	s = wantState(t, r, StateUp)
	if got := s.WAL.CommitsTotal - before.WAL.CommitsTotal; got != 2 {
		t.Errorf("%d commits of the new database were added, want 2: all since its wal-index was made", got)
	}
	if closed != 1 {
		t.Errorf("BeforeClose called %d times", closed)
	}
}

func TestSamplerD4ReplacedByRename(t *testing.T) {
	t.Parallel()
	path := tempDB(t)
	a := walApp(t, path)
	for range 20 {
		a.run(insert)
	}
	r, _ := newTestSampler(t, path)
	closed := 0
	r.opts.BeforeClose = func() { closed++ }
	wantState(t, r, StateUp)
	a.run("c.close()")
	other := filepath.Join(t.TempDir(), "other.db")
	b := startApp(t, other)
	b.run("c = connect()", "c.execute('pragma page_size=8192')", "c.execute('pragma journal_mode=wal')",
		"c.execute('create table t(x)')", "c.close()")
	if err := os.Rename(other, path); err != nil {
		t.Fatal(err)
	}
	s := wantState(t, r, StateUp)
	if closed != 1 || s.Database.PageSize != 8192 || s.WAL.Frames != 0 {
		t.Errorf("closed %d times, %+v, %+v", closed, s.Database, s.WAL)
	}
}

func TestSamplerD5WALOfAnotherDatabase(t *testing.T) {
	t.Parallel()
	path, other := tempDB(t), tempDB(t)
	a, b := walApp(t, path), walApp(t, other)
	a.run(insert)
	b.run(insert)
	r, clock := newTestSampler(t, path)
	a.Kill() // a crash: -wal and -shm stay
	b.Kill()
	content, err := os.ReadFile(other + "-wal")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path+"-wal", content, 0o644); err != nil {
		t.Fatal(err)
	}
	s := wantState(t, r, StateUnreadable)
	if !strings.Contains(s.Err, "integrity_check") {
		t.Errorf("message names no cure: %s", s.Err)
	}
	clock.forward(time.Minute)
	wantState(t, r, StateUnreadable)
}

func TestSamplerD16(t *testing.T) {
	t.Parallel()
	t.Run("D16_empty_then_first_write", func(t *testing.T) {
		path := tempDB(t)
		writer("")(t, path)
		r, _ := newTestSampler(t, path)
		wantState(t, r, StateEmpty)
		walApp(t, path).run(insert)
		if s := wantState(t, r, StateUp); s.WAL.CommitsTotal != 2 { // create table, insert
			t.Errorf("first write after empty: %+v", s.WAL)
		}
	})
	t.Run("D16_no_wal_at_rest", func(t *testing.T) {
		path := tempDB(t)
		a := walApp(t, path)
		a.run("c.close()")
		r, _ := newTestSampler(t, path)
		if s := wantState(t, r, StateUp); s.WAL.Frames != 0 || s.WAL.SizeBytes != 0 {
			t.Errorf("at rest: %+v", s.WAL)
		}
		a.run("c = connect()", insert)
		if s := wantState(t, r, StateUp); s.WAL.CommitsTotal != 1 || s.WAL.ResetsTotal != 0 {
			t.Errorf("first write of the day: %+v", s.WAL)
		}
	})
	t.Run("D16_empty_wal", func(t *testing.T) {
		path := tempDB(t)
		a := walApp(t, path)
		a.run("c.execute('pragma wal_checkpoint(truncate)')")
		r, _ := newTestSampler(t, path)
		if s := wantState(t, r, StateUp); s.WAL.Frames != 0 || s.WAL.SizeBytes != 0 {
			t.Errorf("empty WAL: %+v", s.WAL)
		}
	})
	t.Run("D16_wal_header_only", func(t *testing.T) {
		path := tempDB(t)
		a := walApp(t, path)
		a.run(insert)
		content, err := os.ReadFile(path + "-wal")
		if err != nil {
			t.Fatal(err)
		}
		a.run("c.execute('pragma wal_checkpoint(truncate)')", "c.close()")
		if err := os.WriteFile(path+"-wal", content[:32], 0o644); err != nil {
			t.Fatal(err)
		}
		r, _ := newTestSampler(t, path)
		if s := wantState(t, r, StateUp); s.WAL.Frames != 0 || s.WAL.SizeBytes != 32 {
			t.Errorf("header only: %+v", s.WAL)
		}
	})
}

func TestSamplerD21ReadOnly(t *testing.T) {
	t.Parallel()
	path := tempDB(t)
	a := walApp(t, path)
	a.run(insert)
	for _, suffix := range []string{"", "-wal", "-shm"} {
		if err := os.Chmod(path+suffix, 0o444); err != nil {
			t.Fatal(err)
		}
	}
	r, _ := newTestSampler(t, path)
	if s := wantState(t, r, StateUp); s.WAL.Frames == 0 {
		t.Errorf("read-only files: %+v", s.WAL)
	}
}

func TestSamplerD38NetworkFileSystem(t *testing.T) {
	t.Parallel()
	path := tempDB(t)
	walApp(t, path)
	r, clock := newTestSampler(t, path)
	before := wantState(t, r, StateUp)
	r.sample.Disk.Network, r.sample.Disk.FSType = true, "nfs4" // as if it were on NFS
	clock.forward(time.Second)
	s := wantState(t, r, StateNetworkFS)
	if !strings.Contains(s.Err, "nfs4") {
		t.Errorf("message names no file system: %s", s.Err)
	}
	r.opts.AllowNetworkFS = true
	if s = wantState(t, r, StateUp); s.WAL.LagSince != before.WAL.LagSince || s.WAL.LagSince.IsZero() {
		t.Errorf("up again, and the age of the lag was forgotten: %v, was %v", s.WAL.LagSince,
			before.WAL.LagSince)
	}
}

func TestSamplerD39Tmpfs(t *testing.T) {
	t.Parallel()
	dir, err := os.MkdirTemp("/dev/shm", "sqlwatch-test-")
	if err != nil {
		t.Skip(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	path := filepath.Join(dir, "app.db")
	walApp(t, path).run(insert)
	r, _ := newTestSampler(t, path)
	if s := wantState(t, r, StateUp); s.Disk.FSType != "tmpfs" {
		t.Errorf("disk: %+v", s.Disk)
	}
}

func TestSamplerD40FilesThatComeAndGo(t *testing.T) {
	t.Parallel()
	path := tempDB(t)
	r, _ := newTestSampler(t, path)
	for range 5 {
		wantState(t, r, StateMissing)
		writer("")(t, path)
		wantState(t, r, StateEmpty)
		writer("junk")(t, path)
		wantState(t, r, StateNotDatabase)
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
}

func TestSamplerD43JournalSizeLimit(t *testing.T) {
	t.Parallel()
	path := tempDB(t)
	a := walApp(t, path)
	for range 50 {
		a.run(insert)
	}
	a.run("c.execute('pragma wal_checkpoint(restart)')", insert)
	r, _ := newTestSampler(t, path)
	s := wantState(t, r, StateUp)
	if s.WAL.SizeBytes < 50*4096 || s.WAL.Frames > 3 {
		t.Errorf("the file's size is not what is in use: %+v", s.WAL)
	}
	a.run("c.execute('pragma journal_size_limit=4096')", "c.execute('pragma wal_checkpoint(restart)')", insert, insert)
	if s = wantState(t, r, StateUp); s.WAL.SizeBytes >= 50*4096 || s.WAL.CommitsTotal != 2 {
		t.Errorf("after journal_size_limit: %+v", s.WAL)
	}
}

func TestSamplerSecondPathToOneInode(t *testing.T) {
	t.Parallel()
	path := tempDB(t)
	walApp(t, path)
	link := filepath.Join(t.TempDir(), "link.db")
	if err := os.Symlink(path, link); err != nil {
		t.Fatal(err)
	}
	first, _ := newTestSampler(t, path)
	second, _ := newTestSampler(t, link)
	wantState(t, first, StateUp)
	if s := wantState(t, second, StateUnreadable); !strings.Contains(s.Err, path) {
		t.Errorf("D22 message does not name the other: %s", s.Err)
	}
	wantState(t, first, StateUp)
}

func TestSamplerBridgesAWALIndexInTheMaking(t *testing.T) {
	t.Parallel()
	path := tempDB(t)
	a := walApp(t, path)
	a.run(insert)
	r, clock := newTestSampler(t, path)
	before := wantState(t, r, StateUp)
	a.run("c.close()")
	// The two copies of the header differ, as when a writer is stopped while it writes them.
	content := make([]byte, 32768)
	content[0] = 1
	if err := os.WriteFile(path+"-shm", content, 0o644); err != nil {
		t.Fatal(err)
	}
	clock.forward(time.Second)
	if s := wantState(t, r, StateUp); s.WAL.Frames != before.WAL.Frames {
		t.Errorf("got %+v, want the last readable index for a moment", s.WAL)
	}
	clock.forward(time.Minute)
	wantState(t, r, StateUnreadable)
}

func TestSamplerSampleAfterCancel(t *testing.T) {
	t.Parallel()
	r, clock := newTestSampler(t, tempDB(t))
	before := wantState(t, r, StateMissing)
	clock.forward(time.Hour)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if got := r.Sample(ctx); got.At != before.At || got.State != before.State {
		t.Errorf("a cancelled Sample measured: %v", got)
	}
}
