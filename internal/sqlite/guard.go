package sqlite

import (
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"
)

// maxPath is SQLite's limit for a path with the longest suffix of a side file.
const maxPath = 512 - len("-journal")

// guard looks at a database with stat alone, before SQLite sees it, and
// returns its path with all links resolved.
//
// A connection creates the -wal and -shm files that are missing. Under another
// uid than the database's owner they would lock the application out, so only
// the owner may open it, or root, as which SQLite gives the files that it
// creates to the owner. Root without CAP_CHOWN cannot do that.
func guard(path string, readOnly bool) (string, error) {
	path, err := resolve(path)
	if err != nil {
		return "", err
	}
	if err := checkOwner(path); err != nil {
		return "", err
	}
	if fileSize(path+"-journal") > 0 && !exists(path+"-wal") {
		// A hot journal: opening the database would roll it back.
		return "", fmt.Errorf("%s has a rollback journal: %w", path, ErrNotWAL)
	}
	if readOnly {
		return path, nil
	}
	// SQLite would fall back to a read-only connection and say nothing.
	if err := unix.Faccessat(unix.AT_FDCWD, path, unix.R_OK|unix.W_OK, unix.AT_EACCESS); err != nil {
		return "", fmt.Errorf("%s: %w: %w", path, ErrReadOnly, err)
	}
	return path, nil
}

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
		return "", fmt.Errorf("path of %d bytes is longer than the %d that SQLite allows: %w", len(path), maxPath, unix.ENAMETOOLONG)
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

func checkOwner(path string) error {
	var stat unix.Stat_t
	if err := unix.Stat(path, &stat); err != nil {
		return fmt.Errorf("owner of %s: %w", path, err)
	}
	owner, euid := int(stat.Uid), os.Geteuid()
	if euid == owner {
		return nil
	}
	if euid != 0 {
		return fmt.Errorf("%s belongs to uid %d and we run as uid %d; nothing was opened: run as its owner: %w", path, owner, euid, ErrForeignOwner)
	}
	if exists(path+"-wal") && exists(path+"-shm") {
		return nil
	}
	can, err := canChown()
	if err != nil {
		return err
	}
	if !can {
		return fmt.Errorf("%s belongs to uid %d and we are root without CAP_CHOWN; nothing was opened: run as its owner or grant CAP_CHOWN: %w", path, owner, ErrForeignOwner)
	}
	return nil
}

func canChown() (bool, error) {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return false, fmt.Errorf("read own capabilities: %w", err)
	}
	return data[0].Effective&(1<<unix.CAP_CHOWN) != 0, nil
}

// exists reports whether path is there; a doubt counts as no.
func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// dsn is the driver's name for a database: a URI, because a bare path with a
// question mark or a percent sign would be misread.
func dsn(path string, params url.Values) string {
	params.Set("_busy_timeout", "0")
	uri := url.URL{Scheme: "file", Path: path, RawQuery: params.Encode()}
	return uri.String()
}

// watchedDSN is the name under which a watched database is opened: never
// created, through the shim, whose calls find their gate by the handle.
func watchedDSN(path string, readOnly bool, handle uintptr) string {
	mode := "rw"
	if readOnly {
		mode = "ro"
	}
	return dsn(path, url.Values{
		"vfs":      {"sqlwatch"},
		"mode":     {mode},
		"sqlwatch": {strconv.FormatUint(uint64(handle), 10)},
	})
}
