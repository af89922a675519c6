package capture

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sqlwatch/sqlwatch/internal/sqlite"
)

// An application ends, or is killed and its side files are removed; and before we look again, a copy is put into the
// same file, which may keep the times of its original (cp -p, rsync --inplace -t). The WAL that was removed is not of
// that copy: nothing is written to it, and it is captured.
func TestCopiedOver_D4_betweenLooks(t *testing.T) {
	t.Parallel()
	const put, putKept, remove = `cp "$1" "$0"; `, `cp -p "$1" "$0"; `, `rm -f "$0-wal" "$0-shm"; `
	for name, end := range map[string]func(a *app) string{
		"ended, kept":                 func(a *app) string { a.quit(); return putKept },
		"killed, removed, kept":       func(a *app) string { a.kill(); return remove + putKept },
		"killed, put, removed":        func(a *app) string { a.kill(); return put + remove },
		"killed, kept, removed":       func(a *app) string { a.kill(); return putKept + remove },
		"killed, level, put, removed": func(a *app) string { a.level(); a.kill(); return put + remove },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newScene(t)
			backup, a := s.beforeTheCopy(true)
			output(t, "sh", "-c", end(a), s.path, backup)
			time.Sleep(30 * time.Millisecond) // the file's time is no longer now, if the copy kept none
			s.wantCopy(backup)
		})
	}
}

// level backfills the whole WAL.
func (a *app) level() {
	a.t.Helper()
	for n := 0; ; n++ {
		// The second number is of the frames in the WAL, the third of those that are in the database.
		got := a.do(`(lambda r: (r[1], r[2], r[1] == r[2]))(db.execute("pragma wal_checkpoint(passive)").fetchone())`)
		if strings.HasSuffix(got, "True)") {
			return
		}
		if n == 100 {
			a.t.Fatalf("never level: %s", got)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// The application is killed, and a copy is put into the same file; the WAL of the former file is removed some seconds
// later. Alone, SQLite would do nothing in the meantime, and neither may we.
func TestCopiedOver_D4_leftWAL(t *testing.T) {
	t.Parallel()
	for name, stood := range map[string]bool{"we stood back": true, "we did not": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newScene(t)
			backup, a := s.beforeTheCopy(stood)
			a.kill()
			output(t, "cp", backup, s.path)
			for start := time.Now(); time.Since(start) < 3*time.Second; time.Sleep(20 * time.Millisecond) {
				// Both may fail: file and WAL together need not have all pages.
				_, _ = s.capture.Step(s.ctx, false)
				_, _ = s.capture.Checkpoint(s.ctx, sqlite.Truncate, sqlite.Budget{})
			}
			output(t, "sh", "-c", `rm -f "$0-wal" "$0-shm"`, s.path)
			s.wantCopy(backup)
		})
	}
}

// beforeTheCopy makes a database that is captured, with commits in its WAL, and an older copy of it. With stood, we
// stand back from the application.
func (s *scene) beforeTheCopy(stood bool) (backup string, a *app) {
	s.t.Helper()
	a = startApp(s.t, s.path)
	a.do("schema()")
	a.do("commit(40, 5, 3000)")
	backup = filepath.Join(filepath.Dir(s.path), "backup.db")
	output(s.t, "sqlite3", s.path, ".backup '"+backup+"'")
	a.do("commit(40, 5, 3000)")
	s.open()
	s.settle()
	for start := time.Now(); stood && !s.capture.hold.stood; time.Sleep(50 * time.Millisecond) {
		s.step(false)
		if time.Since(start) > 30*time.Second {
			s.t.Fatal("we do not stand back from an application that stays")
		}
	}
	a.do("commit(40, 5, 3000)")
	s.settle()
	return backup, a
}

// wantCopy demands that the copy that was put in place is found as it is, and captured.
func (s *scene) wantCopy(backup string) {
	s.t.Helper()
	for start := time.Now(); time.Since(start) < time.Second; time.Sleep(20 * time.Millisecond) {
		if _, err := s.capture.Step(s.ctx, true); err != nil {
			s.t.Log(err)
		}
	}
	if out, err := exec.Command("cmp", s.path, backup).CombinedOutput(); err != nil {
		s.t.Errorf("D4: the copy that was put in place was written to: %s", out)
	}
	s.checkEqual()
}
