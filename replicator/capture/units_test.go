package capture

import (
	"context"
	"errors"
	"os"
	"testing"
	"time"

	"github.com/superfly/ltx"

	"github.com/sqlwatch/sqlwatch/internal/dbfile"
	"github.com/sqlwatch/sqlwatch/replicator/spool"
)

// TestRecordVersion: a record of another format version is refused and left unchanged (P11).
func TestRecordVersion(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	a := startApp(t, s.path)
	a.do("schema()")
	s.open()
	s.settle()
	path := lastRecord(s)
	s.close()
	b, err := os.ReadFile("testdata/record-version-99.json")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	files, err := dbfile.Open(s.path)
	if err != nil {
		t.Fatal(err)
	}
	defer files.Close()
	s.options.Files = files
	if err := New(s.options).Open(s.ctx); !errors.Is(err, spool.ErrVersion) {
		t.Fatalf("open of a state of version 99: %v, want %v", err, spool.ErrVersion)
	}
	if after, err := os.ReadFile(path); err != nil || string(after) != string(b) {
		t.Errorf("the record was changed: %q, %v", after, err)
	}
}

// TestLockPage: in a database larger than 1 GiB, the lock page is in no segment and no snapshot.
func TestLockPage(t *testing.T) {
	if os.Getenv(envRounds) == "" {
		t.Skip("writes 1.1 GB: set " + envRounds)
	}
	s := newScene(t)
	s.ctx = context.Background()
	output(t, "python3", "-c", `
import sqlite3, sys
db = sqlite3.connect(sys.argv[1], isolation_level=None)
db.execute("pragma page_size=65536"); db.execute("pragma journal_mode=off"); db.execute("pragma synchronous=off")
db.execute("create table z(b)"); db.execute("insert into z values(zeroblob(540000000)), (zeroblob(540000000))")
db.execute("pragma journal_mode=wal")
`, s.path)
	a := startApp(t, s.path)
	a.do("schema()")
	s.open()
	a.do("commit(100, 50)") // grows the database beyond the lock page
	s.step(true)
	a.do("commit(100, 200, 9000)")
	s.checkEqual()
	s.wantLost(nil)
	if lock := ltx.LockPgno(65536); s.capture.state.Position().Pages <= lock || s.copies.sums[lock] != 0 {
		t.Errorf("D17: %d pages, lock page %d captured: %v", s.capture.state.Position().Pages, lock, s.copies.sums[lock] != 0)
	}
}

// TestClockGoesBack: the timestamps of segments increase whatever the clock does.
func TestClockGoesBack(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	now := time.Now()
	s.options.Clock = func() time.Time { return now }
	a := startApp(t, s.path)
	a.do("schema()")
	s.open()
	for _, jump := range []time.Duration{0, -time.Hour, time.Microsecond, 24 * time.Hour, -48 * time.Hour, 0} {
		now = now.Add(jump)
		a.do("commit(3)")
		s.step(true)
	}
	s.close()
	s.open()
	a.do("commit(3)")
	s.step(true)
	list := s.capture.Spool().List()
	if len(list) != 7 {
		t.Fatalf("P8: %d segments, want 7", len(list))
	}
	for i := 1; i < len(list); i++ {
		if !list[i].Timestamp.After(list[i-1].Timestamp) {
			t.Errorf("P8: segment %s at %v, not after %v", list[i].MaxTXID, list[i].Timestamp, list[i-1].Timestamp)
		}
	}
	s.checkEqual()
}
