package restore_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/sqlwatch/sqlwatch/replicator/catalog"
	"github.com/sqlwatch/sqlwatch/replicator/restore"
	"github.com/sqlwatch/sqlwatch/replicator/store"
	"github.com/sqlwatch/sqlwatch/replicator/store/storetest"
)

// dyingStore fails to read one range of an object's bytes. The failure depends on the offset, not
// on how much was read, because requests are made ahead, in any order.
type dyingStore struct {
	store.Store
	key      string
	from, to int64
}

func (d *dyingStore) Get(ctx context.Context, key string, offset, length int64) (io.ReadCloser, store.Object, error) {
	if key == d.key && offset >= d.from && offset < d.to {
		return nil, store.Object{}, fmt.Errorf("the connection is dead: %w", store.ErrUnavailable)
	}
	return d.Store.Get(ctx, key, offset, length)
}

// leftovers returns the hidden files beside out.
func leftovers(t *testing.T, out string) []string {
	t.Helper()
	left, err := filepath.Glob(filepath.Join(filepath.Dir(out), ".*"))
	if err != nil {
		t.Fatal(err)
	}
	return left
}

// TestRestore_R6_resume interrupts restores and starts them again: pages that are already there and
// still useful are not fetched again, whatever happened to the replica or the target in the
// meantime, and the output is right in any case.
func TestRestore_R6_resume(t *testing.T) {
	t.Parallel()
	const pages = 18_000 // 70 MB
	m := storetest.NewMemory()
	h := newHistory(t, m, 4096, 11)
	h.commitState(h.randomPages(pages))
	for range 3 {
		h.commit()
	}
	whole := ltxSize(t, m, store.LTXKey(0, 1, 1))
	for name, tt := range map[string]struct {
		first, then catalog.Target
		meanwhile   func(t *testing.T, stage string)
		anew        bool // everything must be fetched again
	}{
		"same target": {},
		"twice": {meanwhile: func(t *testing.T, stage string) {
			breakOff(t, m, filepath.Dir(stage), catalog.Target{}, whole*2/3)
		}},
		"the replica went on": {first: catalog.Target{TXID: 2}, then: catalog.Target{TXID: 4}},
		"an earlier state":    {first: catalog.Target{TXID: 4}, then: catalog.Target{TXID: 2}, anew: true},
		"what is there is corrupt": {anew: true, meanwhile: func(t *testing.T, stage string) {
			damage(t, stage)
		}},
		"its note is lost": {anew: true, meanwhile: func(t *testing.T, stage string) {
			if err := os.Remove(stage + ".plan"); err != nil {
				t.Fatal(err)
			}
		}},
		"others may write to it": {anew: true, meanwhile: func(t *testing.T, stage string) {
			if err := os.Chmod(stage, 0o622); err != nil {
				t.Fatal(err)
			}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			if raceDetector && tt.anew {
				t.Skip("checksums of that much data take too long")
			}
			dir := scratch(t)
			out := filepath.Join(dir, "out.db")
			stage := breakOff(t, m, dir, tt.first, whole/3)
			if tt.meanwhile != nil {
				tt.meanwhile(t, stage)
			}
			c := &byteCounter{Store: m}
			r, err := restore.Run(t.Context(), c, restore.Options{Output: out, Target: tt.then, Check: restore.CheckNone,
				Keep: true})
			if err != nil {
				t.Fatal(err)
			}
			data, err := os.ReadFile(out)
			if err != nil || !bytes.Equal(data, h.states[r.TXID]) {
				t.Errorf("txid %d is not as it was, %v", r.TXID, err)
			}
			if got := c.bytes.Load(); tt.anew != (r.Resumed == 0) || !tt.anew && got > whole*8/10 || tt.anew && got < whole {
				t.Errorf("%d bytes of %d were fetched, %d were there; anew: %v", got, whole, r.Resumed, tt.anew)
			}
			if left := leftovers(t, out); len(left) > 0 {
				t.Errorf("left behind: %q", left)
			}
		})
	}
}

// breakOff interrupts a restore into dir that gets the first upTo bytes of the large file and its
// page index. It returns the path of what was written.
func breakOff(t *testing.T, m store.Store, dir string, target catalog.Target, upTo int64) string {
	t.Helper()
	key := store.LTXKey(0, 1, 1)
	d := &dyingStore{Store: m, key: key, from: upTo, to: ltxSize(t, m, key) - 1<<20}
	out := filepath.Join(dir, "out.db")
	r, err := restore.Run(t.Context(), d, restore.Options{Output: out, Target: target, Check: restore.CheckNone,
		Keep: true})
	if !errors.Is(err, store.ErrUnavailable) || r.Kept == "" {
		t.Fatalf("%+v, %v: want it to break off", r, err)
	}
	if _, err := os.Stat(out); err == nil {
		t.Fatal("something is at the output's place")
	}
	return r.Kept
}

// damage changes one byte of a page that was already written.
func damage(t *testing.T, path string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b := make([]byte, 8)
	if _, err := f.ReadAt(b, 0); err != nil || bytes.Equal(b, make([]byte, 8)) {
		t.Fatalf("page 1 is not there: %v", err)
	}
	b[3] ^= 0x20
	if _, err := f.WriteAt(b, 0); err != nil {
		t.Fatal(err)
	}
}

// TestRestore_R6_resumeNot: an interrupted restore of a small database leaves nothing to resume.
func TestRestore_R6_resumeNot(t *testing.T) {
	t.Parallel()
	m := storetest.NewMemory()
	h := newHistory(t, m, 4096, 12)
	h.commitState(h.randomPages(12_000)) // 49 MB: not worth keeping
	dir := scratch(t)
	d := &dyingStore{Store: m, key: store.LTXKey(0, 1, 1), from: 20 << 20, to: 1 << 40}
	out := filepath.Join(dir, "out.db")
	r, err := restore.Run(t.Context(), d, restore.Options{Output: out, Check: restore.CheckNone, Keep: true})
	if err == nil || r.Kept != "" || len(leftovers(t, out)) > 0 {
		t.Errorf("%+v, %v, left %q", r, err, leftovers(t, out))
	}
}
