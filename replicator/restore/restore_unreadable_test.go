package restore_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"regexp"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/superfly/ltx"

	"github.com/sqlwatch/sqlwatch/replicator/catalog"
	"github.com/sqlwatch/sqlwatch/replicator/store"
	"github.com/sqlwatch/sqlwatch/replicator/store/storetest"
)

// refusing is a store from which some objects can never be read.
type refusing struct {
	store.Store
	refuses func(key string) bool
	how     func(r io.ReadCloser, obj store.Object) (io.ReadCloser, store.Object, error)
}

func (s *refusing) Get(ctx context.Context, key string, offset, length int64) (io.ReadCloser, store.Object, error) {
	r, obj, err := s.Store.Get(ctx, key, offset, length)
	if err != nil || !s.refuses(key) {
		return r, obj, err
	}
	return s.how(r, obj)
}

var refusals = map[string]func(io.ReadCloser, store.Object) (io.ReadCloser, store.Object, error){
	"EIO": func(io.ReadCloser, store.Object) (io.ReadCloser, store.Object, error) {
		return nil, store.Object{}, fmt.Errorf("%w (%w)", store.ErrUnavailable, syscall.EIO)
	},
	"403": func(io.ReadCloser, store.Object) (io.ReadCloser, store.Object, error) {
		return nil, store.Object{}, store.ErrAuth
	},
	"a body that always ends early": func(r io.ReadCloser, obj store.Object) (io.ReadCloser, store.Object, error) {
		if r == nil {
			return r, obj, nil
		}
		data, err := io.ReadAll(r)
		return io.NopCloser(bytes.NewReader(data[:len(data)/2])), obj, errors.Join(err, r.Close())
	},
}

// shelf returns a replica whose TXIDs 1 to 3 and 6 are in one object each, and 4 and 5 in an object
// each and in one that both were compacted to.
func shelf(t *testing.T, listed bool) *history {
	m := storetest.NewMemory()
	m.ListMetadata = listed
	h := newHistory(t, m, 512, 31)
	for range 6 {
		h.commit()
	}
	h.compact(1, 4, 5)
	return h
}

// TestRestore_R11_unreadable: one object cannot be read, however often it is tried. Another object
// is used instead, or the error names the object, how often it was tried, and an earlier restore
// point, which really can be restored.
func TestRestore_R11_unreadable(t *testing.T) {
	t.Parallel()
	for how, refusal := range refusals {
		for _, test := range []struct {
			key    string
			listed bool     // listings include metadata
			want   ltx.TXID // what is restored, 0: an error
			before ltx.TXID // the restore point that the error names, 0: there is none
		}{
			{store.LTXKey(1, 4, 5), true, 6, 0},
			{store.LTXKey(0, 3, 3), true, 0, 2},
			{store.LTXKey(0, 3, 3), false, 0, 2},
			{store.LTXKey(0, 6, 6), true, 0, 5},
			{store.LTXKey(0, 6, 6), false, 0, 5},
			{store.LTXKey(0, 1, 1), true, 0, 0},
		} {
			t.Run(fmt.Sprintf("%s/%s/%v", how, strings.ReplaceAll(test.key, "/", "_"), test.listed), func(t *testing.T) {
				t.Parallel()
				h := shelf(t, test.listed)
				s := &refusing{h.store, func(key string) bool { return key == test.key }, refusal}
				data, result, err := restored(t, s, catalog.Target{})
				if test.want != 0 {
					if err != nil || !bytes.Equal(data, h.states[test.want]) || result.Replans != 1 {
						t.Fatalf("with another object for the same txids: %v, %d plans more", err, result.Replans)
					}
					return
				}
				wantUnreadable(t, h, s, err, test.key, test.before)
			})
		}
	}
}

