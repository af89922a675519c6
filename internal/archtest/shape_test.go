package archtest

import (
	"go/ast"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"
)

// The limits of one type: a type beyond them is two things.
const maxMethods, maxFields = 30, 20

// shape is the methods and fields of a named type.
type shape struct {
	methods []string
	fields  int
	at      token.Position
}

// shapes returns the named types of a package with their methods and fields.
func (p listedPackage) shapes(t *testing.T) map[string]*shape {
	t.Helper()
	types := map[string]*shape{}
	named := func(name string) *shape {
		if types[name] == nil {
			types[name] = &shape{}
		}
		return types[name]
	}
	fset, files := p.files(t)
	for _, f := range files {
		for _, d := range f.Decls {
			switch d := d.(type) {
			case *ast.FuncDecl:
				if d.Recv != nil {
					s := named(receiver(d.Recv.List[0].Type))
					s.methods = append(s.methods, d.Name.Name)
				}
			case *ast.GenDecl:
				for _, spec := range d.Specs {
					ts, ok := spec.(*ast.TypeSpec)
					if !ok {
						continue
					}
					s := named(ts.Name.Name)
					s.at = fset.Position(ts.Pos())
					if st, ok := ts.Type.(*ast.StructType); ok {
						for _, field := range st.Fields.List {
							s.fields += max(1, len(field.Names))
						}
					}
				}
			}
		}
	}
	return types
}

// receiver returns the name of a method's type.
func receiver(e ast.Expr) string {
	for {
		switch x := e.(type) {
		case *ast.StarExpr:
			e = x.X
		case *ast.IndexExpr:
			e = x.X
		case *ast.IndexListExpr:
			e = x.X
		case *ast.Ident:
			return x.Name
		default:
			return ""
		}
	}
}

func TestTypesAreSmall(t *testing.T) {
	seen := 0
	for _, p := range packages(t) {
		for name, s := range p.shapes(t) {
			seen++
			if n := len(s.methods); n > maxMethods {
				t.Errorf("%s: %s.%s has %d methods, over %d", s.at, p.short(), name, n, maxMethods)
			}
			if s.fields > maxFields {
				t.Errorf("%s: %s.%s has %d fields, over %d", s.at, p.short(), name, s.fields, maxFields)
			}
		}
	}
	if seen < 100 {
		t.Fatalf("only %d types were seen: the test would prove nothing", seen)
	}
}

// A type has no two methods that differ in case only: they are read as one.
func TestNoTwoNamesDifferInCaseOnly(t *testing.T) {
	for _, p := range packages(t) {
		for name, s := range p.shapes(t) {
			folded := map[string]string{}
			for _, m := range s.methods {
				key := strings.ToLower(m)
				if other := folded[key]; other != "" {
					t.Errorf("%s: %s.%s has both %s and %s", s.at, p.short(), name, other, m)
				}
				folded[key] = m
			}
		}
	}
}

// A context belongs to a call. An io.Reader's Read has no parameter for one, so
// adapters made for one call may carry it.
func TestNoContextInAStruct(t *testing.T) {
	adapters := []string{"replicator/restore.objectReader", "replicator/store/file.contextReader",
		"replicator/store/s3.reader"}
	for _, p := range packages(t) {
		fset, files := p.files(t)
		for _, f := range files {
			ast.Inspect(f, func(n ast.Node) bool {
				ts, ok := n.(*ast.TypeSpec)
				if !ok {
					return true
				}
				st, ok := ts.Type.(*ast.StructType)
				if !ok {
					return true
				}
				for _, field := range st.Fields.List {
					sel, ok := field.Type.(*ast.SelectorExpr)
					if !ok || sel.Sel.Name != "Context" {
						continue
					}
					if name := p.short() + "." + ts.Name.Name; !slices.Contains(adapters, name) {
						t.Errorf("%s: %s holds a context", fset.Position(field.Pos()), name)
					}
				}
				return true
			})
		}
	}
}

