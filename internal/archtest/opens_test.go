package archtest

import (
	"go/ast"
	"go/parser"
	"go/token"
	"testing"
)

// From start to loop it is three files, as docs/architecture.md says: each calls what the next
// one declares, and the last one has the loop itself.
func TestThreeOpensFromStartToLoop(t *testing.T) {
	for _, file := range []struct {
		path           string
		declares, call string
		loops          bool
	}{
		{path: "../../cmd/sqlwatch/run.go", declares: "registerRun", call: "daemon.New"},
		{path: "../../internal/daemon/daemon.go", declares: "New", call: "watchdog.New"},
		{path: "../../internal/daemon/daemon.go", declares: "Run", call: "watchdog.Run"},
		{path: "../../internal/watchdog/watchdog.go", declares: "Run", loops: true},
	} {
		parsed, err := parser.ParseFile(token.NewFileSet(), file.path, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		var body *ast.BlockStmt
		for _, d := range parsed.Decls {
			if f, ok := d.(*ast.FuncDecl); ok && f.Name.Name == file.declares {
				body = f.Body
			}
		}
		if body == nil {
			t.Errorf("%s does not declare %s", file.path, file.declares)
			continue
		}
		calls, loops := false, false
		ast.Inspect(body, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.CallExpr:
				calls = calls || called(n) == file.call
			case *ast.ForStmt:
				loops = true
			}
			return true
		})
		if file.call != "" && !calls {
			t.Errorf("%s: %s does not call %s", file.path, file.declares, file.call)
		}
		if file.loops && !loops {
			t.Errorf("%s: %s has no loop", file.path, file.declares)
		}
	}
}

// called returns the last two names of a call's function: "watchdog.Run" for d.watchdog.Run().
func called(call *ast.CallExpr) string {
	selector, ok := call.Fun.(*ast.SelectorExpr)
	if !ok {
		return ""
	}
	switch x := selector.X.(type) {
	case *ast.Ident:
		return x.Name + "." + selector.Sel.Name
	case *ast.SelectorExpr:
		return x.Sel.Name + "." + selector.Sel.Name
	}
	return ""
}
