package retention

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/superfly/ltx"

	"github.com/sqlwatch/sqlwatch/replicator/catalog"
	"github.com/sqlwatch/sqlwatch/replicator/store"
	"github.com/sqlwatch/sqlwatch/replicator/store/storetest"
)

var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func dated(level int, txid, until ltx.TXID, at time.Time) catalog.Dated {
	return catalog.Dated{LTXFile: store.LTXFile{Level: level, MinTXID: txid, MaxTXID: txid,
		Object: store.Object{Key: store.LTXKey(level, txid, txid)}}, At: at, Until: until}
}

func TestNow_P9(t *testing.T) {
	t.Parallel()
	for _, away := range []time.Duration{0, 9 * time.Minute, -9 * time.Minute} {
		if got, err := Now(noon.Add(away), noon); err != nil || !got.Equal(noon.Add(away)) {
			t.Errorf("%s: %v, %v", away, got, err)
		}
	}
	for _, away := range []time.Duration{11 * time.Minute, -11 * time.Minute, 60 * 24 * time.Hour} {
		var clock *ClockError
		if _, err := Now(noon.Add(away), noon); !errors.As(err, &clock) {
			t.Errorf("%s: %v", away, err)
		}
	}
	if got, err := Now(noon, time.Time{}); err != nil || !got.Equal(noon) {
		t.Errorf("a store without a clock: %v, %v", got, err)
	}
}

// TestDue_P8: if a run considers all files old, it does not delete all of them.
func TestDue_P8(t *testing.T) {
	t.Parallel()
	var files []catalog.Dated
	for i := range 1000 {
		files = append(files, dated(0, ltx.TXID(i+1), ltx.TXID(i+1), noon.Add(time.Duration(i)*2*time.Minute)))
	}
	var l Ledger
	later := noon.Add(1000 * time.Hour)
	if keys := l.Due(files, 1000, time.Hour, later); len(keys) != 0 || !l.Waits() {
		t.Fatalf("%d keys within the grace period", len(keys))
	}
	keys := l.Due(files, 1000, time.Hour, later.Add(time.Hour))
	if len(keys) != 100 || keys[0] != files[0].Object.Key {
		t.Errorf("%d keys of 1000, want a tenth, the oldest", len(keys))
	}
	if keys := l.Due(files[:90], 90, time.Hour, later.Add(2*time.Hour)); len(keys) != 31 {
		t.Errorf("%d keys, want an hour's worth", len(keys))
	}
}

// TestDue_S15: files that cannot be deleted do not keep the others from being deleted.
func TestDue_S15(t *testing.T) {
	t.Parallel()
	var files []catalog.Dated
	for i := range 100 {
		files = append(files, dated(0, ltx.TXID(i+1), ltx.TXID(i+1), noon.Add(time.Duration(i)*time.Hour)))
	}
	kept := map[string]bool{}
	for _, f := range files[:20] {
		kept[f.Object.Key] = true
	}
	var l Ledger
	now := noon.Add(1000 * time.Hour)
	l.Due(files, len(files), time.Hour, now)
	for run := 0; len(files) > len(kept); run++ {
		now = now.Add(time.Hour)
		keys := l.Due(files, len(files), time.Hour, now)
		if run == 100 {
			t.Fatalf("%d files are left beside those that are kept", len(files)-len(kept))
		}
		l.Deleted(keys, slices.ContainsFunc(keys, func(k string) bool { return kept[k] }))
		files = slices.DeleteFunc(files, func(f catalog.Dated) bool {
			return slices.Contains(keys, f.Object.Key) &&
				!kept[f.Object.Key]
		})
	}
}

// TestDue_I9: files that can only be deleted together are not separated by a limit.
func TestDue_I9(t *testing.T) {
	t.Parallel()
	var files []catalog.Dated
	for i := range 200 {
		files = append(files, dated(0, ltx.TXID(i+1), ltx.TXID(i/50*50+50), noon.Add(time.Duration(i)*time.Hour)))
	}
	var l Ledger
	l.Due(files, 700, 0, noon.Add(999*time.Hour))
	if keys := l.Due(files, 700, 0, noon.Add(1000*time.Hour)); len(keys) != 100 {
		t.Errorf("%d keys, want two groups of fifty for a limit of seventy", len(keys))
	}
}

func TestClockErrorSaysWhatToDo(t *testing.T) {
	t.Parallel()
	if got := fmt.Sprint(&ClockError{noon, noon.Add(time.Hour)}); got != "this machine's clock says "+
		"2026-03-01T12:00:00Z, the store's 2026-03-01T13:00:00Z: nothing is deleted until they agree; set the clock that "+
		"is wrong" {
		t.Error(got)
	}
}

