package compact

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/superfly/ltx"

	"github.com/sqlwatch/sqlwatch/replicator/catalog"
	"github.com/sqlwatch/sqlwatch/replicator/store"
	"github.com/sqlwatch/sqlwatch/replicator/store/storetest"
)

// file returns an LTX file of one page.
func file(t *testing.T, txid ltx.TXID) []byte {
	t.Helper()
	var b bytes.Buffer
	enc, err := ltx.NewEncoder(&b)
	if err != nil {
		t.Fatal(err)
	}
	err = errors.Join(
		enc.EncodeHeader(ltx.Header{Version: ltx.Version, Flags: ltx.HeaderFlagNoChecksum, PageSize: 512, Commit: 2,
			MinTXID: txid, MaxTXID: txid, Timestamp: int64(txid)}),
		enc.EncodePage(ltx.PageHeader{Pgno: 1}, make([]byte, 512)),
		enc.Close())
	if err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// TestCompact_S35_unreadable: an object whose body breaks off every time counts as lost after some
// attempts, and is not read again; compaction continues around it.
func TestCompact_S35_unreadable(t *testing.T) {
	t.Parallel()
	m := storetest.NewMemory()
	bad := store.LTXKey(0, 3, 3)
	reads := 0
	st := storetest.NewFaulty(m, func(op, key string, _ int) storetest.Fault {
		if op == "get" && key == bad {
			reads++
			return storetest.Truncated
		}
		return storetest.None
	})
	now := time.Unix(1_700_000_000, 0)
	c := New(Options{
		ReadBack: func(string) {},
		Store:    st, Scratch: t.TempDir(), Clock: func() time.Time { return now }, Logger: slog.New(slog.DiscardHandler),
		Hold: func(context.Context) error { return nil },
		Create: func(ctx context.Context, key string, body store.Body, metadata map[string]string) (store.Object, error) {
			return m.Put(ctx, key, body, store.PutOptions{Metadata: metadata})
		},
	})
	for txid := ltx.TXID(2); txid <= 6; txid++ {
		data := file(t, txid)
		body := store.Body{Size: int64(len(data)), Open: func() (io.ReadCloser, error) {
			return io.NopCloser(bytes.NewReader(data)), nil
		}}
		object, err := m.Put(t.Context(), store.LTXKey(0, txid, txid), body, store.PutOptions{})
		if err != nil {
			t.Fatal(err)
		}
		c.Add(store.LTXFile{MinTXID: txid, MaxTXID: txid, Object: object}, now)
	}
	now = now.Add(time.Minute)
	var lost []store.LTXFile
	attempts := 0
	for ; len(lost) == 0 && attempts < 20; attempts++ {
		r, err := c.Run(t.Context())
		if lost = r.Lost; len(lost) == 0 && err == nil {
			t.Fatal("compaction succeeded")
		}
	}
	if attempts != maxTries || len(lost) != 1 || lost[0].Object.Key != bad {
		t.Fatalf("after %d attempts lost %+v, want %s after %d", attempts, lost, bad, maxTries)
	}
	before := reads
	if _, err := c.Run(t.Context()); err != nil {
		t.Errorf("compaction around the gap: %v", err)
	}
	if _, _, err := m.Get(t.Context(), store.LTXKey(1, 4, 6), 0, 0); err != nil {
		t.Errorf("the files after the gap were not merged: %v; keys %q", err, m.Keys())
	}
	if reads != before {
		t.Errorf("the lost object was read %d times more", reads-before)
	}
}

// TestRecent_isBounded: while compaction fails, only the newest files are remembered for it.
func TestRecent_isBounded(t *testing.T) {
	t.Parallel()
	p := New(Options{Clock: time.Now})
	const n = 3 * maxRecent
	for txid := ltx.TXID(1); txid <= n; txid++ {
		f := store.LTXFile{MinTXID: txid, MaxTXID: txid, Object: store.Object{Key: store.LTXKey(0, txid, txid)}}
		p.Add(f, time.Unix(0, 0))
	}
	if got := len(p.recent); got > maxRecent || len(p.times) != got {
		t.Errorf("%d files and %d times are kept, want at most %d", got, len(p.times), maxRecent)
	}
	if got := p.recent[len(p.recent)-1].MaxTXID; got != n {
		t.Errorf("the newest file kept is %d, want %d", got, n)
	}
}

// TestKept: inputs that are kept on this machine are not read from the store. If a local copy is
// corrupt, the inputs are read from the store.
func TestKept(t *testing.T) {
	t.Parallel()
	for _, corrupt := range []bool{false, true} {
		m := storetest.NewMemory()
		reads := 0
		st := storetest.NewFaulty(m, func(op, key string, _ int) storetest.Fault {
			if op == "get" && key < "0001" {
				reads++
			}
			return storetest.None
		})
		dir, source, now := t.TempDir(), t.TempDir(), time.Unix(1_700_000_000, 0)
		c := New(Options{
			ReadBack: func(string) {},
			Store:    st, Scratch: dir, Clock: func() time.Time { return now }, Logger: slog.New(slog.DiscardHandler),
			Name: "a", Local: 1 << 20, Hold: func(context.Context) error { return nil },
			Create: func(ctx context.Context, key string, body store.Body, metadata map[string]string) (store.Object, error) {
				return m.Put(ctx, key, body, store.PutOptions{Metadata: metadata})
			},
		})
		for txid := ltx.TXID(2); txid <= 6; txid++ {
			data := file(t, txid)
			body := store.Body{Size: int64(len(data)), Open: func() (io.ReadCloser, error) {
				return io.NopCloser(bytes.NewReader(data)), nil
			}}
			metadata := map[string]string{store.MetaChecksum: txid.String()}
			object, err := m.Put(t.Context(), store.LTXKey(0, txid, txid), body, store.PutOptions{Metadata: metadata})
			if err != nil {
				t.Fatal(err)
			}
			f := store.LTXFile{MinTXID: txid, MaxTXID: txid, Object: object}
			if corrupt && txid == 4 {
				data = bytes.Clone(data)
				data[len(data)/2] ^= 1
			}
			path := filepath.Join(source, txid.String())
			if err := os.WriteFile(path, data, 0o600); err != nil {
				t.Fatal(err)
			}
			c.Add(f, now)
			c.Keep(f, path, metadata)
			if err := os.Remove(path); err != nil { // as the spool does
				t.Fatal(err)
			}
		}
		now = now.Add(time.Minute)
		if r, err := c.Run(t.Context()); err != nil || len(r.Lost) > 0 {
			t.Fatalf("corrupt %v: %+v, %v", corrupt, r, err)
		}
		_, object, err := m.Get(t.Context(), store.LTXKey(1, 2, 6), 0, 0)
		if err != nil || object.Metadata[store.MetaChecksum] != ltx.TXID(6).String() {
			t.Errorf("corrupt %v: %+v, %v", corrupt, object, err)
		}
		if want := map[bool]int{false: 0, true: 5}[corrupt]; reads != want {
			t.Errorf("corrupt %v: %d files were read, want %d", corrupt, reads, want)
		}
		if left, _ := filepath.Glob(filepath.Join(dir, "*")); len(left) != 1 || len(c.recent) != 1 {
			t.Errorf("corrupt %v: left: %q, %d files to merge", corrupt, left, len(c.recent))
		}
	}
}

// TestKept_isBounded: the oldest files are removed first, and a file larger than the limit is not
// kept.
func TestKept_isBounded(t *testing.T) {
	t.Parallel()
	k := kept{dir: t.TempDir(), name: "a", limit: 100}
	path := filepath.Join(t.TempDir(), "x")
	if err := os.WriteFile(path, make([]byte, 40), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"1", "2", "3"} {
		k.add(key, path, 40, nil)
	}
	k.add("huge", path, 101, nil)
	if left, _ := filepath.Glob(filepath.Join(k.dir, "*")); len(left) != 2 || k.bytes != 80 || k.order[0] != "2" {
		t.Errorf("left: %q, %d bytes, order %q", left, k.bytes, k.order)
	}
	k.remove("2", "3")
	if left, _ := filepath.Glob(filepath.Join(k.dir, "*")); len(left) != 0 || k.bytes != 0 {
		t.Errorf("left after removal: %q, %d bytes", left, k.bytes)
	}
}

// TestCompact_days: thirty days of changes are merged into files of weeks and days, even if the
// compactor is started anew every day, and a restore reads few files.
func TestCompact_days(t *testing.T) {
	t.Parallel()
	m := storetest.NewMemory()
	m.ListMetadata = true
	begin := time.Unix(1_700_000_000, 0).Truncate(7 * 24 * time.Hour)
	now := begin
	o := Options{
		ReadBack: func(string) {},
		Store:    m, Scratch: t.TempDir(), Clock: func() time.Time { return now }, Logger: slog.New(slog.DiscardHandler),
		Hold: func(context.Context) error { return nil },
		Create: func(ctx context.Context, key string, body store.Body, metadata map[string]string) (store.Object, error) {
			metadata[store.MetaTimestamp] = now.Format(time.RFC3339Nano)
			return m.Put(ctx, key, body, store.PutOptions{Metadata: metadata})
		},
	}
	put := func(level int, low, high ltx.TXID) store.LTXFile {
		t.Helper()
		data := file(t, high)
		body := store.Body{Size: int64(len(data)), Open: func() (io.ReadCloser, error) {
			return io.NopCloser(bytes.NewReader(data)), nil
		}}
		object, err := m.Put(t.Context(), store.LTXKey(level, low, high), body,
			store.PutOptions{Metadata: map[string]string{store.MetaTimestamp: now.Format(time.RFC3339Nano)}})
		if err != nil {
			t.Fatal(err)
		}
		return store.LTXFile{Level: level, MinTXID: low, MaxTXID: high, Object: object}
	}
	put(store.SnapshotLevel, 1, 1)
	txid := ltx.TXID(1)
	for day := range 30 {
		c := New(o)
		tip, err := catalog.FindTip(t.Context(), m)
		if err == nil {
			err = c.Load(t.Context(), tip.Levels, tip.Base)
		}
		if err != nil {
			t.Fatal(err)
		}
		for range 24 {
			for range 2 {
				txid++
				c.Add(put(0, txid, txid), now)
				now = now.Add(30 * time.Minute)
			}
			if _, err := c.Run(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		plan, err := catalog.MakePlan(t.Context(), m, catalog.Target{})
		if err != nil || plan.TXID != txid {
			t.Fatalf("day %d: %+v, %v", day, plan, err)
		}
		if n := len(plan.Files); n > 1+4+6+2 {
			t.Errorf("day %d: a restore reads %d files", day, n)
		}
	}
	if tip, err := catalog.FindTip(t.Context(), m); err != nil || tip.Levels[Levels] != 28*48+1 {
		t.Errorf("weeks reach txid %d of %d, %v", tip.Levels[Levels], txid, err)
	}
}
