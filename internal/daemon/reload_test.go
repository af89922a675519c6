package daemon

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// A reload does not move the state directory of a running daemon, which holds its lock: changes to the server
// block take effect after a restart.
func TestReloadKeepsItsStateDirectory_P14(t *testing.T) {
	t.Parallel()
	dir, other := t.TempDir(), t.TempDir()
	database := func(name string) string {
		path := filepath.Join(dir, name+".db")
		create := "PRAGMA journal_mode=WAL; CREATE TABLE IF NOT EXISTS t (x)"
		if err := exec.Command("sqlite3", path, create).Run(); err != nil {
			t.Fatal(err)
		}
		return fmt.Sprintf("database %q {\n  path = %q\n  replicate_to = [replica.file.copy]\n}\n", name, path)
	}
	replica := fmt.Sprintf("replica \"file\" \"copy\" {\n  dir = \"%s/${db.name}\"\n}\n", t.TempDir())
	d, log := inProcess(t, replica+database("old"))
	path := filepath.Join(d.config.Server.StateDir, "sqlwatch.hcl")
	text := fmt.Sprintf("server {\n  state_dir = %q\n}\n", other) + replica + database("old") + database("new")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := d.reloadNow(t.Context()); err != nil {
		t.Fatalf("%v\n%s", err, log)
	}
	kept := filepath.Join(filepath.Dir(path), "databases", "new")
	moved := filepath.Join(other, "databases", "new")
	there := func(path string) bool { _, err := os.Stat(path); return err == nil }
	poll(t, "the new database has its state", func() bool { return there(kept) || there(moved) })
	if there(moved) {
		t.Error("its state is in a directory that this daemon has not locked")
	}
}

// A SIGHUP that came before the daemon was ready is a reload, as any other.
func TestHangupWhileStarting(t *testing.T) {
	t.Parallel()
	d, log := inProcess(t, "")
	hangup := make(chan os.Signal, 1)
	hangup <- syscall.SIGHUP
	d.o.Hangup = hangup
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- d.reload(ctx) }()
	poll(t, "a reload", func() bool { return strings.Contains(log.String(), "the configuration was reloaded") })
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
