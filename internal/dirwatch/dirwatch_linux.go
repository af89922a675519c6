package dirwatch

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"iter"
	"maps"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// left is what is asked for: names that go, or are moved, and the directory's own end.
const left = unix.IN_DELETE | unix.IN_MOVED_FROM | unix.IN_MOVED_TO | unix.IN_MOVE_SELF | unix.IN_DELETE_SELF |
	unix.IN_ONLYDIR

// all are the events that say of every name that it may lead elsewhere now.
const all = unix.IN_MOVE_SELF | unix.IN_DELETE_SELF | unix.IN_UNMOUNT | unix.IN_IGNORED

// bundle is how long to wait after events that nobody wanted: where files come and go all the
// time, the process is woken up so often and not for each.
const bundle = 5 * time.Millisecond

// instance is one inotify instance.
type instance struct {
	file *os.File
	fd   int
	dirs map[int32]directory // by watch descriptor
}

// directory is who wants to know of which names.
type directory map[string][]*want

// Watch calls told soon after one of the names leaves dir, comes to be another file, or
// may have done so, until stop is called. told must not wait for anything; a call that is
// under way may end after stop. Where this system cannot watch, or may not watch
// more, the error says so.
func (w *Watcher) Watch(dir string, names []string, told func()) (stop func(), err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.open == nil {
		fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
		if err != nil {
			return nil, fmt.Errorf("watch %s: %w", dir, os.NewSyscallError("inotify_init1", err))
		}
		w.open = &instance{file: os.NewFile(uintptr(fd), "inotify"), fd: fd, dirs: map[int32]directory{}}
		go w.read(w.open)
	}
	in := w.open
	wd, err := unix.InotifyAddWatch(in.fd, dir, left)
	if err != nil {
		w.closeIdle(in)
		return nil, fmt.Errorf("watch %s: %w", dir, os.NewSyscallError("inotify_add_watch", err))
	}
	id, one := int32(wd), &want{told}
	if in.dirs[id] == nil {
		in.dirs[id] = directory{}
	}
	for _, name := range names {
		in.dirs[id][name] = append(in.dirs[id][name], one)
	}
	return func() { w.drop(in, id, one) }, nil
}

// drop ends one caller's interest.
func (w *Watcher) drop(in *instance, id int32, one *want) {
	w.mu.Lock()
	defer w.mu.Unlock()
	dir, watched := in.dirs[id]
	if w.open != in || !watched {
		return
	}
	for name, wants := range dir {
		if dir[name] = slices.DeleteFunc(wants, func(w *want) bool { return w == one }); len(dir[name]) == 0 {
			delete(dir, name)
		}
	}
	if len(dir) == 0 {
		delete(in.dirs, id)
		unix.InotifyRmWatch(in.fd, uint32(id)) // it fails where the directory is gone: then so is the watch
		w.closeIdle(in)
	}
}

// closeIdle closes an instance that watches nothing. The caller holds the lock.
func (w *Watcher) closeIdle(in *instance) {
	if len(in.dirs) == 0 {
		w.open = nil
		in.file.Close() // nothing was written to it
	}
}

// read tells of what happens until the instance is closed.
func (w *Watcher) read(in *instance) {
	buffer := make([]byte, 64<<10)
	for {
		n, err := in.file.Read(buffer)
		if err != nil {
			return
		}
		wanted := w.wanted(in, buffer[:n])
		for _, one := range wanted {
			one.told()
		}
		if len(wanted) == 0 {
			time.Sleep(bundle)
		}
	}
}

// wanted returns who is to be told of some events.
func (w *Watcher) wanted(in *instance, read []byte) []*want {
	w.mu.Lock()
	defer w.mu.Unlock()
	found := map[*want]bool{}
	add := func(wants []*want) {
		for _, one := range wants {
			found[one] = true
		}
	}
	for e := range events(read) {
		switch {
		case e.mask&unix.IN_Q_OVERFLOW != 0:
			for _, dir := range in.dirs {
				add(slices.Concat(slices.Collect(maps.Values(dir))...))
			}
		case e.mask&all != 0:
			add(slices.Concat(slices.Collect(maps.Values(in.dirs[e.id]))...))
		default:
			add(in.dirs[e.id][e.name])
		}
		if e.mask&unix.IN_IGNORED != 0 {
			delete(in.dirs, e.id)
		}
	}
	return slices.Collect(maps.Keys(found))
}

// event is what happened to what is watched.
type event struct {
	id   int32 // of the watch
	mask uint32
	name string // in a directory
}

// events are those that one read gave.
func events(read []byte) iter.Seq[event] {
	return func(yield func(event) bool) {
		for len(read) >= unix.SizeofInotifyEvent {
			end := min(unix.SizeofInotifyEvent+int(binary.NativeEndian.Uint32(read[12:])), len(read))
			e := event{int32(binary.NativeEndian.Uint32(read)), binary.NativeEndian.Uint32(read[4:]),
				string(bytes.TrimRight(read[unix.SizeofInotifyEvent:end], "\x00"))}
			if read = read[end:]; !yield(e) {
				return
			}
		}
	}
}
