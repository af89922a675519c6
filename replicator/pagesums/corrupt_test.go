package pagesums

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/superfly/ltx"
)

// mapOf writes a map with that many entries, and returns its checksum.
func mapOf(t *testing.T, path string, through ltx.TXID, pages uint32) ltx.Checksum {
	t.Helper()
	var sums []ltx.Checksum
	total := ltx.ChecksumFlag
	for page := range pages {
		sum := ltx.ChecksumFlag | ltx.Checksum(page+1)*0x9e3779b97f4a7c15
		sums = append(sums, sum)
		total = ltx.ChecksumFlag | (total ^ sum)
	}
	if err := Write(path, through, 512, sums); err != nil {
		t.Fatal(err)
	}
	return total
}

// believed reports whether the map at path opens and has the checksum total and that many pages,
// which is what its user checks.
func believed(t *testing.T, path string, total ltx.Checksum, pages uint32) bool {
	t.Helper()
	m, err := Open(path)
	if err != nil {
		if !errors.Is(err, ErrCorrupt) {
			t.Fatalf("open: %v, want ErrCorrupt", err)
		}
		return false
	}
	defer m.Close()
	got, err := m.Checksum()
	if err != nil {
		t.Fatal(err)
	}
	return got == total && m.Pages() == pages && m.Through() == 9 && m.PageSize() == 512
}

// TestFlippedByte_P13: a flipped bit is noticed wherever it is, except in unused bytes of the
// header and in the flag bit of a checksum.
func TestFlippedByte_P13(t *testing.T) {
	t.Parallel()
	const pages = 40
	path := filepath.Join(t.TempDir(), "pages.sum")
	total := mapOf(t, path, 9, pages)
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !believed(t, path, total, pages) {
		t.Fatal("the unchanged map is not accepted")
	}
	bytes := append([]byte(nil), good...)
	for i := range bytes {
		if i >= 32 && i < headerSize {
			continue // unused
		}
		for _, bit := range []byte{1, 0x80} {
			bytes[i] ^= bit
			if err := os.WriteFile(path, bytes, 0o600); err != nil {
				t.Fatal(err)
			}
			if believed(t, path, total, pages) {
				// The flag bit is the same in every checksum, and is not part of the sum.
				if (i-headerSize)%8 != 7 || bit != 0x80 {
					t.Errorf("byte %d changed by %#x: accepted", i, bit)
				}
			}
			bytes[i] ^= bit
		}
	}
}

// TestTornTail_P1: a map that was cut short is not accepted.
func TestTornTail_P1(t *testing.T) {
	t.Parallel()
	const pages = 40
	path := filepath.Join(t.TempDir(), "pages.sum")
	total := mapOf(t, path, 9, pages)
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for n := range good {
		if n > 64 && n < headerSize-8 {
			continue
		}
		if err := os.WriteFile(path, good[:n], 0o600); err != nil {
			t.Fatal(err)
		}
		if believed(t, path, total, pages) {
			t.Errorf("cut to %d of %d bytes: accepted", n, len(good))
		}
	}
}

// TestFailedSync_S20: after a failed fsync it is unknown what is on the disk. No later fsync counts
// until the map was written to another file. Entries that the new file lacks are restored from the
// redo log.
func TestFailedSync_S20(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "pages.sum")
	mapOf(t, path, 9, 4)
	m, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	change := func(m *Map, txid ltx.TXID, page uint32) {
		t.Helper()
		changes := []Change{{page, ltx.ChecksumFlag | ltx.Checksum(txid)}}
		if err := errors.Join(m.Put(changes), m.Cut(txid, 4)); err != nil {
			t.Fatal(err)
		}
	}
	change(m, 10, 2)
	lost := errors.New("fsync: input/output error")
	calls := 0
	m.sync = func() error {
		if calls++; calls == 1 {
			return lost
		}
		return nil
	}
	for range 3 {
		if _, err := m.Sync(); !errors.Is(err, lost) {
			t.Errorf("sync after a failed one: %v, want %v", err, lost)
		}
	}
	if calls != 1 || !m.Failed() || m.Through() != 9 {
		t.Errorf("fsync was called %d times, failed %v, through %s", calls, m.Failed(), m.Through())
	}
	want, err := m.Checksum()
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(m.Close(), Rewrite(path)); err != nil {
		t.Fatal(err)
	}
	again, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	if again.Failed() || again.Through() != 9 {
		t.Errorf("made again: failed %v, through %s; want 9", again.Failed(), again.Through())
	}
	change(again, 10, 2) // redo
	if got, err := again.Checksum(); err != nil || got != want {
		t.Errorf("adds up to %s (%v), want %s", got, err, want)
	}
	if through, err := again.Sync(); err != nil || through != 10 {
		t.Errorf("sync of the new map: %s, %v", through, err)
	}
}

// TestRedo_P1: each entry that was changed and not synced may or may not be on the disk. Making the
// same changes again leads to the same map, whichever part had reached the disk.
func TestRedo_P1(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	changes := []Change{{1, ltx.ChecksumFlag | 1}, {3, ltx.ChecksumFlag | 3}, {4, ltx.ChecksumFlag | 4},
		{6, ltx.ChecksumFlag | 6}}
	var want ltx.Checksum
	for reached := range 1 << len(changes) {
		path := filepath.Join(dir, "pages.sum")
		mapOf(t, path, 9, 4)
		m, err := Open(path)
		if err != nil {
			t.Fatal(err)
		}
		for i, c := range changes {
			if reached&(1<<i) != 0 {
				if err := m.Put([]Change{c}); err != nil {
					t.Fatal(err)
				}
			}
		}
		if err := m.Close(); err != nil {
			t.Fatal(err)
		}
		if m, err = Open(path); err != nil || m.Through() != 9 {
			t.Fatalf("reopened: %v, through %s", err, m.Through())
		}
		if err := errors.Join(m.Put(changes), m.Put([]Change{{5, ltx.ChecksumFlag | 5}}), m.Cut(10, 6)); err != nil {
			t.Fatal(err)
		}
		got, err := m.Checksum()
		if err != nil || m.Pages() != 6 {
			t.Fatal(err, m.Pages())
		}
		if want == 0 {
			want = got
		}
		if got != want {
			t.Errorf("with changes %04b on the disk the map adds up to %s, else to %s", reached, got, want)
		}
		if err := m.Close(); err != nil {
			t.Fatal(err)
		}
	}
}
