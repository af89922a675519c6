package config

import (
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"unicode"
	"unicode/utf8"

	"github.com/hashicorp/hcl/v2"
	"github.com/zclconf/go-cty/cty"

	"github.com/sqlwatch/sqlwatch/internal/hcldecode"
	"github.com/sqlwatch/sqlwatch/internal/lookup"
)

// maxMatches limits how many files one glob may match.
const maxMatches = 20000

func (l *loading) database(b *hcl.Block) {
	if !l.define(b, "database "+b.Labels[0]) {
		return
	}
	schema := hcldecode.Attributes("path", "glob", "exclude", "name", "labels", "replicate_to")
	schema.Blocks = []hcl.BlockHeaderSchema{{Type: "restart"}}
	content := l.Content(b.Body, schema)
	a := content.Attributes
	d := Database{Name: b.Labels[0], Range: b.DefRange, Restart: DefaultRestart()}
	d.Path, d.Glob = l.Plain(a["path"], ""), l.Plain(a["glob"], "")
	d.Exclude, d.Labels = l.Texts(a["exclude"]), l.TextMap(a["labels"])
	d.ReplicateTo = l.Refs(a["replicate_to"], "replica", l.Scope.Replicas)
	d.nameTemplate = l.template(a["name"])
	if r := l.Single(content.Blocks, "restart"); r != nil {
		ra := l.Content(r.Body, hcldecode.Attributes("at", "stall_budget")).Attributes
		d.Restart.At = l.Size(ra["at"], d.Restart.At, 1e6, 1e12)
		d.Restart.StallBudget = l.Duration(ra["stall_budget"], d.Restart.StallBudget, 1e6, 60e9)
	}
	for name, empty := range map[string]bool{"replicate_to": len(d.ReplicateTo) == 0, "labels": len(d.Labels) == 0,
		"exclude": len(d.Exclude) == 0} {
		if a[name] != nil && empty && !l.Diags.HasErrors() {
			l.Warnf(a[name].Expr.Range(), "No effect", "An empty %s is as good as none%s; leave it out.", name,
				map[string]string{"replicate_to": ": this database is not replicated"}[name])
		}
	}
	l.place(&d, a, b)
	l.cfg.Databases = append(l.cfg.Databases, d)
}

// place checks path, glob and name against each other.
func (l *loading) place(d *Database, a hcl.Attributes, b *hcl.Block) {
	switch {
	case (a["path"] == nil) == (a["glob"] == nil):
		l.Errorf(b.DefRange, "No place", "A database has either path, one file, or glob, a pattern of files.")
	case a["path"] != nil && d.Path == "" && !l.Diags.HasErrors(), a["glob"] != nil && d.Glob == "" &&
		!l.Diags.HasErrors():
		l.Errorf(b.DefRange, "No place", "The path or glob of this database is empty.")
	case a["path"] != nil && d.Path != "" && !filepath.IsAbs(d.Path):
		l.Errorf(a["path"].Expr.Range(), "Relative path", "%q depends on where sqlwatch is started; write an absolute path.",
			d.Path)
	case a["glob"] != nil && d.Glob != "" && !filepath.IsAbs(d.Glob):
		l.Errorf(a["glob"].Expr.Range(), "Relative path", "%q depends on where sqlwatch is started; write an absolute path.",
			d.Glob)
	case strings.Contains(d.Glob, "**"):
		l.Errorf(a["glob"].Expr.Range(), "Bad pattern", "** is not understood; * stands for one element of a path.")
	}
	for _, pattern := range d.Exclude {
		if _, err := filepath.Match(pattern, ""); err != nil || !filepath.IsAbs(pattern) || d.Glob == "" {
			l.Errorf(a["exclude"].Expr.Range(), "Bad pattern", "%q is no pattern of an absolute path beside a glob.", pattern)
		}
	}
	if d.Path != "" {
		d.Path = asOnDisk(d.Path)
	}
	if d.Glob != "" {
		fixed := fixedPart(d.Glob)
		d.Glob = asOnDisk(fixed) + strings.TrimPrefix(d.Glob, fixed)
	}
	if _, err := filepath.Match(d.Glob, ""); err != nil {
		l.Errorf(a["glob"].Expr.Range(), "Bad pattern", "%q is not a pattern.", d.Glob)
	}
	if d.Path != "" {
		if err := goodName(d.Name); err != nil && a["name"] == nil {
			l.Errorf(b.LabelRanges[0], "Bad name", "%v.", err)
		}
	}
}

