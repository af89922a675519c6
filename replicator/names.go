package replicator

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"sync"
)

// names reports at once when a database's files are removed or replaced. While our connection
// is open on a WAL that has lost its name, the application's last close cannot checkpoint it,
// and its commits are lost; waiting for the next poll would sometimes be too late.
type names struct {
	watch   func(dir string, names []string, told func()) (stop func(), err error) // may be nil
	changed func()
	log     *slog.Logger

	stop func() // ends the current watch; nil: nothing is watched
	said bool   // a warning that watching is not possible was logged

	mu    sync.Mutex // guards what follows; held over nothing
	calls map[*context.CancelCauseFunc]struct{}
}

// errMoved is the cause with which a call is cancelled when a name changes during it.
var errMoved = errors.New("the names of the database's files have changed")

// lookAgain is how often an interrupted call is repeated: a single last close removes two names, -wal and
// -shm, which arrive as two events.
const lookAgain = 8

// during calls do, which may spend seconds inside a checkpoint. If a name changes in the meantime, during
// cancels do's context and calls it again; do begins by checking the names.
func (n *names) during(ctx context.Context, do func(context.Context) error) error {
	err := n.once(ctx, do)
	for try := 0; try < lookAgain && errors.Is(err, errMoved); try++ {
		err = n.once(ctx, do)
	}
	return err
}

// once calls do. If do fails after a name has changed, the error is errMoved as well.
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

// moved is called when a name has changed: it cancels the calls under way.
func (n *names) moved() {
	n.mu.Lock()
	for cancel := range n.calls {
		(*cancel)(errMoved)
	}
	n.mu.Unlock()
	n.changed()
}

// follow watches the names of the database at path, in place of those watched before.
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

// leave ends the watch.
func (n *names) leave() {
	if n.stop != nil {
		n.stop()
		n.stop = nil
	}
}
