package upload

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/superfly/ltx"

	"github.com/sqlwatch/sqlwatch/replicator/custody"
	"github.com/sqlwatch/sqlwatch/replicator/lease"
	"github.com/sqlwatch/sqlwatch/replicator/spool"
	"github.com/sqlwatch/sqlwatch/replicator/store"
	"github.com/sqlwatch/sqlwatch/replicator/store/storetest"
)

// ignoring is a store that accepts both conditions and honours none.
type ignoring struct{ store.Store }

// Put implements store.Store.
func (i ignoring) Put(ctx context.Context, key string, b store.Body, o store.PutOptions) (store.Object, error) {
	o.Match, o.Create = "", false
	return i.Store.Put(ctx, key, b, o)
}

// uploading is an uploader that holds its lease, on a store that faulty can break.
type uploading struct {
	*Uploader
	memory *storetest.Memory
	faulty *storetest.Faulty
	saved  *custody.StateFile
}

// newUploading returns an uploader. If unguarded is set, its store honours no condition.
func newUploading(t *testing.T, unguarded bool) *uploading {
	t.Helper()
	u := &uploading{memory: storetest.NewMemory(), saved: custody.NewStateFile(t.TempDir(), "r")}
	var st store.Store = u.memory
	if unguarded {
		st = ignoring{u.memory}
	}
	u.faulty = storetest.NewFaulty(st, nil)
	var passed atomic.Int64 // seconds
	l := lease.New(lease.Options{Store: u.faulty, Owner: "us", Save: func(...string) error { return nil },
		Clock: func() time.Time { return time.Unix(1_700_000_000+passed.Load(), 0) }})
	if _, err := l.Inspect(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	err := l.Hold(t.Context())
	for ; errors.Is(err, lease.ErrConfirming) && passed.Load() < 100; passed.Add(1) {
		if err = l.Hold(t.Context()); errors.Is(err, lease.ErrMoved) {
			// A lease on a store without conditions has to be read again after some seconds, and
			// then the replica.
			_, err = l.Inspect(t.Context(), nil)
			err = errors.Join(err, l.Hold(t.Context()))
		}
	}
	if err != nil || (l.Guard() == lease.GuardNone) != unguarded {
		t.Fatalf("%v; unguarded %v", err, l.Guard() == lease.GuardNone)
	}
	u.Uploader = New(u.faulty, l, u.saved, t.TempDir(), slog.New(slog.DiscardHandler), time.Now)
	return u
}

// breaks makes the next call of an operation on an LTX file fail.
func (u *uploading) breaks(op string, fault storetest.Fault) {
	done := false
	u.faulty.Decide = func(called, key string, _ int) storetest.Fault {
		if _, _, _, note := store.ParseLTXKey(key); done || called != op || note != nil {
			return storetest.None
		}
		done = true
		return fault
	}
}

func metadata(of string) map[string]string {
	return map[string]string{store.MetaLineage: "l", store.MetaTimestamp: of, store.MetaChecksum: of}
}

// TestCreate: an object that already exists under the key counts as our own if it has the same
// bytes or the same state, as after a lost reply or from an earlier version. Any other object is
// another writer's: the lease is then lost, and the object is not replaced.
func TestCreate(t *testing.T) {
	t.Parallel()
	key := store.LTXKey(0, 5, 5)
	mine := []byte("mine")
	with := func(m map[string]string, data []byte) map[string]string {
		m[store.MetaSHA256] = storetest.Bytes(data).SHA256
		return m
	}
	for name, tt := range map[string]struct {
		there    []byte
		metadata map[string]string
		fenced   bool
	}{
		"nothing":                                 {nil, nil, false},
		"the same bytes":                          {mine, with(metadata("another"), mine), false},
		"other bytes of the same state":           {[]byte("as of an earlier version"), with(metadata("5"), nil), false},
		"other bytes":                             {[]byte("them"), with(metadata("6"), []byte("them")), true},
		"other bytes that say nothing":            {[]byte("them"), nil, true},
		"other bytes, with our digest for theirs": {[]byte("longer"), with(metadata("6"), mine), true},
	} {
		for _, unguarded := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, unguarded %v", name, unguarded), func(t *testing.T) {
				t.Parallel()
				u := newUploading(t, unguarded)
				if tt.there != nil {
					if _, err := u.memory.Put(t.Context(), key, storetest.Bytes(tt.there),
						store.PutOptions{Metadata: tt.metadata}); err != nil {
						t.Fatal(err)
					}
				}
				object, err := u.Create(t.Context(), key, storetest.Bytes(mine), with(metadata("5"), mine))
				if tt.fenced {
					if !errors.Is(err, lease.ErrFenced) || u.Bytes() != 0 {
						t.Errorf("%+v, %v, want ErrFenced", object, err)
					}
					if err := u.lease.Hold(t.Context()); err == nil {
						t.Error("the lease is still held")
					}
				} else if err != nil || u.Bytes() != object.Size || object.Size == 0 {
					t.Errorf("%+v, %v", object, err)
				}
				want := tt.there
				if want == nil {
					want = mine
				}
				if got := read(t, u.memory, key); !bytes.Equal(got, want) {
					t.Errorf("the store holds %q, want %q", got, want)
				}
			})
		}
	}
}

