package collector

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/sqlwatch/sqlwatch/internal/dbfile"
	"golang.org/x/sys/unix"
)

func TestSamplerCountsWhatTheApplicationDid(t *testing.T) {
	t.Parallel()
	path := tempDB(t)
	a := walApp(t, path)
	r, clock := newTestSampler(t, path)
	first := wantState(t, r, StateUp)
	if first.WAL.CommitsTotal != 0 || !first.WAL.LastWrite.IsZero() {
		t.Errorf("commits from before the watch were counted: %+v", first.WAL)
	}
	if first.Database.JournalMode != "wal" || first.Database.PageSize != 4096 || first.Database.Pages != 2 {
		t.Errorf("database: %+v", first.Database)
	}
	if want := a.run("out = sqlite3.sqlite_version"); first.Database.EngineVersion != want {
		t.Errorf("engine %q, application has %q", first.Database.EngineVersion, want)
	}
	if !first.Disk.Known || first.Disk.FSType == "" || first.Disk.FreeBytes == 0 ||
		first.Disk.SizeBytes < first.Disk.FreeBytes {
		t.Errorf("disk: %+v", first.Disk)
	}

	for range 10 {
		a.run(insert)
	}
	clock.forward(time.Minute)
	s := wantState(t, r, StateUp)
	if s.WAL.CommitsTotal != 10 || s.WAL.FramesWrittenTotal != uint64(s.WAL.Frames-first.WAL.Frames) ||
		!s.WAL.LastWrite.Equal(clock.now) {
		t.Errorf("after ten commits: %+v", s.WAL)
	}
	// The first frames were seen a minute ago and are still not in the database.
	if !s.WAL.LagSince.Equal(clock.now.Add(-time.Minute)) || s.WAL.LagFrames() != s.WAL.Frames {
		t.Errorf("lag since %v, %d frames", s.WAL.LagSince, s.WAL.LagFrames())
	}

	a.run("c.execute('pragma wal_checkpoint(passive)')")
	clock.forward(time.Second)
	s = wantState(t, r, StateUp)
	if !s.WAL.LagSince.IsZero() || s.WAL.LagFrames() != 0 || !s.WAL.LastCompleteCheckpoint.Equal(clock.now) {
		t.Errorf("after a complete checkpoint: %+v", s.WAL)
	}

	a.run("c.execute('pragma wal_checkpoint(truncate)')", insert)
	clock.forward(time.Second)
	s = wantState(t, r, StateUp)
	if s.WAL.ResetsTotal != 1 || s.WAL.CommitsTotal != 11 || s.WAL.Frames == 0 || !s.WAL.Restarted.Equal(clock.now) {
		t.Errorf("after TRUNCATE and a commit: %+v", s.WAL)
	}
}

func TestSamplerPollKeepsTotalsBetweenSamples(t *testing.T) {
	t.Parallel()
	path := tempDB(t)
	a := walApp(t, path)
	r, clock := newTestSampler(t, path)
	r.Poll() // before the first sample: nothing to do
	first := wantState(t, r, StateUp)
	for range 5 { // five WAL generations, which one sample at the end could not tell apart
		a.run(insert, insert, "c.execute('pragma wal_checkpoint(truncate)')")
		r.Poll()
	}
	a.run("c.execute('begin immediate')")
	for range 100 {
		clock.forward(10 * time.Millisecond)
		r.Poll()
	}
	s := wantState(t, r, StateUp)
	if s.WAL.CommitsTotal != 10 || s.WAL.ResetsTotal != 5 || s.WAL.FramesWrittenTotal < 10 {
		t.Errorf("totals: %+v", s.WAL)
	}
	if !s.Locks.WriteHeld || s.Locks.WriteRatio < 0.9 || first.Locks.WriteRatio != 0 {
		t.Errorf("D26 write lock held throughout: %+v", s.Locks)
	}
	if s.Locks.CheckpointRatio != 0 {
		t.Errorf("checkpoint lock never held: %+v", s.Locks)
	}
}

