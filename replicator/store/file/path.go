package file

import (
	"fmt"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/sqlwatch/sqlwatch/replicator/store"
)

const (
	ltxDir     = "ltx"
	sidecarDir = ".sqlwatch-meta"
	lockName   = ".sqlwatch-lock"
)

// path maps a key to the file that holds it. It refuses keys that could lead out of the
// store's directory, or to one of its helper files.
func (s *Store) path(key string) (string, error) {
	if _, _, _, err := store.ParseLTXKey(key); err == nil {
		return filepath.Join(s.dir, ltxDir, strconv.Itoa(int(key[3]-'0')), key[len("0000/"):]), nil
	}
	if !validKey(key) {
		return "", fmt.Errorf("file replica: key %.80q is not allowed", key)
	}
	return filepath.Join(s.dir, filepath.FromSlash(key)), nil
}

// validKey reports whether a key other than an LTX file's may be stored: it must be relative
// and clean, name a file in some subdirectory, and have no hidden part.
func validKey(key string) bool {
	if len(key) > 1024 || !strings.Contains(key, "/") || strings.HasPrefix(key, ltxDir+"/") {
		return false
	}
	for part := range strings.SplitSeq(key, "/") {
		if part == "" || part[0] == '.' || len(part) > 255 || strings.ContainsFunc(part, notPrintable) {
			return false
		}
	}
	return true
}

func notPrintable(r rune) bool { return r < ' ' || r == 0x7f || r == '\\' || r == '\uFFFD' }