// goodName rejects names that would cause problems as a file name, as a key in a bucket or as the
// label of a metric.
func goodName(name string) error {
	bad := func(r rune) bool { return r == '/' || r == '\\' || unicode.IsControl(r) || r == utf8.RuneError }
	switch {
	case name == "" || len(name) > 200:
		return fmt.Errorf("a database name has 1 to 200 bytes, %q has %d", name, len(name))
	case strings.HasPrefix(name, "."):
		return fmt.Errorf("the database name %q begins with a dot", name)
	case strings.ContainsFunc(name, bad):
		return fmt.Errorf("the database name %q has a slash or a control character", name)
	}
	return nil
}

// Expand finds the databases that exist for the globs now, names each, and renders its replicas.
// Databases that contradict each other are left out and reported in the error; the targets returned
// with it are good.
func (c *Config) Expand() ([]DatabaseTarget, error) {
	targets, leftOut := c.ExpandAround(nil, lookup.New())
	var errs []error
	for _, l := range leftOut {
		errs = append(errs, fmt.Errorf("%s: %s", l.Place, l.Why))
	}
	return targets, errors.Join(errs...)
}

// Known is a database that a glob found earlier or, if it has only a path, would find.
type Known struct {
	Name  string `json:"name"`
	Path  string `json:"path"`
	Block string `json:"block"` // the label of the block with the glob
}

// LeftOut is something that the configuration names but that is not watched.
type LeftOut struct {
	Place string // a path, or a directory of too many files
	Why   string
	Count int // of files
}

// ExpandAround is Expand when some databases are already watched. Each of them stays, under its name
// and whether its file exists or not, as long as its block's glob could have found it; new databases
// that contradict it are left out. It does not wait for files on a disk that does not answer: what is
// already watched stays.
func (c *Config) ExpandAround(known []Known, disks *lookup.Disks) ([]DatabaseTarget, []LeftOut) {
	x := &expansion{cfg: c, disks: disks, names: map[string]string{}, inodes: map[inode]string{}, paths: map[string]bool{},
		places: map[string]string{}, above: map[string]string{}}
	for _, d := range c.Databases {
		if d.Glob == "" {
			x.add(d, d.Path)
		}
	}
	for _, d := range c.Databases {
		for _, k := range known {
			if name, err := d.nameOf(k.Path); d.Glob != "" && err == nil && (k == Known{Path: k.Path} ||
				k.Block == d.Name && name == k.Name) && x.fits(d, k.Path) {
				x.add(d, k.Path)
			}
		}
	}
	for _, d := range c.Databases {
		if d.Glob == "" {
			continue
		}
		matches, leftOut, err := c.matches(d.Glob, disks)
		x.leftOut = append(x.leftOut, leftOut...)
		if err != nil {
			x.leftOut = append(x.leftOut, LeftOut{Place: d.Glob, Why: err.Error(), Count: 1})
		}
		for _, path := range matches {
			if x.paths[filepath.Clean(path)] || d.excludes(path) {
				continue
			}
			if err := within(d.Glob, path, disks); err != nil {
				x.leftOut = append(x.leftOut, LeftOut{Place: path, Why: fmt.Sprintf("database %q: %v", d.Name, err), Count: 1})
				continue
			}
			x.add(d, path)
		}
	}
	return x.targets, x.leftOut
}

// fits reports whether the block's glob matches a path that belongs to no other database.
func (x *expansion) fits(d Database, path string) bool {
	match, err := filepath.Match(d.Glob, path)
	return err == nil && match && !x.paths[filepath.Clean(path)] && !x.cfg.ours(path) && !sideFile(path) &&
		!d.excludes(path)
}

// excludes reports whether the block excludes a match of its glob.
func (d Database) excludes(path string) bool {
	return slices.ContainsFunc(d.Exclude, func(p string) bool { match, _ := filepath.Match(p, path); return match })
}