// TestRetainer_lists: the list of page checksums beside a file stays as long as the file and is
// deleted with it. A file of an earlier version has no list.
func TestRetainer_lists(t *testing.T) {
	t.Parallel()
	now := noon
	m := storetest.NewMemory()
	m.SetClock(func() time.Time { return now })
	put := func(level int, min, max ltx.TXID, listed bool) {
		t.Helper()
		keys := []string{store.LTXKey(level, min, max)}
		if sums, kept := store.SumsKey(level, min, max); kept && listed {
			keys = append(keys, sums)
		}
		for _, key := range keys {
			if _, err := m.Put(t.Context(), key, storetest.Bytes([]byte("x")), store.PutOptions{}); err != nil {
				t.Fatal(err)
			}
		}
	}
	put(9, 1, 5, true)
	put(4, 6, 7, false)
	put(4, 8, 9, true)
	now = now.Add(time.Hour)
	put(9, 1, 12, true)
	r := NewRetainer(RetainerOptions{
		Options: Options{Keep: 24 * time.Hour, Grace: time.Hour}, Store: m,
		Hold:      func(context.Context) error { return nil },
		Useless:   func() []string { return nil },
		Protected: func() map[string]bool { return nil }, Spared: func(ltx.TXID, time.Time) bool { return false },
		Found: func(Found) {}, Deleted: func(func(store.LTXFile) bool) {},
		Logger: slog.New(slog.DiscardHandler), Clock: func() time.Time { return now },
	})
	for range 8 {
		now = now.Add(13 * time.Hour)
		if _, err := r.Due(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	sums, _ := store.SumsKey(9, 1, 12)
	left := slices.DeleteFunc(m.Keys(), func(key string) bool { return strings.HasSuffix(key, "clock") })
	if want := []string{store.LTXKey(9, 1, 12), sums}; !slices.Equal(left, want) {
		t.Errorf("left %q, want %q", left, want)
	}
}

// TestRetainer_partly: every file whose deletion was asked for is reported, even one that the store
// refused to delete, and even if the answer was lost: a merge that still counted on a deleted file
// would miss it.
func TestRetainer_partly(t *testing.T) {
	t.Parallel()
	for name, answer := range map[string]error{"refused": store.ErrAuth, "unanswered": store.ErrUnavailable} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			now := noon
			m := storetest.NewMemory()
			m.SetClock(func() time.Time { return now })
			locked := store.LTXKey(4, 6, 7)
			m.Locked = func(key string) bool { return key == locked }
			for _, f := range []struct {
				level    int
				min, max ltx.TXID
			}{{9, 1, 5}, {4, 6, 7}, {4, 8, 9}, {9, 1, 12}} {
				if f.max == 12 {
					now = now.Add(time.Hour)
				}
				key := store.LTXKey(f.level, f.min, f.max)
				if _, err := m.Put(t.Context(), key, storetest.Bytes([]byte("x")), store.PutOptions{}); err != nil {
					t.Fatal(err)
				}
			}
			var st store.Store = m
			if answer == store.ErrUnavailable {
				st = unanswered{m}
			}
			told := map[string]bool{}
			r := NewRetainer(RetainerOptions{
				Options: Options{Keep: 24 * time.Hour, Grace: time.Hour}, Store: st,
				Hold:      func(context.Context) error { return nil },
				Useless:   func() []string { return nil },
				Protected: func() map[string]bool { return nil }, Spared: func(ltx.TXID, time.Time) bool { return false },
				Found: func(Found) {}, Deleted: func(asked func(store.LTXFile) bool) {
					for _, key := range []string{store.LTXKey(9, 1, 5), locked, store.LTXKey(4, 8, 9), store.LTXKey(9, 1, 12)} {
						told[key] = told[key] || asked(store.LTXFile{Object: store.Object{Key: key}})
					}
				},
				Logger: slog.New(slog.DiscardHandler), Clock: func() time.Time { return now },
			})
			failed := false
			for range 8 {
				now = now.Add(13 * time.Hour)
				_, err := r.Due(t.Context())
				failed = failed || errors.Is(err, answer)
			}
			if !failed || !told[store.LTXKey(9, 1, 5)] || !told[store.LTXKey(4, 8, 9)] || !told[locked] ||
				told[store.LTXKey(9, 1, 12)] {
				t.Errorf("failed %v, reported %v: want the files whose deletion was asked for, and no others", failed, told)
			}
		})
	}
}

// unanswered is a store that deletes objects, but whose answer does not arrive.
type unanswered struct{ *storetest.Memory }

func (u unanswered) Delete(ctx context.Context, keys ...string) error {
	if err := u.Memory.Delete(ctx, keys...); len(keys) == 0 || errors.Is(err, context.Canceled) {
		return err
	}
	return store.ErrUnavailable
}
