package dirwatch

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"
)

// What is asked for of the one file, and of the directory of the other.
const (
	written = unix.IN_MODIFY | unix.IN_MOVE_SELF | unix.IN_DELETE_SELF
	removed = unix.IN_DELETE | unix.IN_MOVED_FROM | unix.IN_MOVED_TO | unix.IN_MOVE_SELF | unix.IN_DELETE_SELF |
		unix.IN_ONLYDIR
)

// queue is one inotify instance, which is read when somebody asks.
type queue struct {
	fd      int
	follows []*Following
}

// Following is what has happened since Follow.
type Following struct {
	order *Order

	file, dir int32  // watch descriptors
	name      string // in the directory
	removed   bool   // the name was
	touched   bool   // and after that something else has happened, or may have
	lost      bool   // events were before that, or something else had happened
}

// Follow begins to watch the file at path and a name beside it. It opens neither of them.
func (o *Order) Follow(path, name string) (*Following, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.open == nil {
		fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
		if err != nil {
			return nil, fmt.Errorf("follow %s: %w", path, os.NewSyscallError("inotify_init1", err))
		}
		o.open = &queue{fd: fd}
	}
	q := o.open
	q.read() // what has happened before is nobody's concern
	dir, err := unix.InotifyAddWatch(q.fd, filepath.Dir(path), removed)
	file := -1
	if err == nil {
		file, err = unix.InotifyAddWatch(q.fd, path, written)
	}
	f := &Following{order: o, file: int32(file), dir: int32(dir), name: name}
	if err != nil {
		o.forget(f)
		return nil, fmt.Errorf("follow %s: %w", path, os.NewSyscallError("inotify_add_watch", err))
	}
	q.follows = append(q.follows, f)
	return f, nil
}

// Untouched reports whether the name was removed since Follow, and nothing was written to the file
// after that, until now. It is false where that is not known, as after a time in which nobody asked
// and more happened than the kernel keeps.
func (f *Following) Untouched() bool { return f.now() && !f.lost && !f.touched }

// Touched reports whether something else has happened since the name was removed, or may have. It is
// false where the removal was not seen. What came before it does not count.
func (f *Following) Touched() bool { return f.now() && f.touched }

// now takes in what has happened until now, and reports whether the name was removed.
func (f *Following) now() bool {
	f.order.mu.Lock()
	defer f.order.mu.Unlock()
	if f.order.open == nil {
		return false
	}
	f.order.open.read()
	return f.removed
}

// Stop ends it.
func (f *Following) Stop() {
	f.order.mu.Lock()
	defer f.order.mu.Unlock()
	f.order.forget(f)
}

// forget ends what nobody else follows. The caller holds mu.
func (o *Order) forget(f *Following) {
	q := o.open
	if q == nil {
		return
	}
	q.follows = slices.DeleteFunc(q.follows, func(other *Following) bool { return other == f })
	for _, watch := range []int32{f.file, f.dir} {
		still := func(other *Following) bool { return other.file == watch || other.dir == watch }
		if watch > 0 && !slices.ContainsFunc(q.follows, still) {
			unix.InotifyRmWatch(q.fd, uint32(watch)) // it fails where the file is gone: then so is the watch
		}
	}
	if len(q.follows) == 0 {
		unix.Close(q.fd)
		o.open = nil
	}
}

// read takes in all that has happened until now. The caller holds the Order's mu.
func (q *queue) read() {
	var buffer [16 << 10]byte
	for {
		n, err := unix.Read(q.fd, buffer[:])
		if err == unix.EINTR {
			continue
		}
		if err == unix.EAGAIN {
			return
		}
		if err != nil || n <= 0 {
			q.lose()
			return
		}
		for e := range events(buffer[:n]) {
			if e.mask&unix.IN_Q_OVERFLOW != 0 {
				q.lose()
			}
			for _, f := range q.follows {
				f.take(e)
			}
		}
	}
}

func (q *queue) lose() {
	for _, f := range q.follows {
		f.lose()
	}
}

func (f *Following) lose() { f.lost, f.touched = true, f.removed }

// take takes in one event.
func (f *Following) take(e event) {
	switch {
	case e.id != f.file && e.id != f.dir:
	case e.mask&all != 0:
		f.lose()
	case e.id == f.file:
		f.touched = f.removed // written to after the removal
	case e.name != f.name:
	case e.mask&unix.IN_DELETE != 0: // the first counts: what came after it and wrote nothing changed nothing
		f.removed = true
	default: // moved away, or another file was moved there
		f.lose()
	}
}
