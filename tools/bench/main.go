// Command bench compares sqlwatch with Litestream, in one run, against the same
// S3 server on this machine:
//
//	go run -C tools/bench .            all scenes, some ten minutes
//	go run -C tools/bench . -scenes load,loss -json
//
// Litestream is the program that $LITESTREAM names, or the one in PATH; without
// it only sqlwatch is measured. The server is versitygw, built from the module
// in tools/. The applications are unmodified: Python's sqlite3. Each program
// talks to the server through a proxy of its own that counts its requests.
package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// scene is one comparison. It is run once for each program, with a new prefix and new databases,
// and returns what it measured.
type scene struct {
	name, what string
	run        func(*stage) ([]figure, error)
	alone      bool // sqlwatch only
}

// scenes are all scenes in their order.
var scenes = []scene{
	{name: "load", what: "200 commits a second for 20 s, sync every 1 s", run: underLoad},
	{name: "slow", what: "20 commits a second for 60 s, sync every 30 s", run: syncedSeldom},
	{name: "loss", what: "kill -9 of daemon and application under 200 commits a second, sync every 1 s", run: lossOnKill},
	{name: "idle", what: "100 databases that are open and idle", run: idle},
	{name: "fresh", what: "a database of 200 MB that was never replicated, then its restore", run: freshDatabase},
	{name: "thousand", what: "1,000 databases in one process", run: thousand, alone: true},
	{name: "uplink", what: "60 databases of 3 MB at once, one of them busy, over 7 Mbit/s", run: uplink, alone: true},
	{name: "outage", what: "200 databases that are written to, and no server for a while", run: afterOutage, alone: true},
	{name: "beside", what: "a writer at full speed, alone and beside replication by turns", run: beside, alone: true},
}

// figure is one number measured of one program. Less is better, except for speeds.
type figure struct {
	What  string  `json:"what"`
	Value float64 `json:"value"`
	Unit  string  `json:"unit"`
}

// row is a figure of both programs.
type row struct {
	Scene      string   `json:"scene"`
	What       string   `json:"what"`
	Unit       string   `json:"unit"`
	Sqlwatch   *float64 `json:"sqlwatch"`
	Litestream *float64 `json:"litestream"`
	Ratio      *float64 `json:"ratio"` // sqlwatch / Litestream
}

// report is what bench prints.
type report struct {
	Began      time.Time `json:"began"`
	Load       string    `json:"load_before_and_after"` // of the machine: if others use it, the figures mean less
	Litestream string    `json:"litestream"`
	Skipped    []string  `json:"skipped,omitempty"`
	Rows       []row     `json:"rows"`
}

// options are the flags.
type options struct {
	sqlwatch, scenes, dir string
	idleFor, freshFor     time.Duration
	outage                time.Duration
	besideFor             time.Duration
	databases             int
	besideMB, rounds      int
	asJSON                bool
}

func main() {
	var o options
	flag.StringVar(&o.sqlwatch, "sqlwatch", "", "the program to measure (default: built from this tree)")
	flag.StringVar(&o.scenes, "scenes", "", "comma-separated scenes (default: all)")
	flag.StringVar(&o.dir, "dir", "", "scratch directory (default: a new one, removed at the end)")
	flag.DurationVar(&o.idleFor, "idle", 20*time.Second, "how long idle databases are measured")
	flag.DurationVar(&o.freshFor, "fresh", 75*time.Second, "how long uploads of the new database are counted")
	flag.DurationVar(&o.outage, "outage", 10*time.Minute, "how long the server is down in the scene outage")
	flag.IntVar(&o.databases, "databases", 1000, "number of databases in the scene thousand")
	flag.DurationVar(&o.besideFor, "beside", 20*time.Second, "how long the writer runs each time in the scene beside")
	flag.IntVar(&o.besideMB, "mb", 1500, "size of the database of a first capture in the scene beside")
	flag.IntVar(&o.rounds, "rounds", 3, "number of measurements of each kind in the scene beside")
	flag.BoolVar(&o.asJSON, "json", false, "print JSON")
	flag.Parse()
	if err := run(o, os.Stdout, os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(o options, stdout, progress io.Writer) (err error) {
	wanted, err := chosen(o.scenes)
	if err != nil {
		return err
	}
	if o.dir == "" {
		if o.dir, err = os.MkdirTemp("", "sqlwatch-bench"); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, os.RemoveAll(o.dir)) }()
	}
	server, err := startServer(o.dir)
	if err != nil {
		return err
	}
	defer server.stop()
	r := report{Began: time.Now(), Load: loadAverage(), Litestream: "not installed"}
	ours, err := newSqlwatch(o)
	if err != nil {
		return err
	}
	theirs, err := findLitestream()
	programs := []program{ours}
	if err != nil {
		r.Skipped = append(r.Skipped, err.Error())
	} else {
		r.Litestream = theirs.version
		programs = append(programs, theirs)
	}
	for _, sc := range wanted {
		for i, p := range programs {
			if sc.alone && i > 0 {
				continue
			}
			fmt.Fprintf(progress, "%s: %s: %s (load %s)\n", sc.name, p.name(), sc.what, loadAverage())
			figures, err := perform(o, sc, p, server)
			if err != nil {
				return fmt.Errorf("%s of %s: %w", sc.name, p.name(), err)
			}
			r.add(sc.name, i, figures)
			for _, f := range figures {
				fmt.Fprintf(progress, "  %s: %s %s\n", f.What, number(&f.Value), f.Unit)
			}
		}
	}
	r.Load += " … " + loadAverage()
	return r.print(stdout, o.asJSON)
}

