package compact

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
)

// kept are files of the replica that are still on this machine, so that merging them
// need not read them from the store. They are links to what was uploaded: to keep one
// costs no write. What goes missing is read from the store.
type kept struct {
	dir   string // with nothing in it that counts after a crash
	name  string // of the replica, fit for a file
	limit int64

	mu    sync.Mutex // guards what follows; held over links and removals, no other lock is taken under it
	files map[string]keptFile
	order []string // keys, oldest first
	bytes int64
}

type keptFile struct {
	size     int64
	metadata map[string]string // as it was stored
}

// add links path, the bytes that were stored under key and which nobody changes.
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
		return // another file system, no room: the store has it
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
		k.limit = 0 // what cannot be removed is not to grow
	}
}

func (k *kept) path(key string) string {
	return filepath.Join(k.dir, "kept-"+k.name+"-"+strings.ReplaceAll(key, "/", "-"))
}