func wantUnreadable(t *testing.T, h *history, s store.Store, err error, key string, before ltx.TXID) {
	t.Helper()
	var unreadable *store.UnreadableError
	if !errors.As(err, &unreadable) || unreadable.Key != key || unreadable.Tries < 1 {
		t.Fatalf("got %v, want an *UnreadableError of %s", err, key)
	}
	if want := regexp.MustCompile(`object ` + key + ` cannot be read \(tried (once|4 times)\)`); !want.MatchString(
		err.Error()) {
		t.Errorf("%q does not match %s", err, want)
	}
	point := regexp.MustCompile(`(?:--txid|to txid) (\d+)`).FindStringSubmatch(err.Error())
	if before == 0 {
		if point != nil {
			t.Errorf("%q names a restore point, but there is none", err)
		}
		return
	}
	if point == nil || point[1] != strconv.FormatUint(uint64(before), 10) {
		t.Fatalf("%q does not name txid %d", err, before)
	}
	if data, _, err := restored(t, s, catalog.Target{TXID: before}); err != nil || !bytes.Equal(data, h.states[before]) {
		t.Errorf("the restore point that was named: %v", err)
	}
}

// TestRestore_R11_unreadableStates: a restore never yields another state than the one asked for
// because an object cannot be read.
func TestRestore_R11_unreadableStates(t *testing.T) {
	t.Parallel()
	for _, listed := range []bool{true, false} {
		h := shelf(t, listed)
		for _, key := range []string{store.LTXKey(0, 1, 1), store.LTXKey(0, 3, 3), store.LTXKey(1, 4, 5),
			store.LTXKey(0, 5, 5), store.LTXKey(0, 6, 6)} {
			s := &refusing{h.store, func(k string) bool { return k == key }, refusals["403"]}
			for txid := ltx.TXID(1); txid <= 9; txid++ {
				targets := []catalog.Target{{TXID: txid}}
				if txid <= 6 {
					targets = append(targets, catalog.Target{Timestamp: h.times[txid]})
				}
				for _, target := range targets {
					if data, _, err := restored(t, s, target); err == nil && !bytes.Equal(data, h.states[txid]) {
						t.Errorf("without %s: %s gave another state", key, describe(target))
					}
				}
			}
		}
	}
}

// TestRestore_R11_nothingReadable: if a store lists objects but none of them can be read, the
// restore does not try them one after the other.
func TestRestore_R11_nothingReadable(t *testing.T) {
	t.Parallel()
	h := shelf(t, true)
	s := &refusing{h.store, func(string) bool { return true }, refusals["403"]}
	_, result, err := restored(t, s, catalog.Target{})
	var unreadable *store.UnreadableError
	if !errors.As(err, &unreadable) || !errors.Is(err, store.ErrAuth) {
		t.Errorf("got %v, want an *UnreadableError that is ErrAuth", err)
	}
	if result.Replans > 2 {
		t.Errorf("%d plans more", result.Replans)
	}
}

// vanishing lists an object until somebody asks for it.
type vanishing struct {
	store.Store
	key  string
	gone atomic.Bool
}

func (s *vanishing) Get(ctx context.Context, key string, offset, length int64) (io.ReadCloser, store.Object, error) {
	if key == s.key {
		s.gone.Store(true)
		return nil, store.Object{}, store.ErrNotFound
	}
	return s.Store.Get(ctx, key, offset, length)
}

func (s *vanishing) List(ctx context.Context, prefix, after string) iter.Seq2[store.Object, error] {
	return func(yield func(store.Object, error) bool) {
		for object, err := range s.Store.List(ctx, prefix, after) {
			if (object.Key != s.key || !s.gone.Load()) && !yield(object, err) {
				return
			}
		}
	}
}

// TestRestore_R10_newestVanished: the file of the newest state is listed and then gone, as where two servers of a store
// disagree or somebody removes it. The state before it is not restored in its place.
func TestRestore_R10_newestVanished(t *testing.T) {
	t.Parallel()
	for _, listed := range []bool{true, false} {
		t.Run(fmt.Sprintf("metadata in listings %v", listed), func(t *testing.T) {
			t.Parallel()
			h := shelf(t, listed)
			_, result, err := restored(t, &vanishing{Store: h.store, key: store.LTXKey(0, 6, 6)}, catalog.Target{})
			gap := (*catalog.GapError)(nil)
			if !errors.As(err, &gap) || gap.From != 6 || gap.To != 6 || gap.Reached != 5 {
				t.Errorf("restored txid %d, %v", result.TXID, err)
			}
		})
	}
}
