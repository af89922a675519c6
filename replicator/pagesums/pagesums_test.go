package pagesums

import (
	"errors"
	"math/rand/v2"
	"path/filepath"
	"testing"

	"github.com/superfly/ltx"
)

// TestMap compares the page-checksum map with a plain slice while the database grows and shrinks.
// Every change is made twice, as a redo does.
func TestMap(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "pages.sum")
	if err := Write(path, 0, 512, nil); err != nil {
		t.Fatal(err)
	}
	m, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	rnd := rand.New(rand.NewPCG(3, 4))
	var model []ltx.Checksum
	total := ltx.ChecksumFlag
	for txid := ltx.TXID(1); txid < 300; txid++ {
		commit := uint32(1 + rnd.IntN(3000))
		changes := randomChanges(rnd, uint32(len(model)), commit)
		delta, err := m.Delta(changes, commit)
		if err != nil {
			t.Fatal(err)
		}
		total = ltx.ChecksumFlag | (total ^ delta)
		for range 2 {
			if err := errors.Join(m.Put(changes), m.Cut(txid, commit)); err != nil {
				t.Fatal(err)
			}
		}
		for len(model) < int(commit) {
			model = append(model, 0)
		}
		model = model[:commit]
		want := ltx.ChecksumFlag
		for _, c := range changes {
			model[c.Page-1] = c.Sum
		}
		for _, sum := range model {
			want = ltx.ChecksumFlag | (want ^ sum)
		}
		if got, err := m.Checksum(); err != nil || got != want || total != want {
			t.Fatalf("txid %s: map adds up to %s (%v), by deltas to %s; want %s", txid, got, err, total, want)
		}
	}
	if through, err := m.Sync(); err != nil || through != 299 {
		t.Fatalf("sync: %s, %v; want 299", through, err)
	}
	if m, err = Open(path); err != nil || m.through != 299 || m.pages != uint32(len(model)) || m.pageSize != 512 {
		t.Fatalf("opened again: %+v, %v", m, err)
	}
}

// randomChanges returns changes that include every page by which the map grows.
func randomChanges(rnd *rand.Rand, from, commit uint32) (changes []Change) {
	for page := uint32(1); page <= commit; page++ {
		if page > from || rnd.IntN(40) == 0 {
			changes = append(changes, Change{page, ltx.ChecksumFlag | ltx.Checksum(rnd.Uint64())})
		}
	}
	return changes
}

// TestWriterPatch: a map is patched within its entries and beyond its end, and cut, and its
// checksum is right.
func TestWriterPatch(t *testing.T) {
	t.Parallel()
	for _, pages := range []uint32{3, 8, 12} {
		path := filepath.Join(t.TempDir(), "pages.sum")
		w, err := Create(path)
		if err != nil {
			t.Fatal(err)
		}
		want := map[uint32]ltx.Checksum{}
		for page := uint32(1); page <= 8; page++ {
			want[page] = ltx.ChecksumFlag | ltx.Checksum(page)
			if err := w.Add(want[page]); err != nil {
				t.Fatal(err)
			}
		}
		var changes []Change
		for _, page := range []uint32{2, 7, 10, 12} {
			if page <= pages {
				want[page] = ltx.ChecksumFlag | ltx.Checksum(1000*page)
				changes = append(changes, Change{page, want[page]})
			}
		}
		if err := w.Patch(changes, pages); err != nil {
			t.Fatal(err)
		}
		sum := w.Checksum()
		if err := w.Commit(5, 4096); err != nil {
			t.Fatal(err)
		}
		m, err := Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer m.Close()
		got, err := m.Checksum()
		if err != nil || got != sum || m.Pages() != pages {
			t.Errorf("%d pages, %s, %v; want %d, %s", m.Pages(), got, err, pages, sum)
		}
		next := m.Entries()
		for page := uint32(1); page <= pages; page++ {
			if got, err := next(); err != nil || got != want[page] {
				t.Errorf("entry %d of %d: %s, %v; want %s", page, pages, got, err, want[page])
			}
		}
	}
}
