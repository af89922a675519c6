package doctor

import (
	"bytes"
	"debug/buildinfo"
	"fmt"
	"iter"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"github.com/sqlwatch/sqlwatch/internal/dbfile"
)

// maxProgram is the size up to which a file is searched for SQLite's version. Programs that
// contain SQLite can be that large, and doctor reads them whole.
const maxProgram = 128 << 20

// Both patterns begin with a few literal bytes that are found fast, so that the expression is
// not tried at each of a program's hundred million bytes.
var (
	// In every library and program, SQLite's source id is near its version.
	sourceID    = regexp.MustCompile(`^20[0-9]{2}-[01][0-9]-[0-3][0-9] [0-2][0-9]:[0-5][0-9]:[0-5][0-9] [0-9a-f]{60}`)
	versionText = regexp.MustCompile(`^[^0-9.]3\.([0-9]{1,2})\.([0-9]{1,2})\x00`)
	mapped      = regexp.MustCompile(`(?m)^[0-9a-f]+-[0-9a-f]+ r-xp .*?(/.*)$`)
)

// engineOf returns the version of the SQLite that a process has loaded, or 0 if it cannot be
// determined. It reads the library or the program, never a database.
func engineOf(pid int) uint32 {
	dir := fmt.Sprintf("/proc/%d", pid)
	maps, err := os.ReadFile(dir + "/maps")
	if err != nil {
		return 0
	}
	var program string
	for _, m := range mapped.FindAllSubmatch(maps, -1) {
		name := string(m[1])
		if strings.Contains(filepath.Base(name), "sqlite") && !strings.HasSuffix(name, " (deleted)") {
			if v := versionIn(dir + "/root" + name); v > 0 {
				return v
			}
		}
		if program == "" {
			program = dir + "/exe"
		}
	}
	return versionIn(program)
}

// versionIn returns the version of the SQLite in a file, or 0 if there is none, or if the file
// contains several candidates.
func versionIn(name string) uint32 {
	info, err := os.Stat(name)
	if err != nil || !info.Mode().IsRegular() || info.Size() > maxProgram {
		return 0
	}
	text, err := os.ReadFile(name)
	if err != nil || bytes.HasPrefix(text, []byte("SQLite format 3")) || !hasSourceID(text) {
		return 0
	}
	found := uint32(0)
	for at := range occurrences(text, "3.") {
		m := versionText.FindSubmatch(text[max(at-1, 0):min(at+len("3.99.99\x00"), len(text))])
		if m == nil {
			continue
		}
		minor, _ := strconv.Atoi(string(m[1])) // digits
		patch, _ := strconv.Atoi(string(m[2]))
		v := uint32(3000000 + minor*1000 + patch)
		if minor < 7 || v == found {
			continue
		}
		if found > 0 {
			return 0
		}
		found = v
	}
	return found
}

// hasSourceID reports whether a program contains SQLite's source id.
func hasSourceID(text []byte) bool {
	const length = len("2026-01-01 00:00:00 ") + 60
	for at := range occurrences(text, "20") {
		if at+length <= len(text) && text[at+4] == '-' && text[at+7] == '-' && sourceID.Match(text[at:at+length]) {
			return true
		}
	}
	return false
}

// occurrences yields the offsets of part in text.
func occurrences(text []byte, part string) iter.Seq[int] {
	return func(yield func(int) bool) {
		for from := 0; ; {
			at := bytes.Index(text[from:], []byte(part))
			if at < 0 || !yield(from+at) {
				return
			}
			from += at + 1
		}
	}
}

// programOf returns the path of the Go main package that a process's program was built from,
// whatever its file is called, or "" if that is not known.
func programOf(pid int) string {
	info, err := buildinfo.ReadFile(fmt.Sprintf("/proc/%d/exe", pid))
	if err != nil {
		return ""
	}
	return info.Path
}

// isLitestream reports whether a process is Litestream, judged by the package it was built
// from, or by a name such as litestream-0.3.13.
func (p Process) isLitestream() bool {
	return strings.HasPrefix(p.Program, "github.com/benbjohnson/litestream") || strings.HasPrefix(p.Command, "litestream")
}

// oldEngines finds connected processes whose SQLite has the WAL-reset bug, no matter which
// process wrote last.
func oldEngines(f Facts) []Finding {
	var old []string
	for _, p := range f.Processes {
		if dbfile.HasWALResetBug(p.Engine) && !p.isSqlwatch() {
			old = append(old, fmt.Sprintf("%s with SQLite %s", p.name(), dbfile.EngineVersion(p.Engine)))
		}
	}
	if len(old) == 0 || len(walResetBug(f)) > 0 {
		return nil
	}
	finding := one("wal-reset-bug", Warning, "processes that have the database open use an SQLite with the WAL-reset bug "+
		"(3.7.0 to 3.51.2): "+strings.Join(old, "; "), walResetWhy, walResetCure)
	return finding
}
