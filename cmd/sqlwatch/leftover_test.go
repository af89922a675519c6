package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// replicatedTo returns the configuration of a database with a replica in a directory.
func replicatedTo(database, dir string) string {
	return fmt.Sprintf("database \"app\" {\n  path = %q\n  replicate_to = [replica.file.copy]\n}\nreplica "+
		"\"file\" \"copy\" {\n  dir = %q\n}\n", database, dir)
}

// connectedAtRest reports whether the WAL is empty and its wal-index knows no frames: sqlwatch is
// connected to a database that nobody else uses, and everything is in the main file.
func connectedAtRest(database string) bool {
	wal, err := os.Stat(database + "-wal")
	index, indexErr := os.ReadFile(database + "-shm")
	return err == nil && wal.Size() == 0 && indexErr == nil && len(index) > 96 && index[12] == 1 &&
		binary.NativeEndian.Uint32(index[8:]) == 0 && binary.NativeEndian.Uint16(index[14:]) == 0
}

// sqlwatch is killed while it is connected to a database that no application uses. When it is
// started again it finds nothing to do there, and still closes the database as the last user
// does.
func TestKilledWhileConnected_P16(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	database := filepath.Join(dir, "app.db")
	exec.Command("python3", "-c", killedWriter, database).Run() // ends by its own signal
	configuration := replicatedTo(database, filepath.Join(dir, "replica"))
	d := startDaemon(t, dir, configuration)
	poll(t, "the replica has everything", captured(d))
	poll(t, "nothing is left to do", func() bool { return connectedAtRest(database) })
	if err := d.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	<-d.ended
	if !connectedAtRest(database) {
		t.Fatal("the killed daemon left no side files")
	}
	d = startDaemon(t, dir, configuration)
	poll(t, "the replica has everything", captured(d))
	if err := d.end(t); err != nil {
		t.Errorf("SIGTERM: %v", err)
	}
	wantClosed(t, database)
}

// captured returns a function that reports whether a replica has the first state of the daemon's
// only database.
func captured(d *daemonProcess) func() bool {
	return func() bool {
		_, page := d.get("/api/v1/databases")
		return strings.Contains(page, `"txid":1`)
	}
}

// wantClosed checks that a database of 50 rows is as SQLite's last close leaves it: all rows in
// the main file, and no side files.
func wantClosed(t *testing.T, database string) {
	t.Helper()
	for _, side := range []string{"-wal", "-shm"} {
		if _, err := os.Stat(database + side); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: %v, want none", side, err)
		}
	}
	out, err := exec.Command("sqlite3", "file:"+database+"?immutable=1",
		"SELECT count(*) FROM t; PRAGMA integrity_check").CombinedOutput()
	if got := strings.Fields(string(out)); err != nil || len(got) != 2 || got[0] != "50" || got[1] != "ok" {
		t.Errorf("the main file alone: %s, %v; want 50 rows, ok", out, err)
	}
}
