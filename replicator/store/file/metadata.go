package file

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sqlwatch/sqlwatch/internal/durable"
	"github.com/sqlwatch/sqlwatch/replicator/store"
)

// xattrName is the extended attribute with all metadata of an object as JSON, so that it is
// set and read in one step.
const xattrName = "user.sqlwatch"

// maxMetadata bounds the metadata: an extended attribute cannot be larger on Linux.
const maxMetadata = 64 << 10

// sidecar holds the metadata of a file whose file system has no extended attributes. It is
// valid only for the file that it was written for: a crash may leave the sidecar of a file
// that was never committed, and the inode is then used again.
type sidecar struct {
	Size     int64             `json:"size"`
	Modified int64             `json:"modified"` // Unix nanoseconds
	Metadata map[string]string `json:"metadata"`
}

// setMetadata stores meta with the finished temporary file temp, which will be renamed to
// path. The commit's fsync makes the attribute durable. If the file system has no extended
// attributes, it writes a sidecar and returns its path. It sets the file's modification time
// to the batch's, because Litestream reads the time from there.
func (s *Store) setMetadata(temp, path string, meta map[string]string) (side string, err error) {
	if t, err := time.Parse(time.RFC3339Nano, meta[store.MetaTimestamp]); err == nil {
		if err := os.Chtimes(temp, t, t); err != nil {
			return "", err
		}
	}
	data, err := json.Marshal(meta)
	if err != nil {
		return "", err
	}
	if len(data) > maxMetadata {
		return "", fmt.Errorf("metadata of %d bytes is too large", len(data))
	}
	err = unix.Setxattr(temp, xattrName, data, 0)
	if !errors.Is(err, unix.ENOTSUP) && !errors.Is(err, unix.ENOSPC) && !errors.Is(err, unix.E2BIG) {
		return "", err
	}
	info, err := os.Lstat(temp)
	if err != nil {
		return "", err
	}
	data, err = json.Marshal(sidecar{Size: info.Size(), Modified: info.ModTime().UnixNano(), Metadata: meta})
	if err != nil {
		return "", err
	}
	side = s.sidecarPath(path, info)
	if err := s.makeDir(filepath.Dir(side)); err != nil {
		return "", err
	}
	return side, durable.WriteFile(side, data, filePerm)
}

// sidecarPath returns the path of the sidecar of the file that info describes, which is or
// will be at path. The inode is part of the name, so that the old file and the one that
// replaces it have separate sidecars.
func (s *Store) sidecarPath(path string, info fs.FileInfo) string {
	var inode uint64
	if sys, ok := info.Sys().(*syscall.Stat_t); ok {
		inode = sys.Ino
	}
	return filepath.Join(s.dir, sidecarDir, fmt.Sprintf("%s.%x.json", strings.TrimPrefix(path, s.dir), inode))
}

// removeSidecar removes the sidecar of a file that is gone from path; info describes that file
// and is nil if there was none.
func (s *Store) removeSidecar(path string, info fs.FileInfo) error {
	if info == nil {
		return nil
	}
	err := os.Remove(s.sidecarPath(path, info)) // need not be durable: a sidecar without its file is ignored
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// stat describes the object at path; its Key is left to the caller.
func (s *Store) stat(path string) (store.Object, error) {
	info, err := os.Lstat(path)
	if err != nil {
		return store.Object{}, err
	}
	return s.describe(path, info, func(buf []byte) (int, error) { return unix.Lgetxattr(path, xattrName, buf) })
}

// statOpen describes the object that f is open on.
func (s *Store) statOpen(f *os.File, path string) (store.Object, error) {
	info, err := f.Stat()
	if err != nil {
		return store.Object{}, err
	}
	return s.describe(path, info, func(buf []byte) (int, error) { return unix.Fgetxattr(int(f.Fd()), xattrName, buf) })
}

func (s *Store) describe(path string, info fs.FileInfo, getxattr func([]byte) (int, error)) (store.Object, error) {
	sys, ok := info.Sys().(*syscall.Stat_t)
	if !ok || !info.Mode().IsRegular() {
		return store.Object{}, fmt.Errorf("%s is not a regular file", path)
	}
	meta := s.metadata(path, info, getxattr)
	return store.Object{
		Size: info.Size(),
		// The hash is part of the tag because an inode number is used again at
		// once, and two replacements may fall into one tick of the clock.
		ETag:     fmt.Sprintf("%x-%x-%x-%.16s", sys.Ino, info.Size(), info.ModTime().UnixNano(), meta[store.MetaSHA256]),
		Modified: modified(info, sys),
		Metadata: meta,
	}, nil
}

// modified returns when a file was put here, by the file system's clock. For LTX files that is
// the inode's change time, since setMetadata sets the modification time to the batch's, which
// may be wrong. Files that we did not write, as those of Litestream 0.3, have their
// modification time.
func modified(info fs.FileInfo, sys *syscall.Stat_t) time.Time {
	if !strings.HasSuffix(info.Name(), ".ltx") {
		return info.ModTime()
	}
	return changeTime(sys)
}

// metadata returns the metadata of a file, nil if it has none that can be read: files of
// Litestream have none.
func (s *Store) metadata(path string, info fs.FileInfo, getxattr func([]byte) (int, error)) map[string]string {
	var meta map[string]string
	buf := make([]byte, 1024)
	n, err := getxattr(buf)
	if errors.Is(err, unix.ERANGE) {
		buf = make([]byte, maxMetadata)
		n, err = getxattr(buf)
	}
	if err == nil && json.Unmarshal(buf[:n], &meta) == nil {
		return meta
	}
	data, err := os.ReadFile(s.sidecarPath(path, info))
	if err != nil {
		return nil
	}
	var side sidecar
	if json.Unmarshal(data, &side) != nil || side.Size != info.Size() || side.Modified != info.ModTime().UnixNano() {
		return nil
	}
	return side.Metadata
}
