// Package asuser keeps a program that was started as root from working as root on
// other users' files. Whoever owns a directory can put links where root would open
// SQLite's side files, and SQLite as root gives what it opens to the database's
// owner. So the program goes on as that owner before it opens anything of theirs.
package asuser

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/sqlwatch/sqlwatch/internal/durable"
)

// User is whom a program works as.
type User struct{ UID, GID int }

// ManyError says that databases of several users were given to one program. Each
// user's need a program of their own.
type ManyError struct {
	Paths map[User][]string // whose databases are which
}

// Error names the users, with what serves each.
func (e *ManyError) Error() string {
	var b strings.Builder
	b.WriteString("as root, sqlwatch works as the owner of the databases, and these belong to several users; start one " +
		"for each")
	b.WriteString(" (with systemd: systemctl enable --now and the unit of the line; each reads /etc/sqlwatch/USER):")
	users := slices.SortedFunc(maps.Keys(e.Paths), func(a, b User) int { return a.UID - b.UID })
	for _, u := range users {
		fmt.Fprintf(&b, "\n  sqlwatch@%d.service  # %s", u.UID, e.Paths[u][0])
		if more := len(e.Paths[u]) - 1; more > 0 {
			fmt.Fprintf(&b, " and %d more", more)
		}
	}
	return b.String()
}

// OwnerOf returns whom the databases at paths belong to. A path without a file
// belongs to who may make one: the owner of its directory. ok is false where there
// is nothing to tell by. A *ManyError: they belong to several users.
func OwnerOf(paths []string) (owner User, ok bool, err error) {
	users := map[User][]string{}
	byUID := map[int]User{}
	for _, path := range paths {
		u, err := ownerOf(path)
		if errors.Is(err, fs.ErrNotExist) || nowhere(err) {
			continue
		}
		if err != nil {
			return User{}, false, err
		}
		if first, met := byUID[u.UID]; met {
			u = first // one user's files may have several groups: SQLite's side files take each file's own
		}
		byUID[u.UID] = u
		users[u] = append(users[u], path)
	}
	if len(users) > 1 {
		return User{}, false, &ManyError{Paths: users}
	}
	for u := range users {
		return u, true, nil
	}
	return User{}, false, nil
}

// nowhere reports whether an error says that no file can be at a path as it is: that database is unreadable, and
// says nothing about the others.
func nowhere(err error) bool {
	return errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ENAMETOOLONG) || errors.Is(err, unix.ELOOP) ||
		errors.Is(err, unix.EINVAL)
}

// RootsOwn is an error where a database belongs to another user than root: one whose owner could
// not be found out when the program was started.
func RootsOwn(path string) error {
	owner, known, err := OwnerOf([]string{path})
	if err == nil && known && owner.UID != 0 {
		err = fmt.Errorf("%s belongs to uid %d, which was not known when sqlwatch was started as root, since its disk did "+
			"not answer: restart sqlwatch", path, owner.UID)
	}
	return err
}

func ownerOf(path string) (User, error) {
	var link, st unix.Stat_t
	dir := filepath.Dir(path)
	err := unix.Stat(path, &st)
	switch {
	case err == unix.ENOENT:
		err = unix.Stat(dir, &st)
		return User{UID: int(st.Uid), GID: int(st.Gid)}, pathError(dir, err)
	case err != nil:
		return User{}, pathError(path, err)
	}
	owner := User{UID: int(st.Uid), GID: int(st.Gid)}
	if err := unix.Lstat(path, &link); err != nil {
		return User{}, pathError(path, err)
	}
	if target, err := filepath.EvalSymlinks(path); err == nil {
		dir = filepath.Dir(target)
	}
	var above unix.Stat_t
	if err := unix.Stat(dir, &above); err != nil {
		return User{}, pathError(dir, err)
	}
	for _, other := range []uint32{link.Uid, above.Uid} {
		if other != 0 && other != st.Uid {
			return User{}, fmt.Errorf("%s belongs to uid %d, but the link or directory that leads to it to uid %d, who could "+
				"put any file there: "+
				"as root, sqlwatch leaves it alone; have all of it belong to one user, or start sqlwatch as that user", path,
				st.Uid, other)
		}
	}
	return owner, nil
}

func pathError(path string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("find the owner of %s: %w", path, err)
}

// Readable reports whether u may read path, as far as its mode and its directory's
// tell.
func Readable(u User, path string) (bool, error) {
	for at, bit := range map[string]uint32{path: 4, filepath.Dir(path): 1} {
		var st unix.Stat_t
		if err := unix.Stat(at, &st); err != nil {
			return false, pathError(at, err)
		}
		switch {
		case int(st.Uid) == u.UID:
			bit <<= 6
		case int(st.Gid) == u.GID:
			bit <<= 3
		}
		if uint32(st.Mode)&bit == 0 {
			return false, nil
		}
	}
	return true, nil
}

// HandOver gives a directory that root made for the program, with everything below
// it, to the user it goes on as; it is made if it does not exist. So that a mistaken
// configuration gives nothing else away, one that is not empty must hold an entry
// called mark, or with mark "" is left as it is.
func HandOver(u User, dir, mark string) error {
	if err := handOver(u, dir, mark); err != nil {
		return fmt.Errorf("give %s to uid %d: %w", dir, u.UID, err)
	}
	return nil
}

func handOver(u User, dir, mark string) error {
	if err := durable.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	var st unix.Stat_t
	if err := unix.Stat(dir, &st); err != nil {
		return err
	}
	entries, err := fs.ReadDir(root.FS(), ".")
	if err != nil {
		return err
	}
	marked := slices.ContainsFunc(entries, func(e fs.DirEntry) bool { return e.Name() == mark })
	switch {
	case int(st.Uid) == u.UID:
		return nil // it is theirs already, with what is in it
	case len(entries) > 0 && mark == "":
		return nil
	case len(entries) > 0 && !marked:
		return fmt.Errorf("it holds no %s, so it may be something else: give it to that user yourself (chown -R %d)", mark,
			u.UID)
	case st.Uid != 0 || st.Mode&0o022 != 0:
		return fmt.Errorf("it belongs to uid %d with mode %04o, and others could put links there: give it to that user "+
			"yourself", st.Uid, st.Mode&0o7777)
	}
	return chownTree(root, u)
}

// chownTree changes the directory itself last: until then nobody else can reach in.
func chownTree(root *os.Root, u User) error {
	var inside []string
	err := fs.WalkDir(root.FS(), ".", func(path string, _ fs.DirEntry, err error) error {
		inside = append(inside, path)
		return err
	})
	if err != nil {
		return err
	}
	for _, path := range slices.Backward(inside) {
		if err := root.Lchown(path, u.UID, u.GID); err != nil {
			return err
		}
	}
	return nil
}

// Become starts this program again as u, in this process: same arguments, same
// descriptors, same pid. It returns only on an error.
func Become(u User, env []string) error {
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find the program itself: %w", err)
	}
	if err := changeTo(u); err != nil {
		return fmt.Errorf("go on as uid %d: %w", u.UID, err)
	}
	err = unix.Exec(self, os.Args, env)
	return fmt.Errorf("start %s again as uid %d: %w (that user must be allowed to run it)", self, u.UID, err)
}
