package config

import (
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/text/unicode/norm"
)

// asOnDisk returns a path with its elements spelled as in the file system. All text of
// a configuration is composed (NFC) when it is read, but the name of a file that was
// created elsewhere may not be: the two look the same, and only one of them exists.
// Elements that do not exist stay as they are written.
func asOnDisk(path string) string {
	plain := !strings.ContainsFunc(path, func(r rune) bool { return r >= 0x80 })
	if plain || !filepath.IsAbs(path) {
		return path // without access to a disk, which may hang
	}
	if _, err := os.Lstat(path); err == nil {
		return path
	}
	found := "/"
	for _, name := range strings.Split(filepath.Clean(path), "/") {
		found = filepath.Join(found, spelled(found, name))
	}
	return found
}

// spelled returns a directory's spelling of a name.
func spelled(dir, name string) string {
	if _, err := os.Lstat(filepath.Join(dir, name)); err == nil {
		return name
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return name
	}
	for _, e := range entries {
		if norm.NFC.String(e.Name()) == norm.NFC.String(name) {
			return e.Name()
		}
	}
	return name
}
