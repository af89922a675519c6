package compact

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
)

// kept are uploaded files that are still on this machine, so that merging need not read them
// from the store. They are hard links to the uploaded files, so keeping one writes nothing. A
// missing one is read from the store.
type kept struct {
	dir   string // scratch: useless after a crash
	name  string // of the replica, as part of file names
	limit int64

	mu    sync.Mutex // guards what follows; held while linking and removing files; a leaf lock
	files map[string]keptFile
	order []string // keys, oldest first
	bytes int64
}

type keptFile struct {
	size     int64
	metadata map[string]string // of the stored object
}

// add links path, whose bytes were stored under key and never change.
func (k *kept) add(key, path string, size int64, metadata map[string]string) {
	if k.limit <= 0 || size > k.limit {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.removeLocked(key)
	for len(k.order) > 0 && k.bytes+size > k.limit {
		k.removeLocked(k.order[0])
	}
	if os.Link(path, k.path(key)) != nil {
		return // another file system, or no room: merging will read the store
	}
	if k.files == nil {
		k.files = map[string]keptFile{}
	}
	k.files[key] = keptFile{size, metadata}
	k.order = append(k.order, key)
	k.bytes += size
}

// open returns the file stored under key and its metadata, or nil.
func (k *kept) open(key string) (*os.File, map[string]string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	f, known := k.files[key]
	if !known {
		return nil, nil
	}
	file, err := os.Open(k.path(key))
	if err != nil {
		k.removeLocked(key)
		return nil, nil
	}
	return file, f.metadata
}

// remove forgets files.
func (k *kept) remove(keys ...string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, key := range keys {
		k.removeLocked(key)
	}
}

func (k *kept) removeLocked(key string) {
	f, known := k.files[key]
	if !known {
		return
	}
	delete(k.files, key)
	k.bytes -= f.size
	for i, other := range k.order {
		if other == key {
			k.order = append(k.order[:i], k.order[i+1:]...)
			break
		}
	}
	if err := os.Remove(k.path(key)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		k.limit = 0 // it cannot be removed: keep no more files, or the disk fills up
	}
}

func (k *kept) path(key string) string {
	return filepath.Join(k.dir, "kept-"+k.name+"-"+strings.ReplaceAll(key, "/", "-"))
}