// perform runs one scene with one program, on a stage of its own.
func perform(o options, sc scene, p program, server *server) ([]figure, error) {
	dir := filepath.Join(o.dir, sc.name+"-"+p.name())
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	proxy, err := newProxy(server.url)
	if err != nil {
		return nil, err
	}
	defer proxy.close()
	st := &stage{o: o, dir: dir, program: p, proxy: proxy, prefix: sc.name + "-" + p.name(), objects: server.objects}
	defer st.clear()
	return sc.run(st)
}

func chosen(names string) ([]scene, error) {
	if names == "" {
		return scenes, nil
	}
	var out []scene
	for _, name := range strings.Split(names, ",") {
		i := slices.IndexFunc(scenes, func(s scene) bool { return s.name == name })
		if i < 0 {
			return nil, fmt.Errorf("there is no scene %q", name)
		}
		out = append(out, scenes[i])
	}
	return out, nil
}

// add adds the figures of one program to the rows.
func (r *report) add(scene string, column int, figures []figure) {
	for _, f := range figures {
		i := slices.IndexFunc(r.Rows, func(x row) bool { return x.Scene == scene && x.What == f.What })
		if i < 0 {
			i = len(r.Rows)
			r.Rows = append(r.Rows, row{Scene: scene, What: f.What, Unit: f.Unit})
		}
		x := &r.Rows[i]
		if value := f.Value; column == 0 {
			x.Sqlwatch = &value
		} else {
			x.Litestream = &value
		}
		if x.Sqlwatch != nil && x.Litestream != nil && *x.Litestream != 0 {
			ratio := *x.Sqlwatch / *x.Litestream
			x.Ratio = &ratio
		}
	}
}

func (r *report) print(w io.Writer, asJSON bool) error {
	if asJSON {
		enc := json.NewEncoder(w)
		enc.SetIndent("", "  ")
		return enc.Encode(r)
	}
	for _, s := range r.Skipped {
		fmt.Fprintln(w, "skipped:", s)
	}
	fmt.Fprintf(w, "Litestream: %s; load of the machine: %s\n\n", r.Litestream, r.Load)
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(table, "scene\twhat\tsqlwatch\tLitestream\tratio\t")
	last := ""
	for _, x := range r.Rows {
		name := x.Scene
		if name == last {
			name = ""
		}
		last = x.Scene
		fmt.Fprintf(table, "%s\t%s, %s\t%s\t%s\t%s\t\n", name, x.What, x.Unit, number(x.Sqlwatch), number(x.Litestream),
			number(x.Ratio))
	}
	return table.Flush()
}

func number(v *float64) string {
	switch {
	case v == nil:
		return "-"
	case *v >= 100 || *v == float64(int64(*v)):
		return fmt.Sprintf("%.0f", *v)
	default:
		return fmt.Sprintf("%.2f", *v)
	}
}

// loadAverage returns the machine's load of the last minute.
func loadAverage() string {
	text, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "unknown"
	}
	first, _, _ := strings.Cut(string(text), " ")
	return first
}

// moduleRoot returns the directory of the project, two above this module.
func moduleRoot() (string, error) {
	out, err := exec.Command("go", "env", "GOMOD").Output()
	if err != nil {
		return "", fmt.Errorf("find go.mod: %w", err)
	}
	return filepath.Join(filepath.Dir(strings.TrimSpace(string(out))), "..", ".."), nil
}
