package asuser

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// root skips the test if it cannot change owners, and returns a directory.
func root(t *testing.T) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root can make files of other users")
	}
	dir := t.TempDir()
	return dir
}

// owned creates a file in a new directory, with an owner for each.
func owned(t *testing.T, dir, name string, dirUID, fileUID int) string {
	t.Helper()
	sub := filepath.Join(dir, name)
	path := filepath.Join(sub, "app.db")
	for _, err := range []error{
		os.Mkdir(sub, 0o755), os.WriteFile(path, nil, 0o644),
		os.Chown(path, fileUID, fileUID), os.Chown(sub, dirUID, dirUID),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	return path
}

func TestOwnerOf_X11(t *testing.T) {
	dir := root(t)
	ann, bob := owned(t, dir, "ann", 1001, 1001), owned(t, dir, "bob", 1002, 1002)
	planted := owned(t, dir, "planted", 1002, 0) // as a hard link to a file of root would be
	link := filepath.Join(dir, "bob", "link.db")
	if err := errors.Join(os.Symlink(ann, link), os.Lchown(link, 1002, 1002)); err != nil {
		t.Fatal(err)
	}
	roots := filepath.Join(dir, "root.db")
	if err := os.Symlink(ann, roots); err != nil {
		t.Fatal(err)
	}
	missing := filepath.Join(dir, "bob", "not yet.db")
	for _, tt := range []struct {
		name  string
		paths []string
		uid   int
		ok    bool
		err   string
	}{
		{name: "one user", paths: []string{ann}, uid: 1001, ok: true},
		{name: "a file that is not there yet", paths: []string{missing, bob}, uid: 1002, ok: true},
		{name: "root's own link", paths: []string{roots}, uid: 1001, ok: true},
		{name: "no place at all", paths: []string{filepath.Join(dir, "nowhere", "app.db")}},
		{name: "paths that no file can have", uid: 1001, ok: true, paths: []string{filepath.Join(ann, "app.db"),
			filepath.Join(dir, strings.Repeat("x", 300)), ann}},
		{name: "two users", paths: []string{ann, bob}, err: "sqlwatch@1002.service"},
		{name: "a user's link to another's file", paths: []string{link}, err: "uid 1002, who could put any file there"},
		{name: "root's file in a user's directory", paths: []string{planted}, err: "uid 1002, who could put any file there"},
		{name: "none", ok: false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, ok, err := OwnerOf(tt.paths)
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Fatalf("error %v, want one with %q", err, tt.err)
				}
				return
			}
			if err != nil || ok != tt.ok || got.UID != tt.uid {
				t.Errorf("got %+v, %v, %v; want uid %d, %v", got, ok, err, tt.uid, tt.ok)
			}
		})
	}
}

func TestHandOver_X11(t *testing.T) {
	dir := root(t)
	u := User{UID: 1001, GID: 1001}
	state := filepath.Join(dir, "state")
	deep := filepath.Join(state, "databases", "app")
	foreign := filepath.Join(dir, "etc")
	victim := filepath.Join(dir, "victim")
	for _, err := range []error{
		os.MkdirAll(deep, 0o700), os.WriteFile(filepath.Join(state, "lock"), nil, 0o600),
		os.Mkdir(foreign, 0o755), os.WriteFile(filepath.Join(foreign, "passwd"), nil, 0o600),
		os.WriteFile(victim, nil, 0o600), os.Symlink(victim, filepath.Join(state, "link")),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := HandOver(u, state, "lock"); err != nil {
		t.Fatal(err)
	}
	if err := HandOver(u, filepath.Join(dir, "new", "run"), ""); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]int{state: 1001, deep: 1001, victim: 0, filepath.Join(dir, "new", "run"): 1001} {
		if got, err := ownerOf(filepath.Join(path, "absent")); err == nil && path != victim && got.UID != want {
			t.Errorf("%s belongs to uid %d, want %d", path, got.UID, want)
		}
	}
	if got, err := ownerOf(victim); err != nil || got.UID != 0 {
		t.Errorf("what a link led to changed hands: %+v, %v", got, err)
	}
	if err := HandOver(u, foreign, "lock"); err == nil {
		t.Error("a directory that is not ours was given away")
	}
	if err := HandOver(u, foreign, ""); err != nil {
		t.Errorf("a directory in use without a mark is left as it is, got %v", err)
	}
	if got, err := ownerOf(filepath.Join(foreign, "passwd")); err != nil || got.UID != 0 {
		t.Errorf("a stranger's file changed hands: %+v, %v", got, err)
	}
}

func TestReadable_X11(t *testing.T) {
	dir := root(t)
	path := owned(t, dir, "conf", 0, 0)
	for mode, want := range map[os.FileMode]bool{0o600: false, 0o640: false, 0o644: true} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		if got, err := Readable(User{UID: 1001, GID: 1001}, path); err != nil || got != want {
			t.Errorf("mode %o: %v, %v, want %v", mode, got, err, want)
		}
	}
}