func read(t *testing.T, st store.Store, key string) []byte {
	t.Helper()
	r, _, err := st.Get(t.Context(), key, 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	data, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// TestCreate_S5_lostReply: an upload that failed, whether or not it was stored, succeeds when it is
// repeated, and is stored once.
func TestCreate_S5_lostReply(t *testing.T) {
	t.Parallel()
	key, body := store.LTXKey(0, 5, 5), storetest.Bytes([]byte("mine"))
	notes := metadata("5")
	notes[store.MetaSHA256] = body.SHA256
	for _, unguarded := range []bool{false, true} {
		for _, fault := range []storetest.Fault{storetest.Stored, storetest.NotStored} {
			u := newUploading(t, unguarded)
			u.memory.Enforce(t)
			u.breaks("put", fault)
			if _, err := u.Create(t.Context(), key, body, notes); !errors.Is(err, store.ErrUnavailable) {
				t.Errorf("%v, want ErrUnavailable", err)
			}
			if object, err := u.Create(t.Context(), key, body, notes); err != nil || object.Size != body.Size {
				t.Errorf("again: %+v, %v", object, err)
			}
		}
	}
}

// file returns an LTX file of a database of one page.
func file(t *testing.T) []byte {
	t.Helper()
	var b bytes.Buffer
	enc, err := ltx.NewEncoder(&b)
	if err != nil {
		t.Fatal(err)
	}
	err = errors.Join(
		enc.EncodeHeader(ltx.Header{Version: ltx.Version, Flags: ltx.HeaderFlagNoChecksum, PageSize: 512, Commit: 1,
			MinTXID: 1, MaxTXID: 9, Timestamp: 9}),
		enc.EncodePage(ltx.PageHeader{Pgno: 1}, bytes.Repeat([]byte("x"), 512)),
		enc.Close())
	if err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// unread returns the keys that the journal says are to be read back.
func (u *uploading) unread() (keys []string) {
	for _, sent := range u.saved.Get().Unread {
		keys = append(keys, sent.Key)
	}
	return keys
}

// TestCreateBase: a snapshot counts once it was read back. If the store changed it, it is deleted.
// No entry is left in the journal in either case.
func TestCreateBase(t *testing.T) {
	t.Parallel()
	key, data := store.LTXKey(store.SnapshotLevel, 1, 9), file(t)
	bodies := map[string]func() store.Body{
		"of known size": func() store.Body { return storetest.Bytes(data) },
		"a stream":      func() store.Body { return storetest.Stream(bytes.NewReader(data)) },
	}
	for name, body := range bodies {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			u := newUploading(t, false)
			if _, err := u.CreateBase(t.Context(), key, body(), metadata("9")); err != nil || len(u.unread()) != 0 {
				t.Errorf("%v; to be read back: %q", err, u.unread())
			}
			u = newUploading(t, false)
			u.breaks("get", storetest.Corrupt) // the first read is corrupt; a second one of the whole object is not
			if _, err := u.CreateBase(t.Context(), key, body(), metadata("9")); err != nil || len(u.unread()) != 0 {
				t.Errorf("a bit that flipped on the way back: %v; to be read back: %q", err, u.unread())
			}
			u = newUploading(t, false)
			changing := tampering{u.memory}
			u.store = changing
			_, err := u.CreateBase(t.Context(), key, body(), metadata("9"))
			if _, _, there := u.memory.Get(t.Context(), key, 0, 0); !errors.Is(err, store.ErrCorrupt) ||
				!errors.Is(there, store.ErrNotFound) || len(u.unread()) != 0 {
				t.Errorf("stored corrupt: %v; get: %v; to be read back: %q", err, there, u.unread())
			}
		})
	}
}

// tampering is a store that changes the last byte of what it stores.
type tampering struct{ *storetest.Memory }

// Put implements store.Store.
func (s tampering) Put(ctx context.Context, key string, b store.Body, o store.PutOptions) (store.Object, error) {
	object, err := s.Memory.Put(ctx, key, b, o)
	s.Tamper(key, func(data []byte) []byte { data[len(data)-1] ^= 1; return data })
	return object, err
}

// TestRecheck: after a crash between an upload and reading it back, HoldChecked fails, so that
// nothing is deleted, until the object was read. An intact object is forgotten; a corrupt one is
// deleted.
func TestRecheck(t *testing.T) {
	t.Parallel()
	key, data := store.LTXKey(store.SnapshotLevel, 1, 9), file(t)
	ending := data[len(data)-ltx.TrailerSize:]
	for name, tt := range map[string]struct {
		stored []byte
		ending []byte
		gone   bool
	}{
		"it ends as it was sent":       {data, ending, false},
		"how it ended is not known":    {data, nil, false},
		"it ends otherwise, and reads": {data, bytes.Repeat([]byte{1}, len(ending)), false},
		"corrupt":                      {append(bytes.Clone(data[:len(data)-1]), data[len(data)-1]^1), ending, true},
		"cut short":                    {data[:len(data)-20], ending, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			u := newUploading(t, false)
			if tt.stored != nil {
				if _, err := u.memory.Put(t.Context(), key, storetest.Bytes(tt.stored), store.PutOptions{}); err != nil {
					t.Fatal(err)
				}
			}
			if err := u.saved.Sent(custody.Unread{Key: key, Size: int64(len(data)), Ending: tt.ending}); err != nil {
				t.Fatal(err)
			}
			u.faulty.Decide = func(string, string, int) storetest.Fault { return storetest.NotStored }
			if err := u.HoldChecked(t.Context()); err == nil {
				t.Error("HoldChecked succeeded before the object was read")
			}
			u.faulty.Decide = func(string, string, int) storetest.Fault { return storetest.None }
			gone, err := u.Recheck(t.Context())
			if gone != tt.gone || err != nil || len(u.unread()) != 0 {
				t.Errorf("gone %v, %v; to be read back: %q", gone, err, u.unread())
			}
			if err := u.HoldChecked(t.Context()); err != nil {
				t.Errorf("HoldChecked after it was read: %v", err)
			}
		})
	}
}

