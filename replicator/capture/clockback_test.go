package capture

import (
	"os"
	"testing"
	"time"

	"github.com/sqlwatch/sqlwatch/replicator/capture/tail"
)

// TestClockSetBack_P8: the clock is set back just after an application's last close has removed the WAL. What the next
// one writes then looks older than the removal. Here it is the removed WAL whose time is later: chmod changes it.
func TestClockSetBack_P8(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	_, a := s.beforeTheCopy(true)
	wal, err := os.Open(s.path + "-wal")
	if err != nil {
		t.Fatal(err)
	}
	defer wal.Close()
	a.quit()
	// A page that the removed WAL does not end with: its content does not tell.
	output(t, "sqlite3", s.path, "update t set v=x'00' where id=1")
	time.Sleep(30 * time.Millisecond) // longer than the resolution of file times
	if err := wal.Chmod(0o600); err != nil {
		t.Fatal(err)
	}
	s.checkEqual()
	if n := s.capture.Discontinuities()[string(tail.ReasonWALReset)]; n != 1 {
		t.Errorf("%d comparisons because the WAL was removed, want 1", n)
	}
}

// TestCopiedOver_P8_clockSetBack: after an application was killed and its side files were removed, the clock is set
// back, and a copy is put into its file: the copy looks older than the removal. What the removed WAL holds is not
// written into it.
func TestCopiedOver_P8_clockSetBack(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		stood bool
		then  func(s *scene, a *app)
	}{
		"where its last commit has restarted the WAL": {false, func(s *scene, _ *app) {
			s.steps("the next commit restarts the WAL", func() bool { return s.capture.hold.zero })
		}},
		// The copy has what the checkpoint wrote, so its content does not tell.
		"where it is of the last checkpoint, and we stood back": {true, func(_ *scene, a *app) { a.level() }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newScene(t)
			backup, a := s.beforeTheCopy(tc.stood)
			tc.then(s, a)
			output(t, "sqlite3", s.path, ".backup '"+backup+"'") // of the same size: SQLite writes to none that is too small
			a.do(`db.execute("update t set v=zeroblob(length(v)) where id<30")`)
			wal, err := os.Open(s.path + "-wal")
			if err != nil {
				t.Fatal(err)
			}
			defer wal.Close()
			a.kill()
			s.removeSides("-wal -shm")
			output(t, "cp", backup, s.path)
			time.Sleep(30 * time.Millisecond) // longer than the resolution of file times
			if err := wal.Chmod(0o600); err != nil {
				t.Fatal(err)
			}
			s.wantCopy(backup)
		})
	}
}
