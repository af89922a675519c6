package archtest

import (
	"go/ast"
	"slices"
	"testing"
)

// commands are packages whose goroutines are those of one command, which fails, or of tests.
var commands = []string{"cmd/sqlwatch", "internal/again", "internal/cage", "internal/cli", "internal/consult",
	"internal/demo", "internal/doctor", "internal/supervise", "internal/walbench", "replicator/store/s3/s3test",
	"replicator/store/storetest"}

// withoutRecover says of each function of the daemon that starts goroutines without a recover in sight why that is
// right.
var withoutRecover = map[string]string{
	"internal/daemon.Run":                 "loops of the daemon, which must not go on without one: systemd restarts it",
	"internal/daemon.serve":               "ends a server",
	"internal/daemon.CheckpointOnce":      "one command",
	"internal/daemon.look":                "one call of the system",
	"internal/daemon.replicatedParts":     "replicate recovers",
	"internal/dirwatch.Watch":             "reads events and wakes who waits",
	"internal/lookup.ask":                 "one call of the system",
	"internal/notify.Beat":                "attempt recovers",
	"internal/notify.Run":                 "attempt recovers",
	"internal/notify/channel.run":         "waits for a process",
	"internal/sqlite.afterWrite":          "sets a flag",
	"internal/sqlite.watchContext":        "sets a flag",
	"internal/watchdog.start":             "wake recovers",
	"internal/watchdog.closeGone":         "CloseAll recovers",
	"internal/watchdog/succession.Vacate": "waits",
	"internal/watchdog/succession.Await":  "waits",
	"internal/web.ServeAdmin":             "ends a server",
	"internal/web.NewGatherer":            "at the start only",
	"replicator.openLocked":               "cancels",
	"replicator/restore.newFetcher":       "run recovers where it calls a store",
	"replicator/restore.finish":           "one call of the system",
	"replicator/stage.WriteAt":            "one call of the system",
	"replicator/store.give":               "wakes who waits",
	"replicator/store/s3.open":            "cancels",
	"replicator/store/s3/breaker.arm":     "wakes who waits",
	"replicator/sumlist.Tap":              "list recovers",
	"replicator/worker.Begin":             "Worker and Lanes recover",
	"replicator/worker.Start":             "Worker and Lanes recover",
	"replicator/worker.rest":              "wakes who waits",
}

// recovers are the calls that recover.
var recovers = []string{"Guard", "guarded", "survive", "Protected", "Each"}

// Every goroutine recovers, so that a bug in the work for one database does not end that for all.
func TestGoroutinesRecover(t *testing.T) {
	used := map[string]bool{}
	for _, p := range packages(t) {
		if slices.Contains(commands, p.short()) {
			continue
		}
		fset, files := p.files(t)
		for _, f := range files {
			for _, d := range f.Decls {
				fn, ok := d.(*ast.FuncDecl)
				if !ok {
					continue
				}
				name := p.short() + "." + fn.Name.Name
				for _, started := range goroutines(fn) {
					if recovered(started) {
						continue
					}
					used[name] = true
					if withoutRecover[name] == "" {
						t.Errorf("%s: a panic in a goroutine of %s would end the daemon: use fault.Guard",
							fset.Position(started.Pos()), name)
					}
				}
			}
		}
	}
	for name := range withoutRecover {
		if !used[name] {
			t.Errorf("%s starts no goroutine that does not recover", name)
		}
	}
}

// goroutines returns what a function runs in goroutines: the operands of go statements, and the arguments of Go,
// AfterFunc and the like.
func goroutines(fn *ast.FuncDecl) (all []ast.Node) {
	starts := []string{"Go", "AfterFunc", "Start"}
	ast.Inspect(fn, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.GoStmt:
			all = append(all, n.Call)
		case *ast.CallExpr:
			sel, ok := n.Fun.(*ast.SelectorExpr)
			if ok && slices.Contains(starts, sel.Sel.Name) && len(n.Args) > 0 {
				all = append(all, n)
			}
		}
		return true
	})
	return all
}

// recovered reports whether the calls of n include one that recovers.
func recovered(n ast.Node) (does bool) {
	ast.Inspect(n, func(n ast.Node) bool {
		if call, ok := n.(*ast.CallExpr); ok {
			switch f := call.Fun.(type) {
			case *ast.Ident:
				does = does || slices.Contains(recovers, f.Name)
			case *ast.SelectorExpr:
				does = does || slices.Contains(recovers, f.Sel.Name)
			}
		}
		return true
	})
	return does
}
