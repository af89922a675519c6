// Package importer turns a configuration of Litestream, 0.3 or 0.5, into one of
// sqlwatch, and says of every setting that has no counterpart why it was
// dropped. It reads and writes no file.
//
// Reading order: Convert here, fields.go (settings that are taken or told),
// replica.go (URLs and stores), expand.go ($VARIABLE as Litestream
// understands it), write.go (the HCL).
package importer

import (
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"gopkg.in/yaml.v3"
)

// Options are a conversion's surroundings.
type Options struct {
	Getenv    func(string) (string, bool)
	ExpandEnv bool                         // $NAME and ${NAME}, as Litestream does by default
	Absolute  func(string) (string, error) // makes relative paths absolute
	Source    string                       // name of the file, for the heading
}

// Result is a conversion.
type Result struct {
	HCL     []byte   `json:"-"`
	Dropped []Remark `json:"dropped"` // settings without a counterpart
	Notes   []Remark `json:"notes"`   // settings that mean something else here, defaults that differ
}

// Write writes what was dropped and what is to be noted, a line each.
func (r Result) Write(w io.Writer) error {
	var err error
	for _, d := range r.Dropped {
		_, failed := fmt.Fprintf(w, "dropped %s: %s\n", d.Where, d.Why)
		err = errors.Join(err, failed)
	}
	for _, d := range r.Notes {
		_, failed := fmt.Fprintf(w, "note    %s: %s\n", d.Where, d.Why)
		err = errors.Join(err, failed)
	}
	return err
}

// Remark is one thing to know about one setting.
type Remark struct {
	Where string `json:"where"` // "dbs[0].replicas[1].age, line 12"
	Why   string `json:"why"`
}

// ErrNotLitestream says that a file is no configuration of Litestream.
var ErrNotLitestream = errors.New("not a configuration of Litestream")

// Convert turns the text of a litestream.yml into HCL.
func Convert(text []byte, o Options) (Result, error) {
	c := &conversion{Options: o, env: newExpansion(o)}
	var document yaml.Node
	if err := yaml.Unmarshal([]byte(c.env.mark(string(text))), &document); err != nil {
		return Result{}, fmt.Errorf("%w: %s", ErrNotLitestream, c.env.plain(err.Error()))
	}
	if len(document.Content) == 0 {
		return Result{}, fmt.Errorf("%w: it is empty", ErrNotLitestream)
	}
	top, err := c.section(document.Content[0], "")
	if err != nil {
		return Result{}, fmt.Errorf("%w: %w", ErrNotLitestream, err)
	}
	if err := c.convert(top); err != nil {
		return Result{}, err
	}
	c.result.HCL = c.write()
	if c.result.Dropped == nil {
		c.result.Dropped = []Remark{}
	}
	if c.result.Notes == nil {
		c.result.Notes = []Remark{}
	}
	return c.result, nil
}

// conversion is one call of Convert.
type conversion struct {
	Options
	env    *expansion
	result Result

	listen    value
	databases []database
	replicas  []replica
}

// database is one database block.
type database struct {
	name       string
	path, glob value
	replicas   []string // labels
}

// replica is one replica block.
type replica struct {
	typ, label             string
	place                  value // prefix or dir
	beneath                bool  // what a glob matched is appended to place
	bucket, region, server value
	pathStyle              bool
	access, secret         value
	sync, snapshot, keep   time.Duration // 0: the default
	verify                 time.Duration
}

// schedule is what the top level and a database say about times.
type schedule struct{ snapshot, keep, verify time.Duration }

func (c *conversion) convert(top *section) error {
	defaults := replicaSettings(top)
	var times schedule
	times.read(top)
	c.listen = top.text("addr")
	dbs, err := top.list("dbs")
	if err != nil {
		return err
	}
	if dbs == nil {
		c.note(top.where("dbs"), "there are no databases")
	}
	top.tell()
	for _, db := range dbs {
		if err := c.database(db, defaults, times); err != nil {
			return err
		}
	}
	return nil
}

