// Package file keeps a replica in a directory: LTX files in the layout of Litestream's file
// replica ("ltx/<level>/<min>-<max>.ltx"), every other object under its key.
//
// An object becomes visible by link or rename once it is on disk, so a reader sees all of it
// or nothing, and a crash between any two system calls leaves at most a temporary file and a
// sidecar without effect; the temporary file is removed later. Metadata is kept in extended
// attributes of the file, or, if the file system has none, in a sidecar below ".sqlwatch-meta".
package file

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"syscall"

	"github.com/sqlwatch/sqlwatch/internal/durable"
	"github.com/sqlwatch/sqlwatch/replicator/store"
)

const (
	filePerm = 0o600
	dirPerm  = 0o700
)

// Store is a store.Store over one directory. Several processes may use it at a time: link(2)
// decides who creates an object, and conditional replacement takes a lock file.
type Store struct {
	dir string

	mu    sync.Mutex          // one conditional replacement of this process at a time
	made  map[string]struct{} // directories that exist and were swept of temporary files
	root  fs.FileInfo         // of dir when it was first written to; nil before
	lists listings
}

// New returns the store in dir. If dir does not exist, the first Put makes it, provided that
// its nearest existing parent belongs to our user: another user's parent may be the mount
// point of a disk that is not mounted. If dir is gone after it was written to, Put returns
// store.ErrMisplaced until it is back; if it was replaced by another directory, Put returns
// it once, so that the writer examines what is there before it continues.
func New(dir string) (*Store, error) {
	if dir == "" {
		return nil, errors.New("open file replica: the directory is empty")
	}
	abs, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("open file replica: %w", err)
	}
	return &Store{dir: abs, made: make(map[string]struct{})}, nil
}

// Dir returns the absolute path of the store's directory.
func (s *Store) Dir() string { return s.dir }

// Put implements store.Store. It adds the SHA-256 of the written bytes to the metadata as
// store.MetaSHA256, and returns an error if the body does not match its announced Size or
// SHA256.
func (s *Store) Put(ctx context.Context, key string, body store.Body, opts store.PutOptions) (store.Object, error) {
	path, err := s.path(key)
	if err != nil {
		return store.Object{}, err
	}
	obj, err := s.write(ctx, path, body, opts)
	if err != nil {
		return store.Object{}, fmt.Errorf("put %s: %w", key, classify(err))
	}
	obj.Key = key
	return obj, nil
}

func (s *Store) write(ctx context.Context, path string, body store.Body, opts store.PutOptions) (store.Object, error) {
	if opts.Create { // cheap, and usually right; link(2) decides in the end
		if _, err := os.Lstat(path); err == nil {
			return store.Object{}, store.ErrExists
		}
	}
	if err := s.makeDir(filepath.Dir(path)); err != nil {
		return store.Object{}, err
	}
	f, err := durable.Create(path, filePerm)
	if err != nil {
		return store.Object{}, err
	}
	defer f.Abort()
	sum, err := fill(ctx, f, body)
	if err != nil {
		return store.Object{}, err
	}
	meta := make(map[string]string, len(opts.Metadata)+1)
	for k, v := range opts.Metadata {
		meta[k] = v
	}
	meta[store.MetaSHA256] = sum
	side, err := s.setMetadata(f.TempPath(), path, meta)
	if err != nil {
		return store.Object{}, err
	}
	old, _ := os.Lstat(path) // nil when there is none
	err = s.commit(f, path, opts)
	if err != nil && side != "" {
		err = errors.Join(err, os.Remove(side))
	}
	if errors.Is(err, fs.ErrNotExist) { // another process's sweep removed the temporary file
		return store.Object{}, fmt.Errorf("%w (%w)", store.ErrUnavailable, err)
	}
	if err == nil && side != "" {
		err = s.removeSidecar(path, old)
	}
	if err != nil {
		return store.Object{}, err
	}
	s.lists.forget(filepath.Dir(path))
	return s.stat(path)
}

