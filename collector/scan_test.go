package collector

import (
	"errors"
	"os"
	"strings"
	"testing"
	"time"
)

func TestSamplerD15ShmDeletedWhileRunning(t *testing.T) {
	t.Parallel()
	path := tempDB(t)
	a := walApp(t, path)
	r, clock := newTestSampler(t, path)
	wantState(t, r, StateUp)
	a.run(insert)
	frames := wantState(t, r, StateUp).WAL.Frames
	if err := os.Remove(path + "-shm"); err != nil {
		t.Fatal(err)
	}
	a.run(insert) // goes on in the unlinked file
	clock.forward(time.Minute)
	s := wantState(t, r, StateUp)
	if s.WAL.CommitsTotal != 2 || s.WAL.Frames <= frames {
		t.Errorf("counted from the WAL: %+v", s.WAL)
	}
	if _, err := os.Stat(path + "-shm"); err == nil {
		t.Error("the wal-index was created by us")
	}
	a.Kill()
	b := startApp(t, path)
	b.run("c = connect()", "c.execute('select * from t').fetchall()")
	clock.forward(time.Second)
	if s = wantState(t, r, StateUp); s.WAL.CommitsTotal != 2 {
		t.Errorf("recovered by the next connection: %+v", s.WAL)
	}
	b.run(insert)
	if s = wantState(t, r, StateUp); s.WAL.CommitsTotal != 3 {
		t.Errorf("after a commit on the new wal-index: %+v", s.WAL)
	}
}

func TestSamplerD24ExclusiveLockingMode(t *testing.T) {
	t.Parallel()
	path := tempDB(t)
	walApp(t, path).run(insert, "c.close()")
	a := startApp(t, path)
	a.run("c = sqlite3.connect(path, isolation_level=None)", "c.execute('pragma locking_mode=exclusive')",
		"c.execute('pragma wal_autocheckpoint=0')", insert)
	if _, err := os.Stat(path + "-shm"); err == nil {
		t.Fatal("no exclusive mode: there is a wal-index")
	}
	r, clock := newTestSampler(t, path)
	look := func() Sample { // for a moment the state may be foreign_wal: the application might be opening or closing
		t.Helper()
		s := r.Sample(t.Context())
		if s.State != StateUp && s.State != StateForeignWAL || !s.WAL.Known {
			t.Fatalf("state %v (%s), WAL known: %v", s.State, s.Err, s.WAL.Known)
		}
		return s
	}
	s := look()
	if !s.WAL.Exclusive || s.WAL.Frames == 0 || s.WAL.LagFrames() != 0 || !s.WAL.LagSince.IsZero() ||
		s.WAL.CommitsTotal != 0 {
		t.Errorf("first look: %+v", s.WAL)
	}
	first := s.WAL.Frames
	for range 7 {
		a.run(insert)
	}
	clock.forward(time.Second)
	s = look()
	if s.WAL.CommitsTotal != 7 || s.WAL.FramesWrittenTotal != uint64(s.WAL.Frames-first) ||
		!s.WAL.LastWrite.Equal(clock.now) {
		t.Errorf("after seven commits: %+v", s.WAL)
	}
	a.run("c.execute('pragma wal_checkpoint(truncate)')", insert)
	clock.forward(time.Second)
	if s = look(); s.WAL.CommitsTotal != 8 || s.WAL.ResetsTotal != 1 {
		t.Errorf("after TRUNCATE and a commit: %+v", s.WAL)
	}
	foreignWAL(t, r, clock)
	a.run("c.execute('pragma locking_mode=normal')", insert, "c.close()", "c = connect()", insert)
	clock.forward(time.Second)
	if s = wantState(t, r, StateUp); s.WAL.Exclusive {
		t.Errorf("back to normal: %+v", s.WAL)
	}
}

// foreignWAL samples until the state is foreign_wal: the application uses another WAL.
func foreignWAL(t *testing.T, r *Sampler, clock *testClock) Sample {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
		clock.forward(time.Second)
		if s := r.Sample(t.Context()); s.State == StateForeignWAL {
			if len(s.Err) < 80 {
				t.Errorf("the message names no cure: %q", s.Err)
			}
			return s
		} else if time.Now().After(deadline) {
			t.Fatalf("state %v (%s), want foreign_wal", s.State, s.Err)
		}
	}
}

