package daemon

import (
	"errors"
	"path/filepath"
	"testing"

	"github.com/sqlwatch/sqlwatch/internal/dbfile"
	"github.com/sqlwatch/sqlwatch/internal/sqlite"
	"github.com/sqlwatch/sqlwatch/internal/testapp"
	"github.com/sqlwatch/sqlwatch/internal/watchdog"
	"github.com/sqlwatch/sqlwatch/internal/watchdog/plain"
)

const ends = `
import sqlite3, sys
c = sqlite3.connect(sys.argv[1], isolation_level=None)
c.execute("pragma journal_mode=wal"); c.execute("create table t(v)")
print("wrote", flush=True)
sys.stdin.readline(); c.close()
print("closed", flush=True)
`

// The application closes its database just before the connection of a checkpoint is open. Nothing is wrong with the
// database then, so the action must not count as failed.
func TestCheckpointBesideAnEnd(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "app.db")
	app := testapp.Start(t, ends, path)
	app.Line(t)
	files, err := dbfile.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer files.Close()
	p := &plainDatabase{Checkpointer: plain.New(path, func() *dbfile.Files { return files }, nil)}
	p.Look() // the WAL is the application's

	// Names is called between MayOpen and the connection.
	p.Names = func(string, []string, func()) (func(), error) {
		app.Send(t, "")
		app.Line(t)
		return func() {}, nil
	}
	if r, err := p.Checkpoint(t.Context(), sqlite.Truncate, sqlite.Budget{}); !errors.Is(err, watchdog.ErrAway) {
		t.Errorf("got %v, %v, want watchdog.ErrAway", r.Outcome, err)
	}
}
