package dbfile_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/sqlwatch/sqlwatch/internal/dbfile"
)

// This reads a database as bytes, without SQL and without a lock.
func ExampleOpen() {
	dir, err := os.MkdirTemp("", "example")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "app.db")
	if err := exec.Command("sqlite3", path, "PRAGMA journal_mode=WAL; CREATE TABLE t (x)").Run(); err != nil {
		fmt.Println(err)
		return
	}
	files, err := dbfile.Open(path)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer files.Close()
	header, err := files.Header()
	fmt.Println(header.WAL(), header.PageSize, err)
	// Output: true 4096 <nil>
}