func TestSamplerFindsWhoPins(t *testing.T) {
	t.Parallel()
	path := tempDB(t)
	writer := walApp(t, path)
	writer.run(insert)
	reader := startApp(t, path)
	reader.run("c = connect()", "c.execute('begin')", "c.execute('select count(*) from t').fetchone()")
	r, clock := newTestSampler(t, path)

	s := wantState(t, r, StateUp)
	if s.Readers.Active != 1 || s.Readers.OldestFrame != s.WAL.Frames || !s.Readers.PinnedSince.IsZero() {
		t.Errorf("a reader at the head pins nothing: %+v", s.Readers)
	}
	mark := s.WAL.Frames
	writer.run(insert)
	clock.forward(time.Second)
	since := clock.now
	wantState(t, r, StateUp)
	clock.forward(3 * time.Hour)
	s = wantState(t, r, StateUp)
	want := Readers{Active: 1, OldestFrame: mark, PinnedSince: since, OldestPID: reader.PID,
		OldestCommand: s.Readers.OldestCommand, Share: 1}
	if diff := cmp.Diff(want, s.Readers); diff != "" {
		t.Errorf("D25 a reader pins for hours:\n%s", diff)
	}
	if !strings.HasPrefix(s.Readers.OldestCommand, "python") {
		t.Errorf("command %q, want python's", s.Readers.OldestCommand)
	}
	if s.Database.Processes != 2 && s.Database.Processes != 1 {
		t.Errorf("%d processes, two are attached", s.Database.Processes)
	}

	// The reader moves on: its new mark has not been held for hours.
	reader.run("c.execute('commit')", "c.execute('begin')", "c.execute('select count(*) from t').fetchone()")
	writer.run(insert)
	clock.forward(time.Second)
	if s = wantState(t, r, StateUp); !s.Readers.PinnedSince.Equal(clock.now) {
		t.Errorf("pinned since %v, the mark moved at %v", s.Readers.PinnedSince, clock.now)
	}
	reader.run("c.execute('commit')")
	if s = wantState(t, r, StateUp); s.Readers != (Readers{Share: s.Readers.Share}) || s.Readers.Share >= 1 {
		t.Errorf("nobody reads: %+v", s.Readers)
	}
}

func TestSamplerTellsOfNewFiles(t *testing.T) {
	t.Parallel()
	path := tempDB(t)
	a := walApp(t, path)
	r, clock := newTestSampler(t, path)
	var got []dbfile.Stat
	r.opts.OnFiles = func(st dbfile.Stat) { got = append(got, st) }
	wantState(t, r, StateUp)
	a.run(insert)
	wantState(t, r, StateUp)
	if len(got) != 1 || got[0].ShmInode == 0 {
		t.Fatalf("one pair of files was opened, reported %+v", got)
	}
	a.run("c.close()")
	clock.forward(time.Second)
	wantState(t, r, StateUp)
	if len(got) != 2 || got[1].ShmInode != 0 || got[1].DatabaseInode != got[0].DatabaseInode {
		t.Errorf("the wal-index was removed, reported %+v", got)
	}
}

func TestSamplerReportsRefusals(t *testing.T) {
	t.Parallel()
	r, _ := newTestSampler(t, tempDB(t))
	r.opts.Refused = func() uint64 { return 42 }
	if s := wantState(t, r, StateMissing); s.Locks.Busy != 42 {
		t.Errorf("busy %d, want 42", s.Locks.Busy)
	}
}

