// Package archtest keeps the shape of the source tree: which package imports which, which may
// open and rename files and run SQL, and how long a file, a function and a package may grow. A
// failure here is a design question, not a formality: answer it in the table below or in the
// code.
package archtest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
)

const module = "github.com/sqlwatch/sqlwatch"

// arrows lists, for each package, the packages of this module that it may import.
// "*" allows all.
var arrows = map[string][]string{
	"cmd/sqlwatch": {"*"},
	"internal/daemon": {"internal/dirwatch", "internal/inventory", "internal/show", "replicator/custody",
		"internal/health", "internal/notify/channel", "internal/freshness", "internal/fault", "internal/lookup",
		"internal/decisions", "internal/replay", "internal/watchdog/plain",
		"collector", "collector/busy", "internal/config", "internal/dbfile", "internal/durable", "internal/notify",
		"internal/sqlite", "internal/watchdog", "internal/web", "policy", "replicator", "replicator/capture",
		"replicator/requests", "replicator/store", "replicator/store/file", "replicator/store/s3",
		"replicator/store/spelled", "replicator/queue",
	}, // the composition root
	"internal/demo": {"internal/config", "internal/daemon", "internal/dbfile", "internal/durable", "internal/sqlite",
		"internal/views", "internal/watchdog", "internal/watchdog/plain", "replicator/restore",
		"replicator/store/file"}, // runs a daemon for a newcomer
	// What operators' arguments mean, and what a terminal shows.
	"internal/quote": {}, // quotes configuration files without their secrets
	"internal/target": {"internal/quote", "internal/lookup",
		"collector", "internal/health", "internal/watchdog", "internal/admin",
		"internal/config", "internal/daemon", "internal/show", "internal/unit", "policy",
		"replicator/catalog", "replicator/custody", "replicator/lineage", "replicator/store"},
	"internal/recovery": {"internal/lookup",
		"internal/config", "internal/daemon", "internal/durable", "internal/show", "internal/target",
		"replicator/catalog", "replicator/custody", "replicator/lineage", "replicator/restore", "replicator/stage",
		"replicator/store"},
	"internal/admin": {"internal/health", "internal/unit", "internal/watchdog", "internal/web", "policy"},
	// how views word what was measured
	"internal/figures": {"collector", "internal/health", "internal/show"},
	"internal/views": {"internal/admin", "internal/figures", "internal/health", "internal/show", "internal/watchdog",
		"internal/web", "policy", "replicator/requests"},
	"internal/cli": {"internal/show"},
	// which databases doctor examines, and what a daemon knows of them
	"internal/consult": {"internal/admin", "internal/cli", "internal/config", "internal/daemon", "internal/doctor",
		"internal/health", "internal/inventory", "internal/lookup", "internal/target", "replicator/store"},
	"internal/top": {"internal/admin", "internal/health", "internal/show", "internal/views", "internal/web"},
	"internal/inventory": {"internal/config", "internal/durable", "internal/show", "replicator/catalog",
		"replicator/lease",
		"replicator/lineage", "replicator/store"},
	"internal/blockers":  {"internal/dbfile", "internal/show"},
	"internal/freshness": {"collector", "internal/durable"}, // an hour of how far behind replicas were
	"internal/unit":      {},
	"internal/pagecrc":   {}, // the checksums of LTX files
	"internal/fault":     {}, // makes an error of a panic
	"internal/lookup":    {}, // looks up files on disks that may hang
	"internal/config": {"internal/quote", "internal/lookup", "policy", "policy/foreach", "policy/lang",
		"policy/lang/limits", "policy/lang/marks",
		"policy/policytest", "internal/hcldecode", "internal/notify/channel"},
	"internal/plant": {}, // planted panics, in the tests' build
	"internal/web": {"internal/plant", "internal/figures",
		"internal/freshness", "internal/show", "internal/health", "internal/metric",
		"internal/watchdog", "collector"},
	"internal/watchdog": {"internal/fault",
		"internal/plant", "internal/health", "internal/metric", "collector", "policy", "internal/sqlite",
		"internal/durable", "internal/watchdog/statefile", "internal/watchdog/ladders",
		"internal/watchdog/outcome", "internal/watchdog/succession", "internal/watchdog/voice"},
	"internal/watchdog/outcome":    {"internal/sqlite", "policy"},
	"internal/watchdog/succession": {"internal/fault"}, // successive users of one file take turns
	// The steps of one ladder, apart from who decides on it and records it.
	"internal/watchdog/voice":   {},
	"internal/watchdog/ladders": {"internal/sqlite", "collector", "policy"},
	// the format of the state file
	"internal/watchdog/statefile": {"internal/durable"},
	// connections to a database that other processes may be using
	"internal/join": {"internal/dbfile", "internal/sqlite"},
	// checkpoints of databases without replicas
	"internal/watchdog/plain": {"internal/join", "internal/dbfile", "internal/sqlite"},
	"internal/replay": {"internal/config", "internal/lookup",
		"internal/decisions", "internal/journal", "internal/show", "internal/sqlite",
		"internal/watchdog", "collector", "policy"},
	"internal/tuning":    {"internal/admin", "internal/durable", "internal/show"},
	"internal/journal":   {"internal/durable"},
	"internal/decisions": {"internal/journal", "internal/watchdog"},

	"policy": {"policy/window", "policy/catalogue",
		"policy/foreach", "policy/lang/each", "policy/ladder", "policy/selection", "policy/stalls", "policy/proof",
		"policy/lang", "policy/lang/amounts", "collector", "internal/checkpoint", "internal/hcldecode"},
	// plays policies on a simulated clock, for `sqlwatch test`
	"policy/policytest": {"policy", "policy/lang", "policy/lang/amounts", "collector", "internal/checkpoint",
		"internal/hcldecode"},
	// what policies would do now, and what another configuration would change
	"internal/plan": {"collector", "policy", "internal/admin", "internal/config", "internal/watchdog"},

	// when policies may act
	"policy/window": {"internal/hcldecode", "policy/calendar", "policy/catalogue", "policy/lang"},
	// when a span that a cron expression begins is open
	"policy/calendar": {},
	// what can be proven of a policy
	"policy/proof": {"policy/selection", "policy/lang", "policy/lang/amounts", "policy/lang/measured"},
	// several blocks made of one with for_each
	"policy/foreach":   {"internal/hcldecode", "policy/lang"},
	"policy/lang/each": {}, // each.key and each.value in expressions
	// lists what the policy language offers
	"policy/catalogue": {"policy/lang/measured"},
	// steps under one stall budget
	"policy/ladder": {"policy/catalogue", "internal/hcldecode", "internal/checkpoint", "policy/lang"},
	// selects the databases that a policy applies to
	"policy/selection": {"internal/hcldecode", "policy/lang"},
	// how long a TRUNCATE will stall writers
	"policy/stalls": {"internal/checkpoint"},

	// what can be measured, by name
	"policy/lang/measured": {"collector"},

	// reads attributes strictly, for policies and the rest of the configuration
	"internal/hcldecode": {"policy/lang", "policy/lang/amounts", "policy/lang/marks"},
	"policy/lang": {"policy/catalogue", "collector", "policy/lang/each",
		"policy/lang/series", "policy/lang/amounts", "policy/lang/limits",
		"policy/lang/marks", "policy/lang/measured", "policy/lang/truth"},
	"policy/lang/truth":   {}, // three-valued logic
	"policy/lang/series":  {}, // past values, in bounded space
	"policy/lang/amounts": {}, // parses and formats amounts
	"policy/lang/limits":  {}, // what is rejected before it is evaluated
	"policy/lang/marks":   {}, // which values are not shown
	"collector":           {"internal/metric", "internal/dbfile", "internal/filesystem", "internal/owner"},
	"collector/busy":      {"collector", "internal/openfile"},
	"replicator/moment":   {},
	"replicator/store":    {"replicator/moment"}, // page sums carry the time of the pages
	"replicator/spool":    {"replicator/moment", "internal/dbfile", "internal/durable", "internal/fault"},
	"replicator/pagesums": {"internal/durable"},
	// reads a database file while others write to it
	"replicator/overlay": {"internal/pagecrc",
		"replicator/moment", "replicator/pagesums", "internal/dbfile", "internal/durable", "internal/fault"},
	"replicator/capture": {"internal/pagecrc",

		"replicator/capture/statedir", "replicator/capture/tail", "replicator/capture/pace", "replicator/capture/presence",
		"replicator/capture/mainfile", "replicator/capture/segments", "replicator/capture/view",
		"replicator/capture/leftover", "replicator/capture/once", "replicator/capture/claim", "replicator/overlay",
		"replicator/store", "replicator/spool", "replicator/pagesums", "replicator/queue",
		"internal/join", "internal/dbfile", "internal/fault", "internal/sqlite",
	},
	// what was read, proven complete
	"replicator/capture/tail": {"replicator/capture/batch", "replicator/spool", "internal/dbfile"},
	"replicator/capture/pace": {},
	// two uses of a connection apart from holding the WAL
	"replicator/capture/view": {"replicator/capture/tail", "replicator/capture/mainfile", "replicator/spool",
		"internal/dbfile", "internal/sqlite"},
	"replicator/capture/leftover": {"internal/join", "internal/dbfile"},
	"replicator/capture/once":     {"internal/join", "internal/dbfile", "internal/sqlite"},
	"replicator/capture/mainfile": {"replicator/spool", "internal/dbfile", "internal/dirwatch"},
	"replicator/capture/presence": {"internal/dbfile"}, // which other processes use a database
	// and whether an application is known to write the WAL
	"replicator/capture/claim": {"replicator/capture/presence", "replicator/capture/mainfile", "replicator/spool",
		"internal/dbfile"},
	"replicator/capture/segments": {"internal/pagecrc",
		"replicator/capture/statedir", "replicator/capture/tail", "replicator/overlay",
		"replicator/pagesums", "replicator/spool", "internal/dbfile", "internal/fault"}, // writes segments
	"replicator/capture/batch": {"internal/pagecrc", "internal/dbfile"}, // pages in bounded memory, proven or not
	// The state that survives a restart, apart from how it comes about.
	"replicator/capture/statedir": {"internal/pagecrc",
		"replicator/moment", "replicator/store", "replicator/spool", "replicator/pagesums",
		"internal/durable"},
	"replicator/catalog":   {"replicator/moment", "replicator/store"},
	"replicator/lease":     {"replicator/store", "internal/fault"},
	"replicator/retention": {"replicator/catalog", "replicator/store"},
	// Which database's history a replica holds, and who may continue it; a restored database
	// carries a note of it.
	"replicator/lineage": {"replicator/store", "internal/dbfile", "internal/durable"},
	"replicator/custody": {"replicator/catalog", "replicator/lease", "replicator/lineage", "replicator/spool",
		"replicator/store", "internal/dbfile", "internal/durable"},
	"replicator/upload": {"replicator/custody", "replicator/lease", "replicator/merge", "replicator/moment",
		"replicator/restore", "replicator/spool", "replicator/store", "replicator/sumlist"},
	"replicator/sumlist": {"internal/pagecrc",
		"internal/durable", "internal/fault", "replicator/store"}, // page checksums beside a stored file
	"replicator/worker": {"internal/fault"},
	"replicator/queue":  {}, // how many databases are read from end to end at a time
	// how far each replica has come with what was captured
	"replicator/progress": {"replicator/catalog", "replicator/custody", "replicator/lease", "replicator/lineage",
		"replicator/retention", "replicator/spool", "replicator/store", "replicator/worker"},
	"replicator/compact": {"replicator/moment", "replicator/store", "replicator/catalog", "replicator/merge",
		"replicator/restore"},
	"replicator/restore": {"internal/pagecrc",
		"replicator/store", "replicator/catalog", "replicator/lineage", "replicator/stage",
		"replicator/sumlist", "internal/fault",
		"internal/cage", "internal/dbfile", "internal/sqlite"},
	"replicator/stage":    {"internal/durable", "internal/openfile"}, // a database in the making
	"replicator/merge":    {"replicator/moment", "replicator/store", "internal/durable"},
	"replicator/requests": {"replicator/store", "internal/metric"},
	"replicator": {
		"replicator/retention", "replicator/store", "replicator/capture", "replicator/catalog",
		"replicator/lease", "replicator/spool", "replicator/queue",
		"replicator/requests", "replicator/restore", "replicator/lineage", "replicator/custody", "replicator/compact",
		"replicator/progress", "replicator/upload", "replicator/worker", "collector", "internal/metric",
		"internal/dbfile", "internal/sqlite", "internal/durable",
	},
	"replicator/store/s3": {"internal/fault",
		"replicator/store", "replicator/store/s3/breaker", "replicator/store/s3/foreign",
		"replicator/store/s3/wire"},
	"replicator/store/s3/breaker": {},                   // one request tries, the others wait
	"replicator/store/s3/wire":    {},                   // connections and signatures
	"replicator/store/spelled":    {"replicator/store"}, // a prefix in whichever Unicode form it was stored
	"replicator/store/s3/foreign": {},                   // reads answers that are not S3's XML
	"replicator/store/file":       {"replicator/store", "internal/durable"},
	"replicator/store/storetest":  {"replicator/store"},
	"internal/metric":             {},
	"internal/supervise":          {},
	"internal/dirwatch":           {}, // tells when a file is removed or replaced
	"internal/asuser":             {"internal/durable"},
	"internal/owner":              {}, // whether our side files suit a database's users
	"internal/dbfile":             {"internal/cksum", "internal/openfile", "internal/filesystem"},
	"internal/filesystem":         {}, // on what file system a file is
	"internal/openfile":           {}, // which files other processes have open
	"internal/cksum":              {}, // which pages have checksums, for two packages that must not damage them
	"internal/durable":            {},
	"internal/sqlite":             {"internal/checkpoint", "internal/owner", "internal/cksum"},
	"internal/checkpoint":         {}, // requests and results of checkpoints

	// runs SQL on a scratch database
	"internal/walbench": {"internal/dbfile", "internal/filesystem", "internal/show", "internal/sqlite"},
	// starts this program again, as its own child
	"internal/again": {},
	// checks a database with SQLite in a child process
	"internal/cage": {"internal/again", "internal/sqlite"},
	"internal/doctor": {"internal/health", "internal/show", "internal/dbfile", "internal/filesystem", "internal/owner",
		"internal/sqlite",
		"replicator/store", "replicator/store/s3"},
	"internal/importer":    {},
	"internal/testapp":     {},
	"internal/testbrowser": {},
	"examples":             {},
	// decides on the conditions that page, commands, metrics and alerts show
	"internal/health": {"internal/show", "internal/metric", "collector"},
	"internal/show":   {},
	"internal/notify": {"internal/fault", "internal/metric", "internal/notify/channel"},
	// delivers one message through one channel
	"internal/notify/channel": {},
}