// commit gives the finished file its name, under the conditions of opts.
func (s *Store) commit(f *durable.File, path string, opts store.PutOptions) error {
	switch {
	case opts.Create:
		return f.CommitNew()
	case opts.Match == "":
		return f.Commit()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	lock, err := durable.Lock(filepath.Join(s.dir, lockName))
	var held *durable.HeldError
	if errors.As(err, &held) {
		return fmt.Errorf("%w (%w)", store.ErrConflict, err)
	}
	if err != nil {
		return err
	}
	defer lock.Unlock()
	obj, err := s.stat(path)
	if errors.Is(err, fs.ErrNotExist) || err == nil && obj.ETag != opts.Match {
		return store.ErrExists
	}
	if err != nil {
		return err
	}
	return f.Commit()
}

// fill copies the body and returns its SHA-256.
func fill(ctx context.Context, w io.Writer, body store.Body) (string, error) {
	r, err := body.Open()
	if err != nil {
		return "", err
	}
	defer r.Close()
	sum := sha256.New()
	buffer := int64(256 << 10)
	if body.Size >= 0 { // one more byte, to see the end or that the body is too long
		buffer = min(buffer, body.Size+1)
	}
	n, err := io.CopyBuffer(io.MultiWriter(w, sum), &contextReader{ctx: ctx, r: r, pace: body.Pace}, make([]byte, buffer))
	if err != nil {
		return "", err
	}
	if body.Size >= 0 && n != body.Size {
		return "", fmt.Errorf("body ended after %d of %d bytes: %w", n, body.Size, io.ErrUnexpectedEOF)
	}
	got := hex.EncodeToString(sum.Sum(nil))
	if body.SHA256 != "" && got != body.SHA256 {
		return "", fmt.Errorf("body has sha256 %s, want %s", got, body.SHA256)
	}
	return got, nil
}

// contextReader ends a copy when its context ends, and keeps to the pace.
type contextReader struct {
	ctx  context.Context
	r    io.Reader
	pace store.Pace
}

func (c *contextReader) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	n, err := c.r.Read(p[:c.pace.Chunk(len(p))])
	c.pace.Spend(n)
	return n, err
}

// makeDir makes a directory of the store if it does not exist, and once removes temporary files
// that a crash left there.
func (s *Store) makeDir(dir string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.checkRoot(); err != nil {
		return err
	}
	if _, ok := s.made[dir]; ok {
		if _, err := os.Lstat(dir); err == nil {
			return nil
		}
	}
	if err := durable.MkdirAll(dir, dirPerm); err != nil {
		return err
	}
	if err := durable.SweepTemp(dir); err != nil {
		return err
	}
	s.made[dir] = struct{}{}
	return nil
}

// checkRoot makes the store's directory at first, and later returns an error if it is gone or
// is another one. The caller holds mu.
func (s *Store) checkRoot() error {
	info, err := os.Stat(s.dir)
	missing := errors.Is(err, fs.ErrNotExist)
	switch {
	case missing && s.root != nil:
		return fmt.Errorf("%w: %s, which held this replica, is gone (renamed, removed or unmounted); nothing is written "+
			"until it is back, or a directory made there to begin anew", store.ErrMisplaced, s.dir)
	case missing:
		if err := mayMake(s.dir); err != nil {
			return err
		}
		if err := durable.MkdirAll(s.dir, dirPerm); err != nil {
			return err
		}
		if info, err = os.Stat(s.dir); err != nil {
			return err
		}
	case err != nil:
		return err
	case s.root != nil && !os.SameFile(s.root, info):
		s.root = nil
		clear(s.made)
		return fmt.Errorf("%w: %s is another directory than before", store.ErrMisplaced, s.dir)
	}
	s.root = info
	return nil
}

// mayMake returns an error unless dir may be made: its nearest existing parent must belong to
// our user, and not be the root.
func mayMake(dir string) error {
	for parent := filepath.Dir(dir); ; parent = filepath.Dir(parent) {
		info, err := os.Stat(parent)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		if sys, ok := info.Sys().(*syscall.Stat_t); ok && int(sys.Uid) == os.Geteuid() && parent != "/" {
			return nil
		}
		return fmt.Errorf("%w: there is no directory %s, and %s is not ours to make it in: mount the disk, or make it and "+
			"give it to uid %d", store.ErrMisplaced, dir, parent, os.Geteuid())
	}
}

