// Package lookup asks which files there are, on disks that may hang: a file system whose
// server or device is gone holds whoever looks for ever, and one database's disk is
// nothing that another database should wait for.
package lookup

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
)

// ErrHung is returned for what was asked of a disk that does not answer.
var ErrHung = errors.New("the disk does not answer")

const (
	patience = 2 * time.Second // for the first look that does not return
	rest     = 50 * time.Millisecond
	most     = 200 // looks that have not returned: each keeps a thread
)

// Disks is asked about files by their names. Once a look has not returned, further ones
// are given up soon, and a directory in which one has not returned is not asked again
// before it has. It may be used by many goroutines.
type Disks struct {
	patience time.Duration

	mu   sync.Mutex
	hung map[string]int // looks into a directory that were given up, and have not returned
}

// New returns Disks that waits for seconds at most.
func New() *Disks { return &Disks{patience: patience, hung: map[string]int{}} }

// Avoid has nothing looked at in a directory whose disk is known not to answer.
func (d *Disks) Avoid(dir string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.hung[dir]++
}

// Stat is os.Stat.
func (d *Disks) Stat(path string) (fs.FileInfo, error) {
	return ask(d, filepath.Dir(path), func() (fs.FileInfo, error) { return os.Stat(path) })
}

// Lstat is os.Lstat.
func (d *Disks) Lstat(path string) (fs.FileInfo, error) {
	return ask(d, filepath.Dir(path), func() (fs.FileInfo, error) { return os.Lstat(path) })
}

// Resolve is filepath.EvalSymlinks.
func (d *Disks) Resolve(path string) (string, error) {
	return ask(d, filepath.Dir(path), func() (string, error) { return filepath.EvalSymlinks(path) })
}

// Glob is filepath.Glob of an absolute pattern. What it finds elsewhere is returned beside
// the directories that do not answer.
func (d *Disks) Glob(pattern string) (matches, hung []string, err error) {
	t := &tree{disks: d}
	found, err := fs.Glob(t, strings.TrimPrefix(filepath.Clean(pattern), "/"))
	for _, name := range found {
		matches = append(matches, "/"+name)
	}
	return matches, slices.Compact(t.hung), err
}

// tree is the file system from its root on, for fs.Glob.
type tree struct {
	disks *Disks
	hung  []string
}

// Open is there for the interface only: nothing is opened.
func (t *tree) Open(name string) (fs.File, error) {
	return nil, &fs.PathError{Op: "open", Path: "/" + name, Err: fs.ErrInvalid}
}

// Stat says what a name stands for, and follows no link: one that leads nowhere is a match.
func (t *tree) Stat(name string) (fs.FileInfo, error) {
	info, err := t.disks.Lstat("/" + name)
	return info, t.note(filepath.Dir("/"+name), err)
}

// ReadDir lists a directory.
func (t *tree) ReadDir(name string) ([]fs.DirEntry, error) {
	dir := filepath.Clean("/" + name)
	entries, err := ask(t.disks, dir, func() ([]fs.DirEntry, error) { return os.ReadDir(dir) })
	return entries, t.note(dir, err)
}

func (t *tree) note(dir string, err error) error {
	if errors.Is(err, ErrHung) {
		t.hung = append(t.hung, dir)
	}
	return err
}

// ask has a goroutine of its own look into a directory, and waits for as long as is left.
func ask[T any](d *Disks, dir string, look func() (T, error)) (T, error) {
	type answer struct {
		value T
		err   error
	}
	var none T
	limit := d.limit(dir)
	if limit == 0 {
		return none, fmt.Errorf("look into %s: %w", dir, ErrHung)
	}
	answered, late := make(chan answer, 1), false
	go func() {
		value, err := look()
		d.mu.Lock()
		defer d.mu.Unlock()
		answered <- answer{value, err}
		if late {
			if d.hung[dir]--; d.hung[dir] == 0 {
				delete(d.hung, dir)
			}
		}
	}()
	timeout := time.NewTimer(limit)
	defer timeout.Stop()
	select {
	case a := <-answered:
		return a.value, a.err
	case <-timeout.C:
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	select {
	case a := <-answered: // just now
		return a.value, a.err
	default:
	}
	late = true
	d.hung[dir]++
	return none, fmt.Errorf("look into %s: %w", dir, ErrHung)
}

// limit is for how long a look into a directory is waited for; 0: it is not begun.
func (d *Disks) limit(dir string) time.Duration {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case len(d.hung) == 0:
		return d.patience
	case d.hung[dir] > 0 || len(d.hung) >= most:
		return 0
	}
	return min(rest, d.patience)
}
