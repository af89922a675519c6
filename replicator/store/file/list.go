package file

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/sqlwatch/sqlwatch/replicator/store"
)

// List implements store.Store. It reads the names of one directory at a time, and only of
// directories that can hold wanted keys; it stats a file when the caller reaches it. An object
// that vanishes in the meantime is left out.
func (s *Store) List(ctx context.Context, prefix, after string) iter.Seq2[store.Object, error] {
	return func(yield func(store.Object, error) bool) {
		if _, err := os.Stat(s.dir); err != nil {
			yield(store.Object{}, fmt.Errorf("list %q: %w", prefix, s.classifyRead(err)))
			return
		}
		for level := 0; level <= store.SnapshotLevel; level++ {
			keyPrefix := fmt.Sprintf("%04x/", level)
			if !mayHold(keyPrefix, prefix, after) {
				continue
			}
			names, err := s.lists.names(filepath.Join(s.dir, ltxDir, strconv.Itoa(level)))
			if err != nil {
				yield(store.Object{}, fmt.Errorf("list %q: %w", keyPrefix, classify(err)))
				return
			}
			if !s.yieldKeys(ctx, keyPrefix, names, prefix, after, yield) {
				return
			}
		}
		names, err := s.others(prefix)
		if err != nil {
			yield(store.Object{}, fmt.Errorf("list %q: %w", prefix, s.classifyRead(err)))
			return
		}
		s.yieldKeys(ctx, "", names, prefix, after, yield)
	}
}

// mayHold reports whether a key below keyPrefix can begin with prefix and sort after `after`.
func mayHold(keyPrefix, prefix, after string) bool {
	if !strings.HasPrefix(keyPrefix, prefix) && !strings.HasPrefix(prefix, keyPrefix) {
		return false
	}
	return keyPrefix >= after || strings.HasPrefix(after, keyPrefix)
}

// others returns the keys of all objects that are no LTX files, in order: they are few.
func (s *Store) others(prefix string) ([]string, error) {
	var keys []string
	root := s.dir + "/" // WalkDir does not follow a symbolic link without the slash
	err := filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
		switch {
		case path == root:
			return err
		case errors.Is(err, fs.ErrNotExist):
			return nil
		case err != nil:
			return err
		}
		key := filepath.ToSlash(strings.TrimPrefix(path, s.dir+"/"))
		switch {
		case e.IsDir() && (!validKey(key+"/x") || !strings.HasPrefix(key+"/", prefix) && !strings.HasPrefix(prefix, key+"/")):
			return filepath.SkipDir
		case e.Type().IsRegular() && validKey(key):
			keys = append(keys, key)
		}
		return nil
	})
	slices.Sort(keys) // WalkDir visits "a/b" before "a.c"
	return keys, err
}

// yieldKeys yields the objects among the sorted names that are wanted; a key is keyPrefix+name.
func (s *Store) yieldKeys(ctx context.Context, keyPrefix string, names []string, prefix, after string,
	yield func(store.Object, error) bool) bool {
	from, _ := slices.BinarySearchFunc(names, max(after, prefix), func(name, key string) int {
		return strings.Compare(keyPrefix+name, key)
	})
	for _, name := range names[from:] {
		key := keyPrefix + name
		if key == after {
			continue
		}
		if !strings.HasPrefix(key, prefix) {
			return true
		}
		if err := ctx.Err(); err != nil {
			yield(store.Object{}, err)
			return false
		}
		path, err := s.path(key)
		if err != nil {
			continue // another program's file
		}
		obj, err := s.stat(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			yield(store.Object{}, fmt.Errorf("list %q: %w", keyPrefix, classify(err)))
			return false
		}
		obj.Key = key
		if !yield(obj, nil) {
			return false
		}
	}
	return true
}

// settled is how long a directory must have been unchanged before its listing may be cached:
// two changes within one tick of the file system's clock leave the same modification time.
const settled = 50 * time.Millisecond

// listings caches the sorted names of the directory that was read last: a plan over 10^6
// objects reads the same directory dozens of times.
type listings struct {
	mu       sync.Mutex
	dir      string
	modified time.Time
	sorted   []string
}

// names returns the names of the regular files of dir in order. The slice is shared: read only.
func (l *listings) names(dir string) ([]string, error) {
	info, err := os.Stat(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.dir == dir && l.modified.Equal(info.ModTime()) {
		return l.sorted, nil
	}
	start := time.Now()
	sorted, err := readNames(dir)
	if err != nil {
		return nil, err
	}
	l.dir = ""
	if start.Sub(info.ModTime()) > settled {
		l.dir, l.modified, l.sorted = dir, info.ModTime(), sorted
	}
	return sorted, nil
}

// forget drops dir from the cache.
func (l *listings) forget(dir string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.dir == dir {
		l.dir, l.sorted = "", nil
	}
}

func readNames(dir string) ([]string, error) {
	d, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	var names []string
	for {
		batch, err := d.ReadDir(4096)
		for _, e := range batch {
			if e.Type().IsRegular() && e.Name()[0] != '.' {
				names = append(names, e.Name())
			}
		}
		if errors.Is(err, io.EOF) {
			slices.Sort(names)
			return names, nil
		}
		if err != nil {
			return nil, err
		}
	}
}
