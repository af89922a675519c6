package dbfile

import (
	"errors"
	"testing"
)

// TestStandBack_D73: a sqlwatch that stands back has no lock that SQLite asks for, and another
// sqlwatch sees it.
func TestStandBack_D73(t *testing.T) {
	t.Parallel()
	a, path := newWAL(t, 4096)
	a.do("fill(c, 3)")
	f := mustOpen(t, path)
	a.Kill()
	other := startApp(t, path)
	other.do(`fd = os.open(path + "-shm", os.O_RDWR)`)
	asker := startApp(t, path)
	asker.do(`fd = os.open(path + "-shm", os.O_RDWR)`)
	ask := func(b int) string {
		return asker.do(`p = struct.pack("hhqqi4x", fcntl.F_WRLCK, 0, %d, 1, 0); `+
			`p = fcntl.fcntl(fd, fcntl.F_GETLK, p); `+
			`r = "free" if struct.unpack("hhqqi4x", p)[0] == fcntl.F_UNLCK else "held"`, b)
	}
	held := func(want string) {
		t.Helper()
		got := ask(128) + " " + ask(129)
		if got != want {
			t.Errorf("DMS and the byte behind it: %s, want %s", got, want)
		}
	}
	held("free free")
	if err := StandBack(f); err != nil {
		t.Fatal(err)
	}
	held("free held")
	if err := Rejoin(f); err != nil {
		t.Fatal(err)
	}
	held("held free")
	if err := StandBack(f); err != nil {
		t.Fatal(err)
	}

	other.do("fcntl.lockf(fd, fcntl.LOCK_SH, 1, 129)")
	if attached, err := f.Others(); err != nil || !attached {
		t.Errorf("another process stands back: attached %v, %v", attached, err)
	}
	if user, err := f.IndexUser(); err != nil || user.Held {
		t.Errorf("another process stands back: the wal-index is used: %v, %v", user.Held, err)
	}
	other.do("fcntl.lockf(fd, fcntl.LOCK_EX, 1, 128)")
	if err := Rejoin(f); !errors.Is(err, ErrUnclear) {
		t.Errorf("somebody is opening the database: %v, want %v", err, ErrUnclear)
	}
	other.do("os.ftruncate(fd, 3)")
	other.do("fcntl.lockf(fd, fcntl.LOCK_UN, 0, 0)")
	if err := Rejoin(f); !errors.Is(err, ErrUninitialised) {
		t.Errorf("somebody makes the wal-index anew: %v, want %v", err, ErrUninitialised)
	}
	held("free held")
}
