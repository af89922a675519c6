package capture

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// lockedByUs reports whether this process has the database for itself.
func (s *scene) lockedByUs() bool {
	s.t.Helper()
	locks, err := os.ReadFile("/proc/locks")
	if err != nil {
		s.t.Fatal(err)
	}
	st, err := s.files.Stat()
	if err != nil {
		s.t.Fatal(err)
	}
	for line := range strings.Lines(string(locks)) {
		// "1: POSIX ADVISORY WRITE PID MAJOR:MINOR:INODE FIRST LAST", where LAST is that of SQLite's shared range
		if f := strings.Fields(line); len(f) == 8 && f[3] == "WRITE" && f[4] == fmt.Sprint(os.Getpid()) &&
			strings.HasSuffix(f[5], fmt.Sprintf(":%d", st.DatabaseInode)) && f[7] == "1073742335" {
			return true
		}
	}
	return false
}

// TestRemovedThenReopened_D15: the side files of an application are removed, it ends, and its next life begins while
// sqlwatch waits for a copy that may be about to be put in place. Nothing that the removed WAL held is missing.
func TestRemovedThenReopened_D15(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	a, b := startApp(t, s.path), startApp(t, filepath.Join(t.TempDir(), "other.db")) // b is the next life
	a.do("schema()")
	a.do("commit(50, 3, 900)")
	a.do(`db.execute("pragma wal_checkpoint(truncate)").fetchone()`)
	s.open()
	s.settle()
	a.do("commit(50, 3, 900)")
	s.step(true)
	want := a.do(`db.execute("select count(*) from t").fetchone()[0]`)
	s.removeSides("-wal -shm")
	a.quit()
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.capture.Step(s.ctx, false)
	}()
	for waiting := true; waiting && !s.lockedByUs(); {
		select {
		case <-done:
			waiting = false
		case <-time.After(100 * time.Microsecond):
		}
	}
	b.do(fmt.Sprintf("exec('path = %q; connect()', globals())", s.path))
	b.do(`db.execute("insert into t(k) values(1)")`)
	if got := b.do(`db.execute("select count(*)-1 from t").fetchone()[0]`); got != want {
		t.Errorf("D15: the application's next life finds %s of %s rows", got, want)
	}
	<-done
	b.wantSound()
	b.quit()
	s.captured()
	s.checkEqual()
}
