package capture

import (
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"testing"
	"time"

	"github.com/superfly/ltx"

	"github.com/sqlwatch/sqlwatch/internal/dbfile"
	"github.com/sqlwatch/sqlwatch/replicator/spool"
)

// A record of another version is refused and left alone (P11).
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

// A page by which the database grew and that is not in the WAL proves that
// something was missed (D9); the lock page proves nothing (D17).
func TestGrowth(t *testing.T) {
	t.Parallel()
	const size = 65536
	lock := ltx.LockPgno(size)
	put := func(pages ...uint32) *batch {
		b := &batch{walHeader: dbfile.WALHeader{PageSize: size}, lowest: pages[0]}
		for _, page := range pages[1:] {
			b.put(page, page, make([]byte, size))
		}
		return b
	}
	for _, c := range []struct {
		name     string
		b        *batch // the first number is the smallest size meanwhile
		from, to uint32
		missing  bool
	}{
		{"all there", put(4, 1, 5, 6), 4, 6, false},
		{"D9 one missing", put(4, 1, 5, 7), 4, 7, true},
		{"D9 shrunk and grown again", put(3, 1, 5, 6), 6, 6, true},
		{"D17 across the lock page", put(lock-1, 1, lock+1), lock - 1, lock + 1, false},
		{"smaller", put(2, 1), 4, 2, false},
	} {
		err := c.b.grew(c.from, c.to)
		var lost *discontinuityError
		if got := errors.As(err, &lost) && lost.reason == ReasonGrowth; got != c.missing {
			t.Errorf("%s: %v, want a discontinuity: %v", c.name, err, c.missing)
		}
	}
}

// What a batch keeps of its frames does not depend on whether they fit in memory.
func TestBatchSpill(t *testing.T) {
	t.Parallel()
	const size, frames = 65536, 2000
	rnd := rand.New(rand.NewPCG(5, 6))
	b := &batch{walHeader: dbfile.WALHeader{PageSize: size}}
	wal := make(sparseWAL)
	newest := make(map[uint32]uint32)
	data := make([]byte, size)
	for frame := uint32(1); frame <= frames; frame++ {
		page := 1 + uint32(rnd.IntN(700))
		for i := 0; i < size; i += 512 {
			data[i] = byte(rnd.Uint32())
		}
		wal[b.walHeader.FrameOffset(frame)+dbfile.FrameHeaderSize] = string(data)
		newest[page] = frame
		b.put(page, frame, data)
	}
	if !b.spilled || len(b.data) != 0 {
		t.Fatalf("%d frames of %d bytes: spilled %v, %d bytes kept", frames, size, b.spilled, len(b.data))
	}
	last, n := uint32(0), 0
	for page, v := range b.pages(wal, 650) {
		if page <= last || page > 650 {
			t.Fatalf("page %d after %d", page, last)
		}
		if v.err != nil || v.frame != newest[page] || v.sum != ltx.ChecksumPage(page, v.data) {
			t.Fatalf("page %d: frame %d, want %d; checksum right: %v; %v", page, v.frame, newest[page], v.sum == ltx.ChecksumPage(page, v.data), v.err)
		}
		last, n = page, n+1
		delete(newest, page)
	}
	for page := range newest {
		if page <= 650 {
			t.Errorf("page %d was not yielded", page)
		}
	}
}

// sparseWAL is pages by their offset.
type sparseWAL map[int64]string

func (w sparseWAL) ReadAt(p []byte, off int64) (int, error) { return copy(p, w[off]), nil }

// A database beyond 1 GiB: the lock page is in no segment and no snapshot.
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
	a.do("commit(100, 50)") // grows across it
	s.step(true)
	a.do("commit(100, 200, 9000)")
	s.checkEqual()
	s.wantLost(nil)
	if lock := ltx.LockPgno(65536); s.capture.state.Position().Pages <= lock || s.copies.sums[lock] != 0 {
		t.Errorf("D17: %d pages, lock page %d captured: %v", s.capture.state.Position().Pages, lock, s.copies.sums[lock] != 0)
	}
}

// Segments' times rise whatever the clock does.
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