// Unmatched returns the globs that currently match no file.
func (c *Config) Unmatched() []Database {
	var out []Database
	disks := lookup.New()
	for _, d := range c.Databases {
		if d.Glob != "" {
			if m, leftOut, err := c.matches(d.Glob, disks); err == nil && len(m) == 0 && len(leftOut) == 0 {
				out = append(out, d)
			}
		}
	}
	return out
}

// matches returns the files that a glob matches, without SQLite's side files and without those in our
// own state directory, and the parts that cannot be examined.
func (c *Config) matches(glob string, disks *lookup.Disks) ([]string, []LeftOut, error) {
	all, hung, err := disks.Glob(glob)
	if err != nil {
		return nil, nil, fmt.Errorf("glob %s: %w", glob, err)
	}
	var out []string
	for _, path := range all {
		if !c.ours(path) && !sideFile(path) {
			out = append(out, path)
		}
	}
	kept, leftOut := share(out, maxMatches)
	for _, dir := range hung {
		leftOut = append(leftOut, LeftOut{Place: dir, Why: lookup.ErrHung.Error() + ": what is new there is not watched yet",
			Count: 1})
	}
	return kept, leftOut, nil
}

// share keeps at most limit of the paths. If there are more, each directory gets the same share, so
// that one full of files takes nothing from the others.
func share(paths []string, limit int) (kept []string, leftOut []LeftOut) {
	if len(paths) <= limit {
		return paths, nil
	}
	count := map[string]int{}
	for _, path := range paths {
		count[filepath.Dir(path)]++
	}
	// The share that small directories do not use goes to the larger ones.
	sizes := slices.Sorted(maps.Values(count))
	quota, room := 0, limit
	for i, n := range sizes {
		if quota = max(1, room/(len(sizes)-i)); n > quota {
			break
		}
		room -= n
	}
	taken := map[string]int{}
	for _, path := range paths {
		if dir := filepath.Dir(path); taken[dir] < quota && len(kept) < limit {
			taken[dir]++
			kept = append(kept, path)
		}
	}
	for _, dir := range slices.Sorted(maps.Keys(count)) {
		if n := count[dir] - taken[dir]; n > 0 {
			why := fmt.Sprintf("the glob matches %d files, of which at most %d are watched, and %d of this directory",
				len(paths), limit, quota)
			leftOut = append(leftOut, LeftOut{Place: dir, Why: why, Count: n})
		}
	}
	return kept, leftOut
}

