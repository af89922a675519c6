package config

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/sqlwatch/sqlwatch/policy/catalogue"
)

// docs/configuration.md names every attribute and block that the code reads, and no other.
func TestConfigurationReferenceIsComplete(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../docs/configuration.md")
	if err != nil {
		t.Fatal(err)
	}
	var documented []string
	for _, m := range regexp.MustCompile("(?m)^\\| `([a-z0-9_]+)` \\|").FindAllStringSubmatch(string(text), -1) {
		documented = append(documented, m[1])
	}
	for _, heading := range regexp.MustCompile(`(?m)^## (.*)$`).FindAllStringSubmatch(string(text), -1) {
		documented = append(documented, strings.FieldsFunc(heading[1], func(r rune) bool { return r == ' ' || r == ',' })...)
	}
	read := attributesInSource(t, "*.go", "../../policy/parse.go", "../../policy/foreach/*.go")
	for _, b := range catalogue.Blocks {
		for _, a := range b.Attributes {
			read = append(read, strings.TrimSuffix(a.Name, "!"))
		}
		read = append(read, b.Blocks...)
	}
	if len(read) < 60 {
		t.Fatalf("only %d names were found in the source: the test would prove nothing", len(read))
	}
	for _, name := range read {
		if !slices.Contains(documented, name) {
			t.Errorf("docs/configuration.md lacks %s", name)
		}
	}
	for _, m := range regexp.MustCompile("(?m)^\\| `([a-z0-9_]+)` \\|").FindAllStringSubmatch(string(text), -1) {
		if !slices.Contains(read, m[1]) {
			t.Errorf("docs/configuration.md names %s, which is not read", m[1])
		}
	}
}

// attributesInSource returns the names in hcldecode.Attributes(…), in block schemas, and in
// the tables of attributes.
func attributesInSource(t *testing.T, patterns ...string) (names []string) {
	t.Helper()
	take := func(n ast.Node) {
		ast.Inspect(n, func(n ast.Node) bool {
			if lit, ok := n.(*ast.BasicLit); ok && lit.Kind == token.STRING {
				if s, err := strconv.Unquote(lit.Value); err == nil {
					names = append(names, strings.TrimSuffix(s, "!"))
				}
			}
			return true
		})
	}
	for _, pattern := range patterns {
		files, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range files {
			if strings.HasSuffix(name, "_test.go") {
				continue
			}
			f, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.SkipObjectResolution)
			if err != nil {
				t.Fatal(err)
			}
			ast.Inspect(f, func(n ast.Node) bool {
				switch n := n.(type) {
				case *ast.CallExpr:
					// Attributes that are added for all types but one.
					if fn, ok := n.Fun.(*ast.Ident); ok && fn.Name == "append" && isNamed(n.Args[0], "attributes") {
						for _, arg := range n.Args[1:] {
							take(arg)
						}
					}
					if sel, ok := n.Fun.(*ast.SelectorExpr); ok && sel.Sel.Name == "Attributes" {
						for _, arg := range n.Args {
							take(arg)
						}
					}
				case *ast.KeyValueExpr:
					if key, ok := n.Key.(*ast.Ident); ok && key.Name == "Type" {
						if _, lit := n.Value.(*ast.BasicLit); lit {
							take(n.Value)
						}
					}
				case *ast.ValueSpec:
					if n.Names[0].Name == "thinning" {
						take(n)
					}
					if n.Names[0].Name == "notifierAttributes" {
						for _, row := range n.Values[0].(*ast.CompositeLit).Elts {
							take(row.(*ast.KeyValueExpr).Value)
						}
					}
				}
				return true
			})
		}
	}
	return names
}

func isNamed(e ast.Expr, name string) bool {
	id, ok := e.(*ast.Ident)
	return ok && id.Name == name
}

// Every configuration in docs/recipes.md loads.
func TestRecipes(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../docs/recipes.md")
	if err != nil {
		t.Fatal(err)
	}
	examples := fence.FindAllStringSubmatch(string(text), -1)
	if len(examples) < 3 {
		t.Fatalf("%d examples", len(examples))
	}
	for _, e := range examples {
		if cfg, diags := loadIn(t, t.TempDir(), map[string]string{"example.hcl": e[3]}); len(diags) > 0 {
			t.Errorf("%s\n%s", e[3], show(cfg, diags))
		}
	}
}