// read takes snapshot and validation of 0.5.
func (t *schedule) read(s *section) {
	if snapshot := s.sub("snapshot"); snapshot != nil {
		t.snapshot = snapshot.duration("interval", t.snapshot)
		t.keep = snapshot.duration("retention", t.keep)
		snapshot.tell()
	}
	if validation := s.sub("validation"); validation != nil {
		t.verify = validation.duration("interval", t.verify)
		validation.tell()
	}
}

func (c *conversion) database(s *section, defaults map[string]*yaml.Node, times schedule) error {
	times.read(s)
	d := database{}
	base, err := c.place(s, &d)
	if err != nil {
		return err
	}
	if d.path.empty() && d.glob.empty() {
		c.drop(s.name, "it names neither path nor dir")
		return nil
	}
	d.name = c.freeName(base, func(name string) bool {
		return slices.ContainsFunc(c.databases, func(o database) bool { return o.name == name })
	})
	blocks, err := s.list("replicas")
	if err != nil {
		return err
	}
	if one := s.sub("replica"); one != nil {
		blocks = append(blocks, one)
	}
	s.tell()
	for _, b := range blocks {
		if r, ok := c.replica(b, defaults, times, d); ok {
			c.replicas = append(c.replicas, r)
			d.replicas = append(d.replicas, r.typ+"."+r.label)
		}
	}
	if len(d.replicas) == 0 {
		c.note(s.name, "this database is watched and not replicated")
	}
	c.databases = append(c.databases, d)
	return nil
}

// place reads path, or dir with pattern, and returns what to call the database.
func (c *conversion) place(s *section, d *database) (string, error) {
	path, dir, pattern := s.text("path"), s.text("dir"), s.text("pattern")
	if !path.empty() {
		abs, err := c.absolute(path)
		d.path = abs
		base := filepath.Base(c.env.plain(abs.text))
		return strings.TrimSuffix(base, filepath.Ext(base)), err
	}
	if dir.empty() {
		return "", nil
	}
	abs, err := c.absolute(dir)
	if err != nil {
		return "", err
	}
	if s.flag("recursive", false) {
		c.drop(s.where("recursive"), "a glob matches one depth: for databases further down add a database block with glob "+
			"= \""+c.env.plain(abs.text)+"/*/"+c.env.plain(pattern.text)+"\"")
	}
	s.ignore("watch") // files that appear later are always taken up
	d.glob = value{abs.text + "/" + pattern.text}
	return filepath.Base(c.env.plain(abs.text)), nil
}

// absolute makes a path absolute as Litestream does: without the prefix of a
// connection string, with ~ as the home directory.
func (c *conversion) absolute(v value) (value, error) {
	text := strings.TrimPrefix(strings.TrimPrefix(v.text, "sqlite3://"), "sqlite://")
	if text == "~" || strings.HasPrefix(text, "~/") {
		home, ok := c.Getenv("HOME")
		if !ok || home == "" {
			return v, fmt.Errorf("%s: there is no $HOME to put in place of ~", c.env.plain(v.text))
		}
		return value{home + text[1:]}, nil
	}
	if strings.HasPrefix(c.env.plain(text), "/") {
		return value{text}, nil
	}
	abs, err := c.Absolute(text)
	return value{abs}, err
}

// freeName returns name, or name-2, name-3 … where it is taken.
func (c *conversion) freeName(name string, taken func(string) bool) string {
	name = strings.TrimLeft(strings.Map(func(r rune) rune {
		if r == '/' || r == '\\' || r < ' ' {
			return '-'
		}
		return r
	}, name), ".")
	if name == "" {
		name = "db"
	}
	free := name
	for n := 2; taken(free); n++ {
		free = fmt.Sprintf("%s-%d", name, n)
	}
	return free
}

func (c *conversion) drop(where, why string) {
	c.result.Dropped = append(c.result.Dropped, Remark{where, why})
}

func (c *conversion) note(where, why string) {
	c.result.Notes = append(c.result.Notes, Remark{where, why})
}