// fixedPart returns the directory in which a glob begins to search.
func fixedPart(glob string) string {
	fixed := filepath.Dir(glob)
	for strings.ContainsAny(fixed, `*?[\`) {
		fixed = filepath.Dir(fixed)
	}
	return fixed
}

// within rejects a match that a link leads out of its directory. Otherwise anybody who can write there
// could make us watch and replicate any file, under a name of their choice.
func within(glob, path string, disks *lookup.Disks) error {
	fixed := fixedPart(glob)
	target, err := disks.Resolve(path)
	if errors.Is(err, lookup.ErrHung) {
		return err // the file may belong to another user
	}
	if err != nil {
		return nil // it is gone or unreadable: reported when it is opened
	}
	resolved, err := disks.Resolve(fixed)
	if err != nil {
		return nil
	}
	rel, err := filepath.Rel(fixed, filepath.Dir(path))
	if err != nil || filepath.Join(resolved, rel) != filepath.Dir(target) {
		return fmt.Errorf("a link leads to %s, and a glob follows none out of a file's directory: give that file a block "+
			"with path", target)
	}
	return nil
}

func (c *Config) ours(path string) bool {
	rel, err := filepath.Rel(c.Server.StateDir, path)
	return err == nil && rel != ".." && !strings.HasPrefix(rel, "../")
}

func sideFile(path string) bool {
	for _, suffix := range []string{"-wal", "-shm", "-journal", "-sqlwatch"} {
		if strings.HasSuffix(path, suffix) {
			return true
		}
	}
	return false
}

type inode struct{ dev, ino uint64 }

// expansion collects targets and what conflicts with further ones.
type expansion struct {
	cfg     *Config
	disks   *lookup.Disks
	targets []DatabaseTarget
	leftOut []LeftOut
	names   map[string]string // name → path
	inodes  map[inode]string  // file → path
	paths   map[string]bool
	places  map[string]string // location → database that replicates to it
	above   map[string]string // location → a database that replicates to a place inside it
}

// ancestors returns a location and all locations that contain it.
func ancestors(location string) []string {
	var out []string
	for i, c := range location {
		if c == '/' {
			out = append(out, location[:i+1])
		}
	}
	return out
}

// conflict returns the database that replicates to a location, or to one above or below it.
func (x *expansion) conflict(location string) string {
	for _, l := range ancestors(location) {
		if other, taken := x.places[l]; taken {
			return other
		}
	}
	return x.above[location]
}

func (x *expansion) occupy(location, database string) {
	x.places[location] = database
	for _, l := range ancestors(location) {
		x.above[l] = database
	}
}

func (x *expansion) add(d Database, path string) {
	t := DatabaseTarget{Path: filepath.Clean(path), Labels: d.Labels, Restart: d.Restart, Range: d.Range, Block: d.Name,
		Glob: d.Glob != ""}
	if err := x.complete(&t, d); err != nil {
		x.leftOut = append(x.leftOut, LeftOut{Place: path, Why: fmt.Sprintf("database %q: %v", d.Name, err), Count: 1})
		return
	}
	x.targets = append(x.targets, t)
}

func (x *expansion) complete(t *DatabaseTarget, d Database) error {
	name, err := d.nameOf(t.Path)
	if err != nil {
		return err
	}
	t.Name = name
	if other, dup := x.names[name]; dup {
		return fmt.Errorf("the name %q is taken by %s", name, other)
	}
	id, known := x.inodeOf(t.Path)
	if other, dup := x.inodes[id]; known && dup {
		return fmt.Errorf("this is the same file as %s, which is watched already", other)
	}
	if x.paths[t.Path] {
		return errors.New("the path is watched already")
	}
	for _, ref := range d.ReplicateTo {
		r, err := x.cfg.Replicas[ref].For(name, t.Path, d.Labels)
		if err != nil {
			return err
		}
		if other := x.conflict(r.location()); other != "" {
			return fmt.Errorf("replica %s would go to %s, which is, contains or lies within the place of %s; put ${db.name} "+
				"into its prefix or dir", ref, r.Place(), other)
		}
		for _, other := range t.Replicas {
			if a, b := r.location(), other.location(); strings.HasPrefix(a, b) || strings.HasPrefix(b, a) {
				return fmt.Errorf("replica %s would go to %s, which is, contains or lies within the place of %s", ref, r.Place(),
					other.Name)
			}
		}
		t.Replicas = append(t.Replicas, r)
	}
	for _, r := range t.Replicas {
		x.occupy(r.location(), name+" on "+r.Name)
	}
	x.paths[t.Path] = true
	x.names[name] = t.Path
	if known {
		x.inodes[id] = t.Path
	}
	return nil
}

// nameOf returns a name for the database at a path.
func (d Database) nameOf(path string) (string, error) {
	name := d.Name
	switch {
	case d.nameTemplate != nil:
		var err error
		if name, err = d.nameTemplate.render(dbFacts(cty.StringVal(d.Name), cty.StringVal(path), d.Labels)); err != nil {
			return "", err
		}
	case d.Glob != "":
		// The text that the wildcards matched distinguishes the matches.
		pattern, elements := strings.Split(filepath.Clean(d.Glob), "/"), strings.Split(path, "/")
		for i := range min(len(pattern), len(elements)) {
			if strings.ContainsAny(pattern[i], `*?[`) {
				name += "-" + strings.TrimSuffix(elements[i], filepath.Ext(elements[i]))
			}
		}
	}
	return name, goodName(name)
}

// inodeOf uses stat and does not open the file: closing a descriptor of a database would drop this
// process's locks on it.
func (x *expansion) inodeOf(path string) (inode, bool) {
	info, err := x.disks.Stat(path)
	if err != nil {
		return inode{}, false
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return inode{}, false
	}
	return inode{uint64(st.Dev), st.Ino}, true
}
