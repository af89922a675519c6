package sqlite

import "testing"

// Our read mark keeps off READ1, which every other transaction tries first, but
// takes it where it is the mark of this very state.
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
