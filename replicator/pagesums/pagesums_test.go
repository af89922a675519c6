package pagesums

import (
	"errors"
	"math/rand/v2"
	"path/filepath"
	"testing"

	"github.com/superfly/ltx"
)

// The page-checksum map against a plain slice, through growth and shrinking,
// with every change made twice as redo does.
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

// randomChanges returns changes that hold every page by which the map grows.
func randomChanges(rnd *rand.Rand, from, commit uint32) (changes []Change) {
	for page := uint32(1); page <= commit; page++ {
		if page > from || rnd.IntN(40) == 0 {
			changes = append(changes, Change{page, ltx.ChecksumFlag | ltx.Checksum(rnd.Uint64())})
		}
	}
	return changes
}
