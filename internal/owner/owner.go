// Package owner decides whether the -wal and -shm files that a connection of ours
// makes beside a database can be used by the database's own users.
//
// SQLite gives a side file the database's permissions, and as root its owner and
// group. Any other process makes it with its own uid, and with its own group or, in a
// setgid directory, with the directory's. Made wrongly, it locks the application out,
// also after we have gone.
package owner

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// ForeignError says that side files made by us could not be used by others.
type ForeignError struct {
	Path string
	UID  uint32 // of the database
	What string // in the way
	Cure string
}

// Error says what is in the way and what to do.
func (e *ForeignError) Error() string { return fmt.Sprintf("%s %s: %s", e.Path, e.What, e.Cure) }

// Check returns nil where we may open the database at path, whose links are
// resolved, as this process's effective user and group; else a *ForeignError, or the
// error of looking.
func Check(path string) error {
	var file, dir unix.Stat_t
	for name, st := range map[string]*unix.Stat_t{path: &file, filepath.Dir(path): &dir} {
		if err := unix.Stat(name, st); err != nil {
			return fmt.Errorf("owner of %s: %w", name, &fs.PathError{Op: "stat", Path: name, Err: err})
		}
	}
	e := &ForeignError{Path: path, UID: file.Uid}
	switch uid := uint32(os.Geteuid()); {
	case uid == 0:
		return e.root(uid == file.Uid)
	case uid != file.Uid:
		return e.group(file, dir)
	case !shares(file, dir):
		e.What = fmt.Sprintf("is shared with group %d, and side files made by us would have group %d", file.Gid,
			madeGroup(dir))
		e.Cure = fmt.Sprintf("run sqlwatch with group %d, or make the directory setgid with that group (chmod g+s)", file.Gid)
		return e
	}
	return nil
}

// root: SQLite gives the files away, where it may.
func (e *ForeignError) root(own bool) error {
	if own || exists(e.Path+"-wal") && exists(e.Path+"-shm") {
		return nil
	}
	can, err := CanChown()
	if err != nil || can {
		return err
	}
	e.What = fmt.Sprintf("belongs to uid %d and we are root without CAP_CHOWN", e.UID)
	e.Cure = "run as its owner or grant CAP_CHOWN"
	return e
}

// group: another user may work on the database as the owner does if the group that
// both are in may do all.
func (e *ForeignError) group(file, dir unix.Stat_t) error {
	e.What = fmt.Sprintf("belongs to uid %d and we run as uid %d", e.UID, os.Geteuid())
	e.Cure = fmt.Sprintf("run sqlwatch as its owner, or share the database with a group: files 0660, the directory 2770 "+
		"(setgid), and sqlwatch in group %d", file.Gid)
	switch {
	case file.Mode&0o060 != 0o060:
		e.What += ", which its group may not write to"
	case !shares(file, dir):
		e.What += fmt.Sprintf(", and side files made by us would have group %d instead of %d", madeGroup(dir), file.Gid)
	case dir.Mode&unix.S_ISVTX != 0:
		e.What += ", and its directory is sticky: the application could not remove side files made by us"
	default:
		return nil
	}
	return e
}

// shares reports whether a side file made by us gives everybody what the database
// gives them.
func shares(file, dir unix.Stat_t) bool {
	group, others := file.Mode>>3&0o6, file.Mode&0o6
	return group&^others == 0 || madeGroup(dir) == file.Gid
}

// madeGroup is the group of what we make in a directory.
func madeGroup(dir unix.Stat_t) uint32 {
	if dir.Mode&unix.S_ISGID != 0 {
		return dir.Gid
	}
	return uint32(os.Getegid())
}

// exists reports whether path is there; a doubt counts as no.
func exists(path string) bool {
	_, err := os.Stat(path)
	return !errors.Is(err, fs.ErrNotExist) && err == nil
}
