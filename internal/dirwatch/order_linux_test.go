package dirwatch

import (
	"os"
	"testing"
)

// Within one tick of the file times, only the order of the events tells whether a database was
// written to after its WAL was removed.
func TestOrder(t *testing.T) {
	t.Parallel()
	const database, wal = "/app.db", "/app.db-wal"
	modify := func(t *testing.T, dir string) {
		file, err := os.OpenFile(dir+database, os.O_WRONLY, 0)
		do(t, err)
		_, err = file.WriteAt([]byte("x"), 0)
		do(t, err)
		do(t, file.Close())
	}
	remove := func(t *testing.T, dir string) { do(t, os.Remove(dir+wal)) }
	make := func(t *testing.T, dir string) { write(t, dir+wal) }
	for name, tc := range map[string]struct {
		happens []func(*testing.T, string)
		want    bool // untouched
		touched bool
	}{
		"nothing":                 {nil, false, false},
		"written":                 {[]func(*testing.T, string){modify}, false, false},
		"removed":                 {[]func(*testing.T, string){remove}, true, false},
		"written, then removed":   {[]func(*testing.T, string){modify, modify, remove}, true, false},
		"removed, then written":   {[]func(*testing.T, string){modify, remove, modify}, false, true},
		"another life that wrote": {[]func(*testing.T, string){remove, make, modify, remove}, false, true},
		"another life":            {[]func(*testing.T, string){remove, make, remove}, true, false},
		"another file moved there": {[]func(*testing.T, string){remove, func(t *testing.T, dir string) {
			write(t, dir+"/other")
			do(t, os.Rename(dir+"/other", dir+wal))
		}}, false, true},
		"the database replaced": {[]func(*testing.T, string){remove, func(t *testing.T, dir string) {
			do(t, os.Remove(dir+database))
		}}, false, true},
		"cut": {[]func(*testing.T, string){remove, func(t *testing.T, dir string) {
			do(t, os.Truncate(dir+database, 0))
		}}, false, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir, order := t.TempDir(), &Order{}
			write(t, dir+database)
			write(t, dir+wal)
			write(t, dir+"/beside.db-journal")
			f, err := order.Follow(dir+database, "app.db-wal")
			do(t, err)
			beside, err := order.Follow(dir+"/beside.db-journal", "none")
			do(t, err)
			do(t, os.Remove(dir+"/beside.db-journal")) // files of others in that directory
			for _, happen := range tc.happens {
				happen(t, dir)
			}
			if got := f.Untouched(); got != tc.want {
				t.Errorf("untouched since its WAL was removed: %v, want %v", got, tc.want)
			}
			if got := f.Touched(); got != tc.touched {
				t.Errorf("touched since its WAL was removed: %v, want %v", got, tc.touched)
			}
			if f.Stop(); order.open == nil {
				t.Error("the other one is followed no longer")
			}
			if beside.Stop(); order.open != nil {
				t.Error("an inotify instance stays open")
			}
		})
	}
}

// After an overflow of the kernel's queue the order is not known, but what comes later is.
func TestOrderOverflow(t *testing.T) {
	t.Parallel()
	dir, order := t.TempDir(), &Order{}
	write(t, dir+"/app.db")
	write(t, dir+"/app.db-wal")
	f, err := order.Follow(dir+"/app.db", "app.db-wal")
	do(t, err)
	defer f.Stop()
	overflow := func() {
		write(t, dir+"/a")
		for range 4_500 { // with two events each, more than the kernel keeps
			do(t, os.Rename(dir+"/a", dir+"/b"), os.Rename(dir+"/b", dir+"/a"))
		}
	}
	overflow()
	if f.Untouched() || f.Touched() {
		t.Error("nothing was removed yet")
	}
	do(t, os.Remove(dir+"/app.db-wal"))
	if f.Untouched() || f.Touched() {
		t.Errorf("events were lost before the removal: untouched %v, touched %v", f.Untouched(), f.Touched())
	}
	overflow()
	if !f.Touched() {
		t.Error("events were lost after the removal, and nothing is said to have happened")
	}
}

func TestOrderOfNothing(t *testing.T) {
	t.Parallel()
	order := &Order{}
	if _, err := order.Follow(t.TempDir()+"/none", "none-wal"); err == nil || order.open != nil {
		t.Errorf("a file that does not exist is followed: %v", err)
	}
}