type listedPackage struct {
	ImportPath string
	Dir        string
	GoFiles    []string
	CgoFiles   []string
	Imports    []string
}

// packages returns every package of the module, as `go list` sees it.
func packages(t *testing.T) []listedPackage {
	t.Helper()
	all, err := listed()
	if err != nil {
		t.Fatal(err)
	}
	if len(all) < 10 {
		t.Fatalf("go list names %d packages: the test would prove nothing", len(all))
	}
	return all
}

// listed runs `go list`, once for all tests.
var listed = sync.OnceValues(func() (all []listedPackage, err error) {
	out, err := exec.Command("go", "list", "-json=ImportPath,Dir,GoFiles,CgoFiles,Imports", module+"/...").Output()
	if err != nil {
		return nil, fmt.Errorf("go list: %w", err)
	}
	dec := json.NewDecoder(bytes.NewReader(out))
	for {
		var p listedPackage
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return all, nil
		} else if err != nil {
			return nil, fmt.Errorf("decode go list: %w", err)
		}
		all = append(all, p)
	}
})

func (p listedPackage) short() string {
	return strings.TrimPrefix(strings.TrimPrefix(p.ImportPath, module), "/")
}

// files parses the package's own non-test files.
func (p listedPackage) files(t *testing.T) (*token.FileSet, []*ast.File) {
	t.Helper()
	fset := token.NewFileSet()
	var parsed []*ast.File
	for _, name := range append(slices.Clone(p.GoFiles), p.CgoFiles...) {
		f, err := parser.ParseFile(fset, filepath.Join(p.Dir, name), nil, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		parsed = append(parsed, f)
	}
	return fset, parsed
}

func TestImportArrows(t *testing.T) {
	all := packages(t)
	for name, allowed := range arrows {
		i := slices.IndexFunc(all, func(p listedPackage) bool { return p.short() == name })
		if i < 0 {
			t.Errorf("%s is in the table, but there is no such package", name)
			continue
		}
		for _, a := range allowed {
			if a != "*" && !slices.Contains(all[i].Imports, module+"/"+a) {
				t.Errorf("%s no longer imports %s: take the arrow out of the table", name, a)
			}
		}
	}
	for _, p := range all {
		allowed, known := arrows[p.short()]
		if !known && len(p.GoFiles)+len(p.CgoFiles) > 0 {
			// Programs under testdata-like folders (bench/, gen/) may use what their parent may.
			allowed, known = arrows[filepath.Dir(p.short())]
			allowed = append(slices.Clone(allowed), filepath.Dir(p.short()))
		}
		for _, imp := range p.Imports {
			rel, ours := strings.CutPrefix(imp, module+"/")
			if !ours || slices.Contains(allowed, "*") || slices.Contains(allowed, rel) {
				continue
			}
			t.Errorf("%s imports %s: no such arrow (package known: %v)", p.short(), rel, known)
		}
	}
}

// These calls and imports each belong to one package.
func TestWhoMayOpenRenameAndRunSQL(t *testing.T) {
	const driver = "github.com/mattn/go-sqlite3"
	renames := []string{"os.Rename", "os.Create", "os.WriteFile", "os.CreateTemp", "unix.Rename", "unix.Renameat2"}
	for _, p := range packages(t) {
		if slices.Contains(p.Imports, driver) && p.short() != "internal/sqlite" {
			t.Errorf("%s imports the SQLite driver: only internal/sqlite runs SQL", p.short())
		}
		fset, files := p.files(t)
		for _, f := range files {
			ast.Inspect(f, func(n ast.Node) bool {
				call, ok := n.(*ast.SelectorExpr)
				if !ok {
					return true
				}
				pkg, ok := call.X.(*ast.Ident)
				if !ok {
					return true
				}
				name := pkg.Name + "." + call.Sel.Name
				if slices.Contains(renames, name) && p.short() != "internal/durable" {
					t.Errorf("%s: %s: only internal/durable creates and renames files", fset.Position(n.Pos()), name)
				}
				if strings.HasPrefix(p.short(), "policy") && (name == "time.Now" || name == "time.Since" || name == "time.Until") {
					t.Errorf("%s: %s: policy has no clock", fset.Position(n.Pos()), name)
				}
				return true
			})
		}
	}
}

func TestSizes(t *testing.T) {
	const maxFile, maxFunc, maxPackage = 600, 80, 2500
	for _, p := range packages(t) {
		total := 0
		fset, files := p.files(t)
		for _, f := range files {
			lines := fset.File(f.Pos()).LineCount()
			total += lines
			if lines > maxFile {
				t.Errorf("%s has %d lines, over %d: the design asks for two", fset.Position(f.Pos()).Filename, lines, maxFile)
			}
			for _, d := range f.Decls {
				fn, ok := d.(*ast.FuncDecl)
				if !ok || fn.Body == nil {
					continue
				}
				if n := fset.Position(fn.End()).Line - fset.Position(fn.Pos()).Line; n > maxFunc {
					t.Errorf("%s: %s has %d lines, over %d", fset.Position(fn.Pos()), fn.Name.Name, n, maxFunc)
				}
			}
		}
		if total > maxPackage {
			t.Errorf("%s has %d lines, over %d", p.short(), total, maxPackage)
		}
	}
}

// There are no init functions: constructors are called, so that a reader finds who starts what.
func TestNoInit(t *testing.T) {
	for _, p := range packages(t) {
		fset, files := p.files(t)
		for _, f := range files {
			for _, d := range f.Decls {
				if fn, ok := d.(*ast.FuncDecl); ok && fn.Recv == nil && fn.Name.Name == "init" {
					t.Errorf("%s: init", fset.Position(fn.Pos()))
				}
			}
		}
	}
}

// Direct dependencies are on an allow-list: a new one is a decision.
func TestDirectDependencies(t *testing.T) {
	allowed := []string{
		"charm.land/bubbletea/v2",         // top's terminal: sizes, keys, redrawing
		"github.com/charmbracelet/x/ansi", // how wide characters are in a terminal
		"github.com/agext/levenshtein", "github.com/alecthomas/kingpin/v2",
		"github.com/aws/aws-sdk-go-v2", "github.com/aws/smithy-go",
		"github.com/cilium/ebpf", "github.com/dustin/go-humanize", "github.com/google/go-cmp",
		"github.com/hashicorp/hcl/v2", "github.com/mattn/go-isatty", "github.com/mattn/go-sqlite3",
		"github.com/pierrec/lz4/v4", "github.com/prometheus/", "github.com/robfig/cron/v3",
		"github.com/rogpeppe/go-internal", "github.com/superfly/ltx", "github.com/wneessen/go-mail",
		"github.com/zclconf/go-cty",
		"golang.org/x/", "go.yaml.in/yaml/", "gopkg.in/yaml.v3",
	}
	out, err := exec.Command("go", "list", "-m", "-f", "{{if not (or .Indirect .Main)}}{{.Path}}{{end}}", "all").Output()
	if err != nil {
		t.Fatalf("go list -m: %v", err)
	}
	for _, m := range strings.Fields(string(out)) {
		if !slices.ContainsFunc(allowed, func(a string) bool { return strings.HasPrefix(m, a) }) {
			t.Errorf("module %s is not on the allow-list", m)
		}
	}
}

// Documents name symbols, never line numbers: those move.
func TestDocumentsNameNoLineNumbers(t *testing.T) {
	root := filepath.Join("..", "..")
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || filepath.Ext(path) != ".md" {
			return err
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for i, line := range strings.Split(string(text), "\n") {
			if at := strings.Index(line, ".go:"); at >= 0 && at+4 < len(line) {
				if _, err := strconv.Atoi(line[at+4 : at+5]); err == nil {
					t.Errorf("%s, line %d: names a line of source: %s", path, i+1, line)
				}
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