// Get implements store.Store.
func (s *Store) Get(ctx context.Context, key string, offset, length int64) (io.ReadCloser, store.Object, error) {
	path, err := s.path(key)
	if err != nil {
		return nil, store.Object{}, err
	}
	if err := ctx.Err(); err != nil {
		return nil, store.Object{}, err
	}
	obj, r, err := s.open(path, offset, length)
	if err != nil {
		return nil, store.Object{}, fmt.Errorf("get %s: %w", key, s.classifyRead(err))
	}
	obj.Key = key
	if r == nil {
		return nil, obj, nil
	}
	return r, obj, nil
}

func (s *Store) open(path string, offset, length int64) (store.Object, io.ReadCloser, error) {
	if length == 0 {
		obj, err := s.stat(path)
		return obj, nil, err
	}
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK|syscall.O_NOFOLLOW, 0)
	if err != nil {
		return store.Object{}, nil, err
	}
	obj, err := s.statOpen(f, path)
	if err == nil && (offset < 0 || offset > obj.Size) {
		err = fmt.Errorf("offset %d is outside of the %d bytes", offset, obj.Size)
	}
	if err != nil {
		f.Close()
		return store.Object{}, nil, err
	}
	if length < 0 || length > obj.Size-offset {
		length = obj.Size - offset
	}
	return obj, &section{SectionReader: io.NewSectionReader(f, offset, length), f: f}, nil
}

// section is a part of an open file.
type section struct {
	*io.SectionReader
	f *os.File
}

// Close closes the file.
func (s *section) Close() error { return s.f.Close() }

// Delete implements store.Store. It goes on after a file that cannot be removed.
func (s *Store) Delete(ctx context.Context, keys ...string) error {
	var refused store.DeleteError
	for _, key := range keys {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := s.remove(key); err != nil {
			refused.Add(key, fmt.Errorf("delete %s: %w", key, classify(err)))
		}
	}
	return refused.Err(len(keys))
}

// remove removes a file and its sidecar.
func (s *Store) remove(key string) error {
	path, err := s.path(key)
	if err != nil {
		return err
	}
	old, _ := os.Lstat(path) // nil when there is none
	defer s.lists.forget(filepath.Dir(path))
	if err := durable.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := s.removeSidecar(path, old); err != nil {
		return fmt.Errorf("remove its metadata: %w", err)
	}
	return nil
}

// classifyRead is classify, but tells a missing replica from a missing object.
func (s *Store) classifyRead(err error) error {
	if !errors.Is(err, fs.ErrNotExist) {
		return classify(err)
	}
	if _, derr := os.Stat(s.dir); errors.Is(derr, fs.ErrNotExist) {
		s.mu.Lock()
		defer s.mu.Unlock()
		return &absentError{dir: s.dir, early: s.root == nil && mayMake(s.dir) == nil}
	}
	return classify(err)
}

// absentError says that the store's directory does not exist.
type absentError struct {
	dir   string
	early bool // the first write makes it
}

func (e *absentError) Error() string {
	return fmt.Sprintf("%v: there is no directory %s", store.ErrMisplaced, e.dir)
}

func (e *absentError) Unwrap() error { return store.ErrMisplaced }

// Early reports whether the directory is only missing because nothing was written yet, which is
// no failure.
func (e *absentError) Early() bool { return e.early }

// classify maps errors of the file system to those of the Store contract.
func classify(err error) error {
	switch {
	case errors.Is(err, store.ErrExists), errors.Is(err, store.ErrConflict), errors.Is(err, store.ErrUnavailable),
		errors.Is(err, store.ErrMisplaced):
		return err
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%w (%w)", store.ErrNotFound, err)
	case errors.Is(err, fs.ErrExist):
		return fmt.Errorf("%w (%w)", store.ErrExists, err)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%w (%w)", store.ErrAuth, err)
	case errors.Is(err, syscall.ENOTDIR), errors.Is(err, syscall.EROFS):
		return fmt.Errorf("%w (%w)", store.ErrMisplaced, err)
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT), errors.Is(err, syscall.EIO),
		errors.Is(err, syscall.ESTALE):
		return fmt.Errorf("%w (%w)", store.ErrUnavailable, err)
	}
	return err
}
