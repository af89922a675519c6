package sqlite

import "testing"

// BeginRead avoids READ1, which every other transaction tries first, unless READ1 already marks
// the current state.
func TestBeginReadShunsRead1(t *testing.T) {
	t.Parallel()
	path, a := newApp(t)
	holdOpen(t, path+"-shm")
	c := mustOpen(t, path)
	for i := range 3 {
		a.run(t, "INSERT INTO t(v) VALUES (randomblob(100))") // nobody has a mark at this commit
		if err := c.BeginRead(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := c.ReadMark(); got == 1 {
			t.Errorf("read %d took READ1 while others were free", i)
		}
		if err := c.EndRead(); err != nil {
			t.Fatal(err)
		}
	}
}

// A long transaction holds a read mark in every state: when the WAL is backfilled, when the WAL
// is empty, and when frames are not backfilled yet.
func TestBeginMarked_D71_neverRead0(t *testing.T) {
	t.Parallel()
	path, a := newApp(t)
	holdOpen(t, path+"-shm")
	c := mustOpen(t, path)
	for _, state := range []struct{ name, sql string }{
		{"frames wait", "INSERT INTO t(v) VALUES (randomblob(100))"},
		{"level", "PRAGMA wal_checkpoint(PASSIVE)"},
		{"empty", "PRAGMA wal_checkpoint(TRUNCATE)"},
	} {
		a.run(t, state.sql)
		if err := c.BeginMarked(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := c.ReadMark(); got == 0 {
			t.Errorf("%s: a lasting transaction took READ0", state.name)
		}
		a.run(t, "UPDATE t SET v = randomblob(100)") // no lock is in its way
		if err := c.EndRead(); err != nil {
			t.Fatal(err)
		}
	}
	a.run(t, "PRAGMA wal_checkpoint(PASSIVE)")
	if err := c.BeginRead(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := c.ReadMark(); got != 0 {
		t.Errorf("a short transaction on a level WAL took READ%d", got)
	}
}