// TestSamplerD15ForeignWAL: nothing is reported about a WAL that the application does not use.
func TestSamplerD15ForeignWAL(t *testing.T) {
	t.Parallel()
	path := tempDB(t)
	a := walApp(t, path)
	a.run(insert)
	r, clock := newTestSampler(t, path)
	wantState(t, r, StateUp)
	if err := errors.Join(os.Remove(path+"-shm"), os.Remove(path+"-wal")); err != nil {
		t.Fatal(err)
	}
	a.run(insert)
	if s := foreignWAL(t, r, clock); s.WAL.Known || s.Readers.Active != 0 {
		t.Errorf("%+v", s)
	}
	a.run("c.close()", "c = connect()", insert)
	clock.forward(time.Second)
	wantState(t, r, StateUp)
}

// TestSamplerCountsFromTheFirst: commits between the creation of a wal-index and our first
// sample of it count, if the database was watched before.
func TestSamplerCountsFromTheFirst(t *testing.T) {
	t.Parallel()
	path := tempDB(t)
	r, clock := newTestSampler(t, path)
	wantState(t, r, StateMissing)
	a := walApp(t, path) // one commit: the table
	a.run(insert, insert, insert)
	clock.forward(time.Second)
	if s := wantState(t, r, StateUp); s.WAL.CommitsTotal != 4 {
		t.Errorf("%d commits, want 4", s.WAL.CommitsTotal)
	}
	a.run("c.close()", "c = connect()", insert, insert)
	clock.forward(time.Second)
	if s := wantState(t, r, StateUp); s.WAL.CommitsTotal != 6 {
		t.Errorf("%d commits after the next life began, want 6", s.WAL.CommitsTotal)
	}
}

// exclusiveApp starts an application that is in EXCLUSIVE locking mode from its first
// access on, so that there is no -shm.
func exclusiveApp(t *testing.T, path string) *app {
	t.Helper()
	walApp(t, path).run("c.close()")
	a := startApp(t, path)
	a.run("c = sqlite3.connect(path, isolation_level=None)", "c.execute('pragma locking_mode=exclusive')",
		"c.execute('pragma wal_autocheckpoint=0')", "c.execute('pragma synchronous=off')", insert)
	return a
}

func TestSamplerScansALongWALInParts(t *testing.T) {
	t.Parallel()
	path := tempDB(t)
	a := exclusiveApp(t, path)
	a.run("c.execute('begin')", "for i in range(3000): c.execute('insert into t values(randomblob(4000))')",
		"c.execute('commit')")
	r, clock := newTestSampler(t, path)
	if s := wantState(t, r, StateUnreadable); !strings.Contains(s.Err, "counted") {
		t.Errorf("first look at 12 MB: %s", s.Err)
	}
	s := wantState(t, r, StateUp)
	if s.WAL.Frames < 3000 || s.WAL.CommitsTotal != 0 {
		t.Errorf("counted to the end: %+v", s.WAL)
	}
	// Once the end was reached, a burst longer than one sample reads does not change the state.
	frames := s.WAL.Frames
	a.run("c.execute('begin')", "for i in range(3000): c.execute('insert into t values(randomblob(4000))')",
		"c.execute('commit')", insert)
	for range 3 {
		clock.forward(time.Second)
		s = wantState(t, r, StateUp)
	}
	if s.WAL.CommitsTotal != 2 || s.WAL.Frames < frames+3000 {
		t.Errorf("after the burst: %+v", s.WAL)
	}
}

func TestSamplerD12SpilledRollbackIsNotCounted(t *testing.T) {
	t.Parallel()
	path := tempDB(t)
	a := exclusiveApp(t, path)
	r, clock := newTestSampler(t, path)
	before := wantState(t, r, StateUp).WAL
	for range 3 {
		a.run("c.execute('pragma cache_size=5')", "c.execute('begin')",
			"for i in range(200): c.execute('insert into t values(randomblob(3000))')")
		clock.forward(time.Second)
		s := wantState(t, r, StateUp)
		if s.WAL.SizeBytes <= before.SizeBytes {
			t.Fatal("nothing spilled: this test shows nothing")
		}
		if s.WAL.CommitsTotal != before.CommitsTotal || s.WAL.Frames != before.Frames {
			t.Errorf("frames of an open transaction were counted: %+v", s.WAL)
		}
		a.run("c.execute('rollback')", insert)
		clock.forward(time.Second)
		s = wantState(t, r, StateUp)
		if s.WAL.CommitsTotal != before.CommitsTotal+1 || s.WAL.Frames <= before.Frames || s.WAL.Frames > before.Frames+3 {
			t.Errorf("after the rollback and a commit: %+v, before %+v", s.WAL, before)
		}
		before = s.WAL
	}
}
