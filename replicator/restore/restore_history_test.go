package restore_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"hash/crc64"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/pierrec/lz4/v4"
	"github.com/superfly/ltx"

	"github.com/sqlwatch/sqlwatch/replicator/catalog"
	"github.com/sqlwatch/sqlwatch/replicator/restore"
	"github.com/sqlwatch/sqlwatch/replicator/store"
	"github.com/sqlwatch/sqlwatch/replicator/store/storetest"
)

// history is a database made up by a test, with its replica. It remembers the bytes of every state.
type history struct {
	t        testing.TB
	store    store.Store
	pageSize int
	rnd      *rand.Rand
	state    []byte
	states   map[ltx.TXID][]byte
	times    map[ltx.TXID]time.Time
	txid     ltx.TXID
	clock    time.Time

	plain    bool // no metadata, as in Litestream's file replicas
	lz4Frame bool // pages in the older encoding
}

func newHistory(t testing.TB, st store.Store, pageSize int, seed uint64) *history {
	return &history{
		t: t, store: st, pageSize: pageSize, rnd: rand.New(rand.NewPCG(seed, 7)),
		states: make(map[ltx.TXID][]byte), times: make(map[ltx.TXID]time.Time),
		clock: time.Date(2024, 3, 1, 12, 0, 0, 123456789, time.UTC),
	}
}

// commit makes the next state: pages change, and sometimes the database grows or shrinks. Because
// of its TXID the first state is a snapshot.
func (h *history) commit() {
	h.t.Helper()
	next := bytes.Clone(h.state)
	n := len(next) / h.pageSize
	switch k := h.rnd.IntN(10); {
	case n == 0:
		next = append(next, h.randomPages(5)...)
	case k < 3:
		next = append(next, h.randomPages(1+h.rnd.IntN(3))...)
	case k == 3 && n > 3:
		next = next[:(n-1-h.rnd.IntN(2))*h.pageSize]
	}
	for range 1 + h.rnd.IntN(3) {
		copy(next[h.rnd.IntN(len(next)/h.pageSize)*h.pageSize:], h.randomPages(1))
	}
	h.commitState(next)
}

func (h *history) commitState(next []byte) {
	h.t.Helper()
	previous := h.state
	h.txid++
	h.clock = h.clock.Add(time.Duration(1+h.rnd.IntN(5000)) * time.Millisecond)
	h.state, h.states[h.txid], h.times[h.txid] = next, next, h.clock
	h.write(0, h.txid, h.txid, previous)
}

// randomPages returns n pages that compress a little and all differ.
func (h *history) randomPages(n int) []byte {
	data := make([]byte, n*h.pageSize)
	for i := 0; i < len(data); i += 8 {
		if h.rnd.IntN(3) > 0 {
			binary.LittleEndian.PutUint64(data[i:], h.rnd.Uint64())
		}
	}
	return data
}

func (h *history) snapshot() { h.write(store.SnapshotLevel, 1, h.txid, nil) }

// compact stores the TXIDs from..to as one file of the level.
func (h *history) compact(level int, from, to ltx.TXID) {
	var base []byte
	if from > 1 {
		base = h.states[from-1]
	}
	h.write(level, from, to, base)
}

// write stores the file that leads from base to the state at max.
func (h *history) write(level int, min, max ltx.TXID, base []byte) {
	h.t.Helper()
	h.put(store.LTXKey(level, min, max), h.encode(min, max, base), max)
}

func (h *history) put(key string, data []byte, max ltx.TXID) {
	h.t.Helper()
	opts := store.PutOptions{Create: true}
	body := storetest.Bytes(data)
	if !h.plain {
		opts.Metadata = map[string]string{
			store.MetaTimestamp: h.times[max].Format(time.RFC3339Nano),
			store.MetaChecksum:  h.checksum(max).String(),
			store.MetaSHA256:    body.SHA256,
			store.MetaLineage:   "0123abcd",
		}
	}
	if _, err := h.store.Put(context.Background(), key, body, opts); err != nil {
		h.t.Fatal(err)
	}
}

func (h *history) checksum(txid ltx.TXID) ltx.Checksum {
	sum, err := ltx.ChecksumReader(bytes.NewReader(h.states[txid]), h.pageSize)
	if err != nil {
		h.t.Fatal(err)
	}
	return sum | ltx.ChecksumFlag
}