// TestRecheck_S13_late: a snapshot whose upload had no answer arrives after it was looked for.
// Nothing is deleted on the strength of it before it was read. Until it arrives, it keeps nothing
// from being deleted, and is awaited for a day.
func TestRecheck_S13_late(t *testing.T) {
	t.Parallel()
	key, data := store.LTXKey(store.SnapshotLevel, 1, 9), file(t)
	for name, flips := range map[string]byte{"intact": 0, "corrupt": 1} {
		u := newUploading(t, false)
		now := time.Now()
		u.clock = func() time.Time { return now }
		late := storetest.NewLate(u.memory)
		u.store = late
		late.CutAt(func(key string) bool { return strings.HasPrefix(key, "0009/") })
		if _, err := u.CreateBase(t.Context(), key, storetest.Bytes(data), metadata("9")); err == nil {
			t.Fatal("the upload had an answer")
		}
		late.Mend()
		for range 2 {
			if gone, err := u.Recheck(t.Context()); gone || err != nil || !u.Uploader.unread(key) {
				t.Errorf("%s: gone %v, %v; to be read back: %q", name, gone, err, u.unread())
			}
			if err := u.HoldChecked(t.Context()); err != nil {
				t.Errorf("%s: HoldChecked before it arrived: %v", name, err)
			}
			now = now.Add(12 * time.Hour)
		}
		now = now.Add(-time.Second)
		if err := late.Deliver(); err != nil {
			t.Fatal(err)
		}
		u.memory.Tamper(key, func(data []byte) []byte { data[len(data)-1] ^= flips; return data })
		err := u.HoldChecked(t.Context())
		if _, _, there := u.memory.Get(t.Context(), key, 0, 0); errors.Is(err, lease.ErrMoved) != (name == "corrupt") ||
			errors.Is(there, store.ErrNotFound) != (name == "corrupt") || len(u.unread()) != 0 {
			t.Errorf("%s: HoldChecked: %v; get: %v; to be read back: %q", name, err, there, u.unread())
		}
	}
	u := newUploading(t, false)
	now := time.Now()
	u.clock = func() time.Time { return now }
	if err := u.saved.Sent(custody.Unread{Key: key, Size: 1}); err != nil {
		t.Fatal(err)
	}
	for _, listed := range []bool{true, false} {
		if gone, err := u.Recheck(t.Context()); gone || err != nil || u.Uploader.unread(key) != listed {
			t.Errorf("never stored: gone %v, %v; to be read back: %q", gone, err, u.unread())
		}
		now = now.Add(24 * time.Hour)
	}
}

