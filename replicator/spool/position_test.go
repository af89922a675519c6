package spool

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/sqlwatch/sqlwatch/internal/dbfile"
)

// TestRecordDamage: a record in which any byte was changed, or that was cut short, is refused
// (P13).
func TestRecordDamage(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "position.json")
	want := Record{Version: version, Position: Position{TXID: 7, Lineage: "abc", PageSize: 4096, Pages: 3, Change: 9,
		Frames: dbfile.Position{Frame: 2}}}
	if err := writeRecord(path, want); err != nil {
		t.Fatal(err)
	}
	if got, err := readRecord(path); err != nil || got != want {
		t.Fatalf("read back %+v, %v; want %+v", got, err, want)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for i := range b {
		for _, bit := range []byte{1, 0x20} {
			b[i] ^= bit
			if err := os.WriteFile(path, b, 0o600); err != nil {
				t.Fatal(err)
			}
			if got, err := readRecord(path); !errors.Is(err, ErrCorrupt) {
				t.Fatalf("byte %d changed: read %+v, %v; want %v", i, got, err, ErrCorrupt)
			}
			b[i] ^= bit
		}
	}
	for n := range b {
		if err := os.WriteFile(path, b[:n], 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := readRecord(path); !errors.Is(err, ErrCorrupt) {
			t.Fatalf("cut to %d bytes: %v, want %v", n, err, ErrCorrupt)
		}
	}
}