func (h *history) encode(min, max ltx.TXID, base []byte) []byte {
	h.t.Helper()
	state := h.states[max]
	header := ltx.Header{
		Version: ltx.Version, Flags: ltx.HeaderFlagNoChecksum, PageSize: uint32(h.pageSize),
		Commit:  uint32(len(state) / h.pageSize),
		MinTXID: min, MaxTXID: max, Timestamp: h.times[max].UnixMilli(),
	}
	pages := make(map[uint32][]byte)
	for i := 0; i < len(state); i += h.pageSize {
		page := state[i : i+h.pageSize]
		if min == 1 || i >= len(base) || !bytes.Equal(page, base[i:i+h.pageSize]) || max-min > 2 && h.rnd.IntN(3) == 0 {
			pages[uint32(i/h.pageSize)+1] = page
		}
	}
	if h.lz4Frame {
		return encodeLZ4Frames(h.t, header, pages)
	}
	var buf bytes.Buffer
	enc, err := ltx.NewEncoder(&buf)
	if err == nil {
		err = enc.EncodeHeader(header)
	}
	for _, pgno := range slices.Sorted(maps.Keys(pages)) {
		if err == nil {
			err = enc.EncodePage(ltx.PageHeader{Pgno: pgno}, pages[pgno])
		}
	}
	if err == nil {
		err = enc.Close()
	}
	if err != nil {
		h.t.Fatal(err)
	}
	return buf.Bytes()
}

// encodeLZ4Frames writes an LTX file as Litestream 0.5.0 did.
func encodeLZ4Frames(t testing.TB, header ltx.Header, pages map[uint32][]byte) []byte {
	t.Helper()
	sum := crc64.New(crc64.MakeTable(crc64.ISO))
	var out bytes.Buffer
	both := func(b []byte) { out.Write(b); sum.Write(b) }
	head, err := header.MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	both(head)
	var index []byte
	for _, pgno := range slices.Sorted(maps.Keys(pages)) {
		start := out.Len()
		both(binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint32(nil, pgno), 0))
		zw := lz4.NewWriter(&out)
		if err := zw.Apply(lz4.BlockSizeOption(lz4.Block64Kb), lz4.CompressionLevelOption(lz4.Fast)); err != nil {
			t.Fatal(err)
		}
		if _, err := zw.Write(pages[pgno]); err != nil {
			t.Fatal(err)
		}
		if err := zw.Close(); err != nil {
			t.Fatal(err)
		}
		sum.Write(pages[pgno])
		for _, v := range []int{int(pgno), start, out.Len() - start} {
			index = binary.AppendUvarint(index, uint64(v))
		}
	}
	both(make([]byte, ltx.PageHeaderSize))
	index = append(index, 0)
	both(binary.BigEndian.AppendUint64(index, uint64(len(index))))
	both(make([]byte, 8))
	out.Write(binary.BigEndian.AppendUint64(nil, uint64(ltx.ChecksumFlag)|sum.Sum64()))
	return out.Bytes()
}

// scratch returns a directory in memory, because these tests are not about the disk.
func scratch(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "restore-test-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// restored restores to a new file and returns its bytes.
func restored(t testing.TB, st store.Store, target catalog.Target) ([]byte, restore.Result, error) {
	t.Helper()
	out := filepath.Join(scratch(t), "out.db")
	result, err := restore.Run(context.Background(), st, restore.Options{Output: out, Target: target,
		Check: restore.CheckNone})
	data, rerr := os.ReadFile(out)
	if (err == nil) != (rerr == nil) {
		t.Fatalf("restore: %v, but reading its output: %v", err, rerr)
	}
	if left, err := filepath.Glob(filepath.Join(filepath.Dir(out), ".*")); err != nil || len(left) > 0 {
		t.Fatalf("left behind: %q, %v", left, err)
	}
	return data, result, err
}

// want checks that restoring target yields exactly the state at txid.
func (h *history) want(target catalog.Target, txid ltx.TXID) {
	h.t.Helper()
	data, result, err := restored(h.t, h.store, target)
	if err != nil {
		h.t.Errorf("restore %s: %v", describe(target), err)
		return
	}
	if result.TXID != txid || !bytes.Equal(data, h.states[txid]) {
		h.t.Errorf("restore %s: txid %d (%d bytes, as it was: %v), want %d (%d bytes)", describe(target),
			result.TXID, len(data), bytes.Equal(data, h.states[result.TXID]), txid, len(h.states[txid]))
	}
	if !h.plain && !result.Timestamp.Equal(h.times[txid]) {
		h.t.Errorf("restore %s: time %s, want %s", describe(target), result.Timestamp, h.times[txid])
	}
}

func describe(target catalog.Target) string {
	return fmt.Sprintf("%d %s", target.TXID, target.Timestamp)
}
