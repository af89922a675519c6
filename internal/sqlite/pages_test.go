package sqlite

import (
	"encoding/binary"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// A database whose pages have checksums is opened read-only; one that merely reserves as many
// bytes is like any other. Neither file is changed by Open.
func TestOpen_D74_pageChecksums(t *testing.T) {
	t.Parallel()
	for _, sealed := range []bool{true, false} {
		path := filepath.Join(t.TempDir(), "app.db")
		shell := exec.Command("sqlite3", path)
		script, err := shell.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		script.Write([]byte(".filectrl reserve_bytes 8\nPRAGMA journal_mode=wal; CREATE TABLE t(v); INSERT INTO t VALUES " +
			"(randomblob(20000));\n.quit\n"))
		script.Close()
		if out, err := shell.CombinedOutput(); err != nil {
			t.Fatalf("sqlite3: %v: %s", err, out)
		}
		content, err := os.ReadFile(path) // nobody has it open
		if err != nil {
			t.Fatal(err)
		}
		if content[20] != 8 {
			t.Fatalf("%d bytes are reserved", content[20])
		}
		if sealed {
			seal(content, 4096)
		}
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		c, err := Open(t.Context(), path, Options{})
		if got := errors.Is(err, ErrPageChecksums); got != sealed {
			t.Errorf("with checksums %v: %v", sealed, err)
		}
		if err == nil {
			c.Close()
		}
		c, err = Open(t.Context(), path, Options{ReadOnly: true})
		if err != nil {
			t.Fatalf("with checksums %v, for reading: %v", sealed, err)
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
		if after, err := os.ReadFile(path); err != nil || string(after) != string(content) {
			t.Errorf("with checksums %v: the file was changed: %v", sealed, err)
		}
	}
}

// seal writes the checksum that cksumvfs would write into each page.
func seal(content []byte, size int) {
	for ; len(content) >= size; content = content[size:] {
		var s1, s2 uint32
		for i := 0; i < size-8; i += 8 {
			s1 += binary.LittleEndian.Uint32(content[i:]) + s2
			s2 += binary.LittleEndian.Uint32(content[i+4:]) + s1
		}
		binary.LittleEndian.PutUint32(content[size-8:], s1)
		binary.LittleEndian.PutUint32(content[size-4:], s2)
	}
}
