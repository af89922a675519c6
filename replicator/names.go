package replicator

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"sync"
)

// names has somebody look at once when a database's files are removed or replaced. While
// we stand between an application and a WAL that has lost its name, its close cannot save
// what is in there, and each look that is waited for is too late for some.
type names struct {
	watch   func(dir string, names []string, told func()) (stop func(), err error) // may be nil
	changed func()
	log     *slog.Logger

	stop func() // nil: nothing is
	said bool   // that it is not possible

	mu    sync.Mutex // guards what follows; held over nothing
	calls map[*context.CancelCauseFunc]struct{}
}

// errMoved is why a call is interrupted during which a name has changed.
var errMoved = errors.New("the names of the database's files have changed")

// lookAgain is how often a call is repeated that is interrupted: one last close removes two names, and is
// told in two events.
const lookAgain = 8

// during calls do, which may be inside a checkpoint for seconds. Where a name changes in the meantime, its
// context ends, and do is called again: it begins with a look at the names.
func (n *names) during(ctx context.Context, do func(context.Context) error) error {
	err := n.once(ctx, do)
	for try := 0; try < lookAgain && errors.Is(err, errMoved); try++ {
		err = n.once(ctx, do)
	}
	return err
}

// once calls do; an error that came after a name has changed is errMoved as well.
func (n *names) once(ctx context.Context, do func(context.Context) error) error {
	call, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	n.mu.Lock()
	if n.calls == nil {
		n.calls = map[*context.CancelCauseFunc]struct{}{}
	}
	n.calls[&cancel] = struct{}{}
	n.mu.Unlock()
	err := do(call)
	n.mu.Lock()
	delete(n.calls, &cancel)
	n.mu.Unlock()
	if err != nil && errors.Is(context.Cause(call), errMoved) {
		err = errors.Join(errMoved, err)
	}
	return err
}

// moved is called when a name has changed.
func (n *names) moved() {
	n.mu.Lock()
	for cancel := range n.calls {
		(*cancel)(errMoved)
	}
	n.mu.Unlock()
	n.changed()
}

// follow watches the names of the database at path, and those of no other any more.
func (n *names) follow(path string) {
	n.leave()
	if n.watch == nil {
		return
	}
	name := filepath.Base(path)
	stop, err := n.watch(filepath.Dir(path), []string{name, name + "-wal", name + "-shm"}, n.moved)
	if err == nil {
		n.stop, n.said = stop, false
		return
	}
	if !n.said {
		n.said = true
		n.log.Warn("inotify does not work: removed or replaced files of the database are noticed within a "+
			"second, not at once", "err",
			err, "next", "where a limit of inotify is reached, raise fs.inotify.max_user_instances or "+
				"fs.inotify.max_user_watches")
	}
}

// leave ends that.
func (n *names) leave() {
	if n.stop != nil {
		n.stop()
		n.stop = nil
	}
}