// Only these packages may call these functions of os. All others go through durable (for what
// must survive), dbfile (for what applications share with us), or are given a reader.
func TestWhoMayTouchFiles(t *testing.T) {
	allowed := map[string][]string{
		"internal/cage":               {"OpenFile"},                    // files of a child in /proc
		"internal/walbench":           {"MkdirTemp", "RemoveAll"},      // scratch
		"internal/demo":               {"MkdirTemp", "RemoveAll"},      // all its files
		"collector/busy":              {"OpenFile"},                    // code that a process has mapped; never a pipe
		"internal/config":             {"OpenFile"},                    // the configuration; never a pipe
		"internal/dbfile":             {"Open", "OpenFile"},            // the database's own files, once
		"internal/journal":            {"Open", "OpenFile"},            // logs that are appended to
		"internal/sqlite":             {"OpenFile"},                    // the first byte of a rollback journal; never a pipe
		"internal/web":                {"MkdirAll", "Chmod", "Remove"}, // the admin socket
		"replicator":                  {"MkdirTemp", "RemoveAll"},      // a drill's scratch
		"replicator/capture/statedir": {"Open"},
		"replicator/compact":          {"Open", "Remove"}, // links to uploaded files
		"replicator/merge":            {"Open"},
		"replicator/pagesums":         {"OpenFile"},
		"internal/recovery":           {"Open", "MkdirTemp", "RemoveAll"},               // scratch of a stream
		"replicator/restore":          {"OpenFile", "MkdirTemp", "Remove", "RemoveAll"}, // scratch
		"replicator/stage":            {"OpenFile", "Remove"},                           // the target and its parts
		"replicator/spool":            {"Remove", "RemoveAll"},
		"replicator/upload":           {"Open"},                       // segments
		"replicator/store/file":       {"Open", "OpenFile", "Remove"}, // a replica that is a directory
		"replicator/store/s3/s3test":  {"MkdirAll"},
		"internal/testbrowser":        {"MkdirTemp", "RemoveAll"}, // a browser's profile
	}
	guarded := []string{"Open", "OpenFile", "Mkdir", "MkdirAll", "MkdirTemp", "Remove", "RemoveAll", "Truncate", "Chmod",
		"Chown"}
	for _, p := range packages(t) {
		if p.short() == "internal/durable" {
			continue
		}
		fset, files := p.files(t)
		for _, f := range files {
			ast.Inspect(f, func(n ast.Node) bool {
				sel, ok := n.(*ast.SelectorExpr)
				if !ok {
					return true
				}
				pkg, ok := sel.X.(*ast.Ident)
				if !ok || pkg.Name != "os" && pkg.Name != "unix" || !slices.Contains(guarded, sel.Sel.Name) {
					return true
				}
				if !slices.Contains(allowed[p.short()], sel.Sel.Name) {
					t.Errorf("%s: %s calls %s.%s", fset.Position(n.Pos()), p.short(), pkg.Name, sel.Sel.Name)
				}
				return true
			})
		}
	}
}

// Policies only decide: the caller gives them the time, the sample and the turn.
func TestPolicyIsPure(t *testing.T) {
	for _, p := range packages(t) {
		if !strings.HasPrefix(p.short(), "policy") {
			continue
		}
		for _, imp := range []string{"os", "net", "net/http", "io/ioutil", "os/exec", "log/slog"} {
			if slices.Contains(p.Imports, imp) {
				t.Errorf("%s imports %s: policy does no I/O", p.short(), imp)
			}
		}
		fset, files := p.files(t)
		for _, f := range files {
			ast.Inspect(f, func(n ast.Node) bool {
				if g, ok := n.(*ast.GoStmt); ok {
					t.Errorf("%s: policy starts no goroutine", fset.Position(g.Pos()))
				}
				return true
			})
		}
	}
}

// Lines can be read at one glance: they have at most 120 characters, in tests and tools as well.
func TestLinesAreShort(t *testing.T) {
	const maxLine = 120
	files := 0
	err := filepath.WalkDir(filepath.Join("..", ".."), func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || filepath.Ext(path) != ".go" {
			return err
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		files++
		n := 0
		for line := range strings.Lines(string(text)) {
			n++
			if got := utf8.RuneCountInString(strings.TrimRight(line, "\n")); got > maxLine {
				t.Errorf("%s, line %d: %d characters, over %d", path, n, got, maxLine)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if files < 300 {
		t.Fatalf("only %d files were read: the test would prove nothing", files)
	}
}
