package web

import (
	"cmp"
	"encoding"
	"encoding/json"
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sqlwatch/sqlwatch/internal/watchdog"
	"github.com/sqlwatch/sqlwatch/policy"
)

var update = flag.Bool("update", false, "rewrite the tables of docs/api.md")

// The answers of the API by their section of docs/api.md.
var answers = map[string]reflect.Type{
	"health":    reflect.TypeFor[Health](),
	"databases": reflect.TypeFor[Databases](),
	"decisions": reflect.TypeFor[Decisions](),
	"action":    reflect.TypeFor[watchdog.ActionRecord](),
}

// held is what stands behind fields that hold anything.
var held = map[string]reflect.Type{"decisions[].decision": reflect.TypeFor[*policy.Decision]()}

// elsewhere is what another section lists.
var elsewhere = map[string]string{"databases[].decision": "Decisions", "databases[].actions": "Action",
	"decisions[].actions": "Action"}

// field is a place in an answer.
type field struct{ path, kind, meaning string }

// comments are what the source says beside the fields of structs, by type and field.
func comments(t *testing.T) map[string]string {
	t.Helper()
	all := map[string]string{}
	for _, dir := range []string{".", "../watchdog", "../health", "../../collector", "../../policy", "../../policy/lang"} {
		paths, err := filepath.Glob(filepath.Join(dir, "*.go"))
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range paths {
			f, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ParseComments)
			if err != nil {
				t.Fatal(err)
			}
			ast.Inspect(f, func(n ast.Node) bool {
				ts, ok := n.(*ast.TypeSpec)
				if !ok {
					return true
				}
				if st, ok := ts.Type.(*ast.StructType); ok {
					for _, field := range st.Fields.List {
						text := cmp.Or(strings.TrimSpace(field.Comment.Text()), strings.TrimSpace(field.Doc.Text()))
						for _, name := range field.Names {
							all[f.Name.Name+"."+ts.Name.Name+"."+name.Name] = strings.Join(strings.Fields(text), " ")
						}
					}
				}
				return true
			})
		}
	}
	return all
}

// schema lists the fields of a type as show.Marshal writes them.
func schema(typ reflect.Type, path string, said map[string]string, within ...reflect.Type) []field {
	for typ.Kind() == reflect.Pointer {
		typ = typ.Elem()
	}
	var all []field
	for i := range typ.NumField() {
		f := typ.Field(i)
		name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		if name == "-" || !f.IsExported() {
			continue
		}
		if f.Anonymous && name == "" {
			all = append(all, schema(f.Type, path, said, within...)...)
			continue
		}
		name = cmp.Or(name, f.Name)
		if f.Type == reflect.TypeFor[time.Duration]() && !strings.HasSuffix(name, "_seconds") {
			name += "_seconds"
		}
		at := strings.TrimPrefix(path+"."+name, ".")
		meaning := said[typ.String()+"."+f.Name]
		if strings.Contains(options, "omit") || f.Type == reflect.TypeFor[time.Time]() {
			meaning = strings.TrimSpace(meaning + " *May be absent.*")
		}
		of, many := f.Type, ""
		if known := held[at]; known != nil {
			of = known
		}
		for of.Kind() == reflect.Pointer || of.Kind() == reflect.Slice {
			if of.Kind() == reflect.Slice {
				many += "[]"
			}
			of = of.Elem()
		}
		kind := kindOfJSON(of)
		if section := elsewhere[at]; section != "" {
			all = append(all, field{at + many, "object", "See [" + section + "](#" + strings.ToLower(section) + ")."})
			continue
		}
		if many != "" {
			all = append(all, field{at, "list of " + kind, meaning})
		} else {
			all = append(all, field{at, kind, meaning})
		}
		if kind == "object" && of.Kind() == reflect.Struct && of != typ && !slices.Contains(within, of) {
			all = append(all, schema(of, at+many, said, append(within, typ)...)...)
		}
	}
	return all
}

func kindOfJSON(t reflect.Type) string {
	switch {
	case t == reflect.TypeFor[time.Time]():
		return "time"
	case t == reflect.TypeFor[time.Duration]():
		return "number"
	case t.Implements(reflect.TypeFor[encoding.TextMarshaler]()), t.Kind() == reflect.String:
		return "string"
	case t.Implements(reflect.TypeFor[json.Marshaler]()):
		return "value"
	case t.Kind() == reflect.Bool:
		return "boolean"
	case t.Kind() == reflect.Struct, t.Kind() == reflect.Map:
		return "object"
	case t.Kind() == reflect.Interface:
		return "value"
	}
	return "number"
}

// docs/api.md lists every field of every answer, from the types and the comments
// beside them.
func TestAPIReferenceIsInStep_V5(t *testing.T) {
	const name = "../../docs/api.md"
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	want, said := string(text), comments(t)
	for _, section := range slices.Sorted(maps.Keys(answers)) {
		begin, end := "<!-- begin: "+section+" -->\n", "<!-- end: "+section+" -->\n"
		head, rest, ok := strings.Cut(want, begin)
		_, tail, closed := strings.Cut(rest, end)
		if !ok || !closed {
			t.Fatalf("docs/api.md has no section %s", section)
		}
		var table strings.Builder
		table.WriteString("| field | type | meaning |\n|---|---|---|\n")
		for _, f := range schema(answers[section], "", said) {
			fmt.Fprintf(&table, "| `%s` | %s | %s |\n", f.path, f.kind, strings.ReplaceAll(f.meaning, "|", `\|`))
			last := f.path[strings.LastIndexByte(f.path, '.')+1:]
			if strings.HasSuffix(last, "_ns") || f.kind == "number" && (strings.HasSuffix(last, "size") ||
				strings.HasSuffix(last, "_duration") || strings.HasSuffix(last, "age")) {
				t.Errorf("%s has no unit in its name", f.path)
			}
		}
		want = head + begin + table.String() + end + tail
	}
	if *update {
		if err := os.WriteFile(name, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	} else if want != string(text) {
		t.Error("docs/api.md is not what the code answers; go test ./internal/web -run Reference -update rewrites it")
	}
}