// Others that share the Sampler's files refresh them too, and may be the first to see
// that one was replaced.
func TestSamplerSharesItsFiles(t *testing.T) {
	t.Parallel()
	path := tempDB(t)
	a := walApp(t, path)
	r, clock := newTestSampler(t, path)
	wantState(t, r, StateUp)
	a.run(insert, insert, insert)
	clock.forward(time.Second)
	if s := wantState(t, r, StateUp); s.WAL.CommitsTotal != 3 {
		t.Fatalf("%d commits, want 3", s.WAL.CommitsTotal)
	}
	a.run("c.close()", "c = connect()", insert)
	if c, err := r.Files().Refresh(); err != nil || !c.Shm {
		t.Fatalf("Refresh: %+v, %v", c, err)
	}
	clock.forward(time.Second)
	if s := wantState(t, r, StateUp); s.WAL.CommitsTotal != 4 {
		t.Errorf("%d commits, want 4", s.WAL.CommitsTotal)
	}
}

// Pages that are only in the WAL so far count too, even if nobody writes and the main
// file's older header is read again and again.
func TestSamplerCountsPagesOfTheWAL(t *testing.T) {
	t.Parallel()
	path := tempDB(t)
	a := walApp(t, path)
	r, clock := newTestSampler(t, path)
	wantState(t, r, StateUp)
	a.run("c.execute('insert into t values (zeroblob(100000))')")
	want := uint32(a.run("out = c.execute('pragma page_count').fetchone()[0]").(float64))
	for range 3 {
		clock.forward(2 * time.Second)
		if s := wantState(t, r, StateUp); s.Database.Pages != want || int64(want)*4096 <= s.Database.SizeBytes {
			t.Errorf("%d pages, want %d; the main file has %d bytes", s.Database.Pages, want, s.Database.SizeBytes)
		}
	}
}

// Samples within a second see each commit, and the new sizes too.
func TestSamplerSamplesWithinASecond(t *testing.T) {
	t.Parallel()
	path := tempDB(t)
	a := walApp(t, path)
	r, _ := newTestSampler(t, path)
	before := wantState(t, r, StateUp)
	for i := range 5 {
		a.run(insert)
		s := wantState(t, r, StateUp)
		if want := before.WAL.SizeBytes + int64(i+1)*(4096+24); s.WAL.CommitsTotal != uint64(i+1) || s.WAL.SizeBytes != want {
			t.Errorf("%d commits, WAL of %d bytes, want %d of %d", s.WAL.CommitsTotal, s.WAL.SizeBytes, i+1, want)
		}
	}
	a.run("c.execute('pragma wal_checkpoint(truncate)')")
	if s := wantState(t, r, StateUp); s.WAL.SizeBytes != 0 {
		t.Errorf("the WAL has %d bytes after TRUNCATE", s.WAL.SizeBytes)
	}
}

// The read mark of our own capture is not reported as a reader, and does not hide a reader
// that shares it.
func TestSamplerOwnMarkPinsNothing(t *testing.T) {
	t.Parallel()
	path := tempDB(t)
	writer := walApp(t, path)
	writer.run(insert)
	fd, err := unix.Open(path+"-shm", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) }) // after the Sampler: a close drops all our locks
	r, clock := newTestSampler(t, path)
	for read := int64(123); read < 128; read++ {
		if err := unix.FcntlFlock(uintptr(fd), unix.F_SETLK, &unix.Flock_t{Type: unix.F_RDLCK, Start: read,
			Len: 1}); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 {
		writer.run(insert)
		clock.forward(time.Second)
		if s := wantState(t, r, StateUp); s.Readers != (Readers{Share: s.Readers.Share}) || s.Readers.Share >= 1 {
			t.Errorf("our own marks show as %+v", s.Readers)
		}
	}
	// We hold all the read marks, so a reader cannot move one and shares one of ours.
	reader := startApp(t, path)
	reader.run("c = connect()", "c.execute('begin')", "c.execute('select count(*) from t').fetchone()")
	writer.run(insert)
	clock.forward(time.Second)
	if s := wantState(t, r, StateUp); s.Readers.Active != 1 || s.Readers.OldestPID != reader.PID ||
		!s.Readers.PinnedSince.Equal(clock.now) {
		t.Errorf("a reader beside our own marks: %+v", s.Readers)
	}
}
