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
