//go:build linux && cgo

package sqlite

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/sqlwatch/sqlwatch/internal/owner"
)

// guard looks at a database with stat alone, before SQLite sees it, and
// returns its path with all links resolved.
//
// A connection creates the -wal and -shm files that are missing. Made wrongly they
// would lock the application out: see internal/owner.
func guard(path string, readOnly bool) (string, error) {
	path, err := resolve(path)
	if err != nil {
		return "", err
	}
	if err := checkOwner(path); err != nil {
		return "", err
	}
	if hot, err := isHot(path + "-journal"); err != nil {
		return "", err
	} else if hot {
		return "", fmt.Errorf("%s-journal is of a transaction that did not end, and whoever opens the database rolls it "+
			"back: the application does so when it starts. If another file was put in place since, remove the -journal "+
			"first: %w", path, ErrNotWAL)
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

func checkOwner(path string) error {
	err := owner.Check(path)
	if foreign := (*owner.ForeignError)(nil); errors.As(err, &foreign) {
		return fmt.Errorf("%w; nothing was opened: %w", foreign, ErrForeignOwner)
	}
	return err
}

// isHot reports whether SQLite would roll back this rollback journal, also into a database with a WAL. A journal that
// was finished is removed, emptied, or begins with zeros, by the application's journal mode.
func isHot(journal string) (bool, error) {
	// SQLite has no locks on it that closing could release. A pipe would make us wait for who writes to it.
	file, err := os.OpenFile(journal, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	} else if err != nil {
		return false, err
	}
	defer file.Close()
	if info, err := file.Stat(); err != nil {
		return false, err
	} else if !info.Mode().IsRegular() { // SQLite opens it as well, and waits
		return false, fmt.Errorf("%s is not a regular file: remove it", journal)
	}
	first := make([]byte, 1)
	n, err := file.Read(first)
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return n == 1 && first[0] != 0, err
}

// exists reports whether path exists; where stat fails, it does not.
func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// watchedDSN is the name under which a watched database is opened: never
// created, through the shim, whose calls find their gate by the handle.
func watchedDSN(path string, o Options, handle uintptr) string {
	mode := "rw"
	if o.ReadOnly {
		mode = "ro"
	}
	return dsn(path, url.Values{
		"vfs":          {"sqlwatch"},
		"mode":         {mode},
		"sqlwatch":     {strconv.FormatUint(uint64(handle), 10)},
		"sqlwatch_wal": {strconv.FormatUint(o.WAL, 10)},
		"sqlwatch_shm": {strconv.FormatUint(o.Shm, 10)},
	})
}
