package main

import (
	"database/sql"
	"embed"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	_ "modernc.org/sqlite" // a second driver of the application: SQLite without C
)

// life is how the application uses SQLite in one of its processes.
type life struct {
	name   string // its key in lives
	driver string // name of the database/sql driver
	dsn    string // parameters of the data source name, after the path
	single bool   // a single connection at any time
}

// lives are the lives of this program. Scripts in other languages provide more.
var lives = map[string]life{
	"normal": {driver: "sqlite3", single: false,
		dsn: "?_busy_timeout=5000&_synchronous=NORMAL&_txlock=immediate"},
	"single": {driver: "sqlite3", single: true,
		dsn: "?_busy_timeout=5000&_synchronous=NORMAL&_txlock=immediate"},
	// A single connection that reads and then writes in a deferred transaction meets no lock when
	// it is alone.
	"deferred": {driver: "sqlite3", single: true,
		dsn: "?_busy_timeout=5000&_synchronous=NORMAL&_txlock=deferred"},
	"exclusive": {driver: "sqlite3", single: true,
		dsn: "?_busy_timeout=5000&_synchronous=NORMAL&_txlock=immediate&_locking_mode=EXCLUSIVE"},
	"unix-excl": {driver: "sqlite3", single: true,
		dsn: "?vfs=unix-excl&_busy_timeout=5000&_synchronous=NORMAL&_txlock=immediate"},
	"pure go": {driver: "sqlite", single: false,
		dsn: "?_pragma=busy_timeout(5000)&_pragma=synchronous(normal)&_txlock=immediate"},
}

// ofd is the life that uses an SQLite whose locks belong to open file descriptions.
const ofd = "ofd"

func (l life) open(path string) (*sql.DB, error) {
	db, err := sql.Open(l.driver, "file:"+path+l.dsn)
	if err == nil && l.single {
		db.SetMaxOpenConns(1)
	} else if err == nil {
		db.SetMaxOpenConns(4)
	}
	return db, err
}

// scripts keep the same ledger through the drivers of other languages, one row per transaction.
//
//go:embed scripts
var scripts embed.FS

// interpreters run scripts; probe finds out whether the driver is installed.
var interpreters = []struct{ name, script, probe string }{
	{"python3", "app.py", "-cimport sqlite3"},
	{"php", "app.php", "-rnew SQLite3(':memory:');"},
	{"ruby", "app.rb", "-rsqlite3"},
	{"perl", "app.pl", "-MDBD::SQLite"},
	{"node", "app.js", "-etry { require('node:sqlite') } catch { require('better-sqlite3') }"},
}

// choice is a life that can be chosen, as often as its weight says.
type choice struct {
	name    string
	weight  int
	command []string // before the arguments
}

// choices returns the lives that are possible on this machine; it writes the scripts into the
// scratch directory.
func (o options) choices() ([]choice, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	var all []choice
	for _, c := range []choice{{"normal", 55, nil}, {"single", 4, nil}, {"deferred", 8, nil}, {"exclusive", 7, nil},
		{"unix-excl", 6, nil}, {"pure go", 8, nil}, {ofd, 6, nil}} {
		c.command = []string{self, "app", "-life", c.name}
		all = append(all, c)
	}
	for _, i := range interpreters {
		path := "/usr/bin/" + i.name // the system's interpreter, which has the system's SQLite
		probe := append([]string{i.probe}, "-e", "1")
		if strings.HasPrefix(i.probe, "-c") || strings.HasPrefix(i.probe, "-e") || i.name == "php" {
			probe = probe[:1]
		}
		if exec.Command(path, probe...).Run() != nil {
			continue
		}
		text, err := scripts.ReadFile("scripts/" + i.script)
		if err != nil {
			return nil, err
		}
		script := filepath.Join(o.dir, i.script)
		if err := os.WriteFile(script, text, 0o600); err != nil {
			return nil, err
		}
		all = append(all, choice{i.name, 4, []string{path, script}})
	}
	return o.leave(all), nil
}

// leave drops the lives that -without names.
func (o options) leave(all []choice) []choice {
	var left []choice
	for _, c := range all {
		if !o.leftOut(c.name) {
			left = append(left, c)
		}
	}
	return left
}

func (o options) leftOut(name string) bool {
	return strings.Contains(","+o.without+",", ","+name+",")
}

// newLife chooses a life. Arguments for a special beginning (more) only suit this program's own
// lives.
func (s *scene) newLife(more []string) (choice, error) {
	if len(more) > 0 {
		return s.lifeOf("normal")
	}
	total := 0
	for _, c := range s.choices {
		total += c.weight
	}
	n := s.rng.IntN(total)
	for _, c := range s.choices {
		if n -= c.weight; n < 0 {
			return c, nil
		}
	}
	return choice{}, fmt.Errorf("no life to choose")
}

func (s *scene) lifeOf(name string) (choice, error) {
	for _, c := range s.choices {
		if c.name == name {
			return c, nil
		}
	}
	return choice{}, fmt.Errorf("the life %q is left out", name)
}
