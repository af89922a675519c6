//go:build linux

package dirwatch

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// counted watches names of dir and counts the notifications.
func counted(t *testing.T, w *Watcher, dir string, names ...string) (told *atomic.Int64, stop func()) {
	t.Helper()
	told = &atomic.Int64{}
	stop, err := w.Watch(dir, names, func() { told.Add(1) })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(stop)
	return told, stop
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("never: %s", what)
		}
	}
}

func write(t *testing.T, path string) {
	t.Helper()
	if err := os.WriteFile(path, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
}

func do(t *testing.T, errs ...error) {
	t.Helper()
	for _, err := range errs {
		if err != nil {
			t.Fatal(err)
		}
	}
}

// Every change after which a name is another file, or none, is notified; other changes are not.
func TestWatch(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(t *testing.T, dir string){
		"removed":    func(t *testing.T, dir string) { do(t, os.Remove(filepath.Join(dir, "app.db-wal"))) },
		"moved away": func(t *testing.T, dir string) { do(t, os.Rename(dir+"/app.db", dir+"/old.db")) },
		"moved out":  func(t *testing.T, dir string) { do(t, os.Rename(dir+"/app.db", t.TempDir()+"/app.db")) },
		"moved over": func(t *testing.T, dir string) {
			write(t, dir+"/new.db")
			do(t, os.Rename(dir+"/new.db", dir+"/app.db"))
		},
		"moved in": func(t *testing.T, dir string) {
			from := t.TempDir() + "/x"
			write(t, from)
			do(t, os.Rename(from, dir+"/app.db-shm"))
		},
		"directory moved":   func(t *testing.T, dir string) { do(t, os.Rename(dir, dir+".old")) },
		"directory removed": func(t *testing.T, dir string) { do(t, os.RemoveAll(dir)) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := filepath.Join(t.TempDir(), "data")
			do(t, os.Mkdir(dir, 0o700))
			write(t, dir+"/app.db")
			write(t, dir+"/app.db-wal")
			w := &Watcher{}
			told, _ := counted(t, w, dir, "app.db", "app.db-wal", "app.db-shm")
			other, _ := counted(t, w, dir, "other.db")
			// What applications do all the time is not notified.
			write(t, dir+"/app.db-shm")
			write(t, dir+"/app.db")
			write(t, dir+"/app.db-journal")
			do(t, os.Remove(dir+"/app.db-journal"), os.Remove(dir+"/app.db-shm"))
			eventually(t, "the removal of one of the names is told", func() bool { return told.Load() == 1 })
			change(t, dir)
			eventually(t, "the change is told", func() bool { return told.Load() > 1 })
			if strings.HasPrefix(name, "directory") { // its own removal comes after that of its files
				eventually(t, "whoever wants another name is told too", func() bool { return other.Load() > 0 })
			} else if got := other.Load(); got > 0 {
				t.Errorf("who wants another name was told %d times", got)
			}
		})
	}
}

// There is one inotify instance, whatever is watched, and none if nothing is.
func TestOneInstance(t *testing.T) {
	w, dir := &Watcher{}, t.TempDir()
	instances := func() (n int) {
		fds, err := os.ReadDir("/proc/self/fd")
		do(t, err)
		for _, fd := range fds {
			if to, err := os.Readlink("/proc/self/fd/" + fd.Name()); err == nil && to == "anon_inode:inotify" {
				n++
			}
		}
		return n
	}
	before := instances()
	var stops []func()
	told := make([]*atomic.Int64, 300)
	for i := range told {
		sub := fmt.Sprintf("%s/%d", dir, i/100)
		do(t, os.MkdirAll(sub, 0o700))
		var stop func()
		told[i], stop = counted(t, w, sub, fmt.Sprint(i))
		write(t, filepath.Join(sub, fmt.Sprint(i)))
		stops = append(stops, stop)
	}
	if got := instances() - before; got != 1 {
		t.Errorf("%d inotify instances for 300 names, want 1", got)
	}
	if got := len(w.open.dirs); got != 3 {
		t.Errorf("%d watches for 3 directories", got)
	}
	stops[7]()
	stops[7]() // stopping twice does no harm
	for i := range told {
		do(t, os.Remove(fmt.Sprintf("%s/%d/%d", dir, i/100, i)))
	}
	eventually(t, "all are told", func() bool {
		n := int64(0)
		for _, told := range told {
			n += min(1, told.Load())
		}
		return n == 299
	})
	for _, stop := range stops {
		stop()
	}
	if got := instances() - before; got != 0 || w.open != nil {
		t.Errorf("%d inotify instances when nothing is watched any more", got)
	}
	again, _ := counted(t, w, dir+"/0", "5")
	write(t, dir+"/0/5")
	do(t, os.Remove(dir+"/0/5"))
	eventually(t, "watched anew", func() bool { return again.Load() == 1 })
}

