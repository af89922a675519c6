package archtest

import (
	"cmp"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// errorsAsConditions says for every exported error which condition an operator sees while it
// lasts, or, after a dash, why there is none.
var errorsAsConditions = map[string]string{
	"collector/busy.ErrPrivileges": "- a line of the log at the start: SQLITE_BUSY is not counted",
	"collector/busy.ErrKernel":     "- the same",
	"collector/busy.ErrNoHolds":    "- the same",
	"collector/busy.ErrNoSymbol":   "- the same",
	"collector/busy.ErrClosed":     "- its end",

	"replicator/catalog.ErrEmpty":              "- what restore and snapshots say",
	"replicator/lease.ErrFenced":               "replica_fenced",
	"replicator/lease.ErrHeld":                 "replica_held",
	"replicator/lease.ErrMoved":                "replica_failing",
	"replicator/lease.ErrConfirming":           "- a few seconds after a lease was taken",
	"replicator/overlay.ErrLetGo":              "- a snapshot begins again; snapshot_too_old where it never ends",
	"replicator/overlay.ErrRoom":               "replica_maintenance",
	"replicator/overlay.ErrMissing":            "replica_maintenance",
	"replicator/pagesums.ErrCorrupt":           "- made again",
	"replicator/spool.ErrCorrupt":              "- cut off, and a comparison follows",
	"replicator/spool.ErrVersion":              "open_failed",
	"replicator.ErrNotOpen":                    "- the state of the database says why",
	"replicator/custody.ErrForeign":            "replica_foreign",
	"replicator/store.ErrNotFound":             "replica_files_lost",
	"replicator/store.ErrExists":               "replica_failing",
	"replicator/store.ErrConflict":             "replica_failing",
	"replicator/store.ErrAuth":                 "replica_auth_failed",
	"replicator/store.ErrMisplaced":            "replica_misplaced",
	"replicator/store.ErrUnavailable":          "replica_unavailable",
	"replicator/store.ErrCorrupt":              "replica_files_lost",
	"replicator/store.ErrListing":              "replica_failing",
	"replicator/store/s3/foreign.ErrNotS3":     "replica_failing",
	"replicator/store.ErrKey":                  "- a file of somebody else's, passed over",
	"replicator/capture.ErrReplaced":           "- a comparison follows (SqlwatchDiscontinuity)",
	"replicator/capture.ErrCut":                "file_cut",
	"replicator/capture.ErrNoRoom":             "capture_stopped",
	"replicator/capture.ErrSpoolFull":          "spool_full",
	"replicator/capture.ErrQueued":             "replica_incomplete",
	"replicator/capture/mainfile.ErrUnsettled": "- tried again",
	"replicator/capture/tail.ErrBudget":        "- tried again",
	"replicator/restore.ErrIncomplete":         "drill_failed",
	"replicator/restore.ErrDiffers":            "drill_failed",

	"replicator/capture/tail.ErrRestarting": "- tried again",
	"replicator/capture/view.ErrNone":       "- tried again",
	"replicator/capture/presence.ErrWaited": "- tried again once he is in",

	"internal/cage.ErrLimit":          "drill_failed",
	"internal/admin.ErrNoDaemon":      "daemon_down",
	"internal/admin.ErrBusy":          "daemon_down",
	"internal/lookup.ErrHung":         "left_out",
	"internal/target.ErrNoConfig":     "- what a command says",
	"internal/config.ErrUnreadable":   "reload_failed",
	"internal/notify.ErrUnknown":      "- a reload took the notifier away",
	"internal/notify.ErrFull":         "notification_failed",
	"internal/web.ErrSocketInUse":     "- the daemon does not start, and says so",
	"internal/sqlite.ErrBusy":         "action_failed",
	"internal/sqlite.ErrForeignOwner": "foreign_owner",
	"internal/sqlite.ErrNotWAL":       "not_wal",
	"internal/sqlite.ErrReadOnly":     "action_failed",
	"internal/sqlite.ErrCorrupt":      "drill_failed",
	"internal/sqlite.ErrSchema":       "schema_unreadable",
	"internal/sqlite.ErrNoMemory":     "action_failed",
	"internal/sqlite.ErrNotExist":     "missing",
	"internal/join.ErrReplaced":       "- a comparison follows (SqlwatchDiscontinuity)",
	"internal/sqlite.ErrReplaced":     "- the files are opened again",
	"internal/sqlite.ErrIndexCut":     "index_cut",
	"internal/sqlite.ErrOldLibrary":   "- the program does not start, and says so",

	"internal/sqlite.ErrPageChecksums":       "page_checksums",
	"internal/notify/channel.ErrRefused":     "notification_failed",
	"internal/watchdog/plain.ErrUnclaimed":   "- left to whoever opens the database next",
	"internal/watchdog/statefile.ErrVersion": "- the daemon does not start, and says so",
	"internal/watchdog.ErrUnavailable":       "action_failed",
	"internal/watchdog.ErrUnknownDatabase":   "- what a command says",
	"internal/watchdog.ErrAway":              "- the next turn",
	"internal/watchdog.ErrBadRequest":        "- what a command says",
	"internal/watchdog.ErrEnded":             "daemon_down",
	"internal/importer.ErrNotLitestream":     "- what a command says",

	"internal/dbfile.ErrInUse":         "- what restore says",
	"internal/dbfile.ErrNotRegular":    "not_a_database",
	"internal/dbfile.ErrNotDatabase":   "not_a_database",
	"internal/dbfile.ErrEmpty":         "empty",
	"internal/dbfile.ErrDescriptors":   "open_failed",
	"internal/dbfile.ErrAlreadyOpen":   "unreadable",
	"internal/dbfile.ErrNoWAL":         "- nobody has the database open",
	"internal/dbfile.ErrNoWALIndex":    "- nobody has the database open",
	"internal/dbfile.ErrUninitialised": "- nobody has the database open",
	"internal/dbfile.ErrTorn":          "unreadable",
	"internal/dbfile.ErrFormat":        "unreadable",
	"internal/dbfile.ErrChecksum":      "unreadable",
	"internal/dbfile.ErrSalt":          "unreadable",
	"internal/dbfile.ErrUnclear":       "- the next look",
}

// guardsAsConditions says the same for the guards that refuse a policy.
var guardsAsConditions = map[string]string{
	"GuardNone": "- nothing refuses", "GuardMode": "- what the configuration says", "GuardPause": "paused",
	"GuardUnless": "policy_hindered", "GuardWindow": "policy_hindered", "GuardCooldown": "- it has just acted",
	"GuardBackoff": "action_failed", "GuardReader": "reader_pinning", "GuardStall": "policy_hindered",
	"GuardFloor": "- it has just acted", "GuardHoldOff": "- it has just begun", "GuardTurn": "policy_hindered",
}

// Every exported error and every guard leads to a condition, or the table says why it leads to
// none.
func TestEveryErrorAndRefusalIsJudged_V3(t *testing.T) {
	t.Parallel()
	found, guards := declared(t)
	if len(found) < 60 || len(guards) < 8 {
		t.Fatalf("only %d errors and %d guards were found in the source", len(found), len(guards))
	}
	page, err := os.ReadFile("../../docs/conditions.md")
	if err != nil {
		t.Fatal(err)
	}
	judge(t, found, errorsAsConditions, string(page))
	judge(t, guards, guardsAsConditions, string(page))
}

// judge compares a table with what is in the source, and with docs/conditions.md, which a test of
// internal/health compares with the code.
func judge(t *testing.T, found []string, table map[string]string, page string) {
	t.Helper()
	for _, name := range found {
		led, there := table[name]
		switch {
		case !there:
			t.Errorf("%s leads to no condition: name one, or say why there is none", name)
		case !strings.HasPrefix(led, "- ") && !strings.Contains(page, "\n## "+led+"\n"):
			t.Errorf("%s leads to %s, which is no condition", name, led)
		}
	}
	for name := range table {
		if !slices.Contains(found, name) {
			t.Errorf("%s is in the table, but not in the source", name)
		}
	}
}

// declared returns the exported errors of the source, with their packages, and the guards
// of package policy.
func declared(t *testing.T) (errs, guards []string) {
	t.Helper()
	const root = "../.."
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		dir := filepath.Base(path)
		if err != nil || d.IsDir() && (dir == "tools" || dir == "testdata" || strings.HasSuffix(dir, "test") ||
			dir == ".git") {
			return cmp.Or(err, filepath.SkipDir)
		}
		if d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return nil
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		pkg, err := filepath.Rel(root, filepath.Dir(path))
		if err != nil {
			return err
		}
		for _, name := range declaredIn(file) {
			switch {
			case strings.HasPrefix(name, "Err") && len(name) > 3 && name[3] >= 'A' && name[3] <= 'Z':
				errs = append(errs, filepath.ToSlash(pkg)+"."+name)
			case pkg == "policy" && strings.HasPrefix(name, "Guard") && name != "Guard":
				guards = append(guards, name)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return errs, guards
}

// declaredIn returns the package-level variables and constants that a file declares.
func declaredIn(file *ast.File) (all []string) {
	for _, d := range file.Decls {
		g, ok := d.(*ast.GenDecl)
		if !ok || g.Tok != token.VAR && g.Tok != token.CONST {
			continue
		}
		for _, s := range g.Specs {
			for _, name := range s.(*ast.ValueSpec).Names {
				all = append(all, name.Name)
			}
		}
	}
	return all
}