// TestNextBatch: segments are uploaded as one object if they follow each other, have the same page
// size, and are not too many or too large; a snapshot is always an object of its own.
func TestNextBatch(t *testing.T) {
	t.Parallel()
	segment := func(min, max ltx.TXID, pageSize int, size int64) spool.Segment {
		return spool.Segment{MinTXID: min, MaxTXID: max, PageSize: pageSize, Size: size}
	}
	var many []spool.Segment
	for txid := ltx.TXID(2); txid < 400; txid++ {
		many = append(many, segment(txid, txid, 4096, 100))
	}
	for name, tt := range map[string]struct {
		segments []spool.Segment
		want     int
	}{
		"one":                   {many[:1], 1},
		"some":                  {many[:7], 7},
		"too many":              {many, maxBatchSegments},
		"a snapshot":            {append([]spool.Segment{segment(1, 1, 4096, 9)}, many...), 1},
		"a snapshot among them": {[]spool.Segment{many[0], many[1], segment(1, 4, 4096, 9), segment(5, 5, 4096, 9)}, 2},
		"a gap":                 {[]spool.Segment{many[0], many[1], many[3]}, 2},
		"another page size":     {[]spool.Segment{many[0], segment(3, 3, 512, 100)}, 1},
		"too large together":    {[]spool.Segment{segment(2, 2, 512, maxBatchBytes-1), segment(3, 3, 512, 2)}, 1},
		"just not too large":    {[]spool.Segment{segment(2, 2, 512, maxBatchBytes-1), segment(3, 3, 512, 1)}, 2},
		"too large even by one": {[]spool.Segment{segment(2, 2, 512, 2*maxBatchBytes), segment(3, 3, 512, 1)}, 1},
	} {
		if got := NextBatch(tt.segments); len(got) != tt.want {
			t.Errorf("%s: %d segments, want %d", name, len(got), tt.want)
		}
	}
	f := NextBatch(many).File()
	if f.Level != 0 || f.MinTXID != 2 || f.MaxTXID != 2+maxBatchSegments-1 {
		t.Errorf("%+v", f)
	}
	if f := (Batch{segment(1, 4, 4096, 9)}).File(); f.Level != store.SnapshotLevel || f.MaxTXID != 4 {
		t.Errorf("file of a snapshot: %+v", f)
	}
}

// TestEnding: the length and the last bytes of a stream are reported before its reader has all of
// it, however it is read, and only once.
func TestEnding(t *testing.T) {
	t.Parallel()
	data := make([]byte, 100)
	for i := range data {
		data[i] = byte(i)
	}
	for _, whole := range []int64{-1, 100} {
		for _, step := range []int{1, 7, ltx.TrailerSize, 99, 100, 1000} {
			told := 0
			e := &ending{ReadCloser: io.NopCloser(bytes.NewReader(data)), whole: whole}
			e.done = func(size int64, last []byte) error {
				told++
				if size != 100 || !bytes.Equal(last, data[100-ltx.TrailerSize:]) {
					t.Errorf("%d at a time: %d bytes that end with %v", step, size, last)
				}
				return nil
			}
			for p := make([]byte, step); ; {
				if _, err := e.Read(p); err != nil {
					break
				}
				if e.size == whole && told == 0 {
					t.Errorf("%d at a time: everything was read, and nothing reported", step)
				}
			}
			if told != 1 {
				t.Errorf("%d at a time, size %d: reported %d times, want once", step, whole, told)
			}
		}
	}
}

// TestCreateMerged_S13_recheck: the replica is examined while a merged file is sent, as after a lapsed lease. That the
// file is not there yet does not mean that it need not be read back.
func TestCreateMerged_S13_recheck(t *testing.T) {
	t.Parallel()
	u := newUploading(t, false)
	key, looked := store.LTXKey(1, 2, 9), false
	u.faulty.Decide = func(op, k string, _ int) storetest.Fault {
		if op == "put" && k == key {
			looked = true
			if gone, err := u.Recheck(t.Context()); gone || err != nil {
				t.Errorf("recheck: %v, %v", gone, err)
			}
		}
		return storetest.None
	}
	if _, err := u.CreateMerged(t.Context(), key, storetest.Bytes([]byte("x")), metadata("m")); err != nil {
		t.Fatal(err)
	}
	if !looked || !u.Uploader.unread(key) {
		t.Errorf("looked %v; not known as unread: %v", looked, u.saved.Get().Unread)
	}
}
