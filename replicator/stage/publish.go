package stage

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sqlwatch/sqlwatch/internal/durable"
)

// keptFor is how long everything that was set aside stays at least.
const keptFor = 24 * time.Hour

// asideTime is how the names of what is set aside tell when that was.
const asideTime = "20060102T150405.000Z"

// Publish gives the finished file its name. What it replaces, side files first because
// SQLite would replay them into the new database, is set aside under another name that
// SQLite understands. It returns those names. After an error, what was there is there again,
// or the error says which files are not. The caller has claimed the database.
func (s *Stage) Publish() (aside []string, err error) {
	beside := s.output + ".replaced-" + time.Now().UTC().Format(asideTime)
	defer func() {
		if _, unnamed := os.Lstat(s.Name()); err != nil && unnamed == nil { // else only the directory's sync failed
			aside, err = nil, errors.Join(err, s.putBack(beside))
		}
	}()
	for _, suffix := range sideFiles {
		err := durable.Move(s.output+suffix, beside+suffix)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return aside, fmt.Errorf("set the replaced database's %s aside: %w", s.output+suffix, err)
		}
		aside = append(aside, beside+suffix)
	}
	err = os.Link(s.output, beside) // so that something is always there
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.ENOTSUP) {
		err = durable.Move(s.output, beside)
	}
	if err == nil {
		aside = append(aside, beside)
	} else if !errors.Is(err, fs.ErrNotExist) {
		return aside, fmt.Errorf("set the replaced database aside: %w", err)
	}
	return aside, durable.Replace(s.Name(), s.output)
}

// putBack undoes what Publish did before it failed: a database without its WAL has lost commits.
func (s *Stage) putBack(beside string) error {
	var errs []error
	for _, suffix := range append([]string{""}, sideFiles...) {
		from, to := beside+suffix, s.output+suffix
		aside, err := os.Lstat(from)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		there, lost := os.Lstat(to)
		switch {
		case err != nil:
		case lost == nil && os.SameFile(aside, there):
			err = durable.Remove(from) // only a second name
		default:
			err = durable.Move(from, to)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("before that database is opened, rename %s to %s: %w", from, to, err))
		}
	}
	return errors.Join(errs...)
}

// CleanUp removes what earlier restores to the same output set aside, all but what is
// younger than a day: who restores twice in a row gets back to what was there before the
// first. aside is what Publish has just set aside. It stays, and where there is none all
// of them do: which is the newest only the clock of then would tell.
// What restores to other files beside it left goes too, once nobody can be expected to go
// on with it. It returns what it removed.
func CleanUp(output string, aside []string, now time.Time) (removed []string, err error) {
	entries, err := os.ReadDir(filepath.Dir(output))
	if err != nil {
		return nil, err
	}
	removed, err = removeForgotten(filepath.Dir(output), entries, now)
	if len(aside) == 0 {
		return removed, err
	}
	errs := []error{err}
	for _, e := range entries {
		path := filepath.Join(filepath.Dir(output), e.Name())
		name, ours := strings.CutPrefix(e.Name(), filepath.Base(output)+".replaced-")
		for _, suffix := range sideFiles {
			name = strings.TrimSuffix(name, suffix)
		}
		at, err := time.Parse(asideTime, name)
		if !ours || err != nil || !e.Type().IsRegular() || slices.Contains(aside, path) || now.Sub(at) < keptFor {
			continue
		}
		if err := durable.Remove(path); err != nil {
			errs = append(errs, fmt.Errorf("remove what was set aside before: %w", err))
			continue
		}
		removed = append(removed, path)
	}
	return removed, errors.Join(errs...)
}

// Owner says whose a restored database is to be, where that is asked for. The zero
// value asks for nothing.
type Owner struct {
	User, Group *int        // nil: as Inherit finds
	Mode        fs.FileMode // 0: as Inherit finds
}

// Inherit gives the stage the owner and mode of the database that it replaces, or else
// the owner of the directory, as far as we may. Where others may put files into the
// directory, what they put there says nothing.
func (s *Stage) Inherit() error {
	dir, err := os.Stat(filepath.Dir(s.output))
	if err != nil {
		return err
	}
	like, mode := dir, fs.FileMode(0o600)
	shared := dir.Mode()&0o002 != 0
	if old, err := os.Lstat(s.output); err == nil && old.Mode().IsRegular() {
		if sys, ok := old.Sys().(*syscall.Stat_t); ok && (!shared || int(sys.Uid) == os.Geteuid()) {
			like, mode, shared = old, old.Mode().Perm(), false
		}
	}
	sys, ok := like.Sys().(*syscall.Stat_t)
	if !ok || shared {
		return nil
	}
	if like == dir && os.Geteuid() != 0 {
		return nil
	}
	if err := s.Chown(int(sys.Uid), int(sys.Gid)); err != nil {
		return fmt.Errorf("give it to uid %d, gid %d, as what it replaces: %w", sys.Uid, sys.Gid, err)
	}
	return s.Chmod(mode)
}

// Give gives the stage the owner and mode that are asked for.
func (s *Stage) Give(o Owner) error {
	id := func(asked *int) int {
		if asked == nil {
			return -1
		}
		return *asked
	}
	if o.User != nil || o.Group != nil {
		if err := s.Chown(id(o.User), id(o.Group)); err != nil {
			return fmt.Errorf("give the restored database to uid %d, gid %d: %w", id(o.User), id(o.Group), err)
		}
	}
	if o.Mode == 0 {
		return nil
	}
	return s.Chmod(o.Mode)
}

// Share gives another file, at path, the owner of the stage.
func (s *Stage) Share(path string) error {
	info, err := s.Stat()
	if err != nil {
		return err
	}
	sys, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return nil
	}
	return os.Lchown(path, int(sys.Uid), int(sys.Gid))
}
