package sqlite

import (
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// maxPath is SQLite's limit for a path with the longest suffix of a side file.
const maxPath = 512 - len("-journal")

// resolve returns the absolute path without links, and refuses what SQLite
// could not open or would wait for, as for the other end of a FIFO.
func resolve(path string) (string, error) {
	path, err := filepath.EvalSymlinks(path)
	if err != nil {
		return "", err
	}
	if path, err = filepath.Abs(path); err != nil {
		return "", err
	}
	if len(path) > maxPath {
		return "", fmt.Errorf("path of %d bytes is longer than the %d that SQLite allows: %w", len(path), maxPath,
			unix.ENAMETOOLONG)
	}
	info, err := os.Stat(path)
	if err != nil {
		return "", err
	}
	if !info.Mode().IsRegular() {
		return "", fmt.Errorf("%s is not a regular file: %w", path, fs.ErrInvalid)
	}
	return path, nil
}

// dsn is the driver's name for a database: a URI, because a bare path with a
// question mark or a percent sign would be misread.
func dsn(path string, params url.Values) string {
	params.Set("_busy_timeout", "0")
	uri := url.URL{Scheme: "file", Path: path, RawQuery: params.Encode()}
	return uri.String()
}