// Watching a directory that was recreated works.
func TestDirectoryMadeAnew(t *testing.T) {
	t.Parallel()
	w, dir := &Watcher{}, filepath.Join(t.TempDir(), "data")
	do(t, os.Mkdir(dir, 0o700))
	first, stop := counted(t, w, dir, "app.db")
	do(t, os.Remove(dir))
	eventually(t, "its end is told", func() bool { return first.Load() > 0 })
	do(t, os.Mkdir(dir, 0o700))
	second, _ := counted(t, w, dir, "app.db")
	stop()
	write(t, dir+"/app.db")
	do(t, os.Remove(dir+"/app.db"))
	eventually(t, "a removal is told", func() bool { return second.Load() > 0 })
}

// If more happened than the kernel keeps, everybody is notified, because nobody knows what it
// was.
func TestOverflow(t *testing.T) {
	t.Parallel()
	w, in := &Watcher{}, &instance{dirs: map[int32]directory{}}
	a, b := &want{}, &want{}
	in.dirs[1], in.dirs[2] = directory{"a": {a}}, directory{"b": {b}, "c": {b}}
	overflow := make([]byte, syscall.SizeofInotifyEvent)
	copy(overflow, []byte{0xff, 0xff, 0xff, 0xff})
	overflow[5] = syscall.IN_Q_OVERFLOW >> 8
	if got := w.wanted(in, overflow); len(got) != 2 {
		t.Errorf("%d are told, want 2", len(got))
	}
}

// If others create and remove files in a directory all the time, the process wakes up now and
// then, not for each of them; a watched name is not lost among them.
func TestNoisyDirectory(t *testing.T) {
	w, dir := &Watcher{}, t.TempDir()
	told, _ := counted(t, w, dir, "app.db")
	write(t, dir+"/app.db")
	before := reads(t)
	const files = 20_000
	for i := range files {
		name := fmt.Sprintf("%s/journal-%d", dir, i%2)
		write(t, name)
		do(t, os.Remove(name))
	}
	if n := reads(t) - before; n > files/4 {
		t.Errorf("%d reads for %d files: each was looked at by itself", n, files)
	} else {
		t.Logf("%d reads for %d files", n, files)
	}
	do(t, os.Remove(dir+"/app.db"))
	eventually(t, "what is wanted is told", func() bool { return told.Load() == 1 })
}

// reads returns how often this process has called read.
func reads(t *testing.T) (n int) {
	t.Helper()
	io, err := os.ReadFile("/proc/self/io")
	do(t, err)
	_, after, _ := strings.Cut(string(io), "syscr: ")
	_, err = fmt.Sscan(after, &n)
	do(t, err)
	return n
}

func TestNoDirectory(t *testing.T) {
	t.Parallel()
	w := &Watcher{}
	if _, err := w.Watch(t.TempDir()+"/none", []string{"app.db"}, nil); err == nil || w.open != nil {
		t.Errorf("a directory that does not exist is watched: %v", err)
	}
}
