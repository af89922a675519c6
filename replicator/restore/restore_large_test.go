package restore_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"sync/atomic"
	"testing"
	"time"

	"github.com/superfly/ltx"
	"golang.org/x/sys/unix"

	"github.com/sqlwatch/sqlwatch/replicator/catalog"
	"github.com/sqlwatch/sqlwatch/replicator/restore"
	"github.com/sqlwatch/sqlwatch/replicator/store"
	"github.com/sqlwatch/sqlwatch/replicator/store/file"
	"github.com/sqlwatch/sqlwatch/replicator/store/s3"
	"github.com/sqlwatch/sqlwatch/replicator/store/s3/s3test"
	"github.com/sqlwatch/sqlwatch/replicator/store/storetest"
)

type (
	ltxTXID     = ltx.TXID
	ltxChecksum = ltx.Checksum
)

func pageSum(pgno uint32, data []byte) ltx.Checksum { return ltx.ChecksumPage(pgno, data) }

func totalAlloc() uint64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.TotalAlloc
}

// byteCounter counts the bytes that are read through it.
type byteCounter struct {
	store.Store
	bytes atomic.Int64
}

func (c *byteCounter) Get(ctx context.Context, key string, offset, length int64) (io.ReadCloser, store.Object, error) {
	r, obj, err := c.Store.Get(ctx, key, offset, length)
	if r == nil {
		return r, obj, err
	}
	return countedReader{r, c}, obj, err
}

type countedReader struct {
	io.ReadCloser
	c *byteCounter
}

func (r countedReader) Read(p []byte) (int, error) {
	n, err := r.ReadCloser.Read(p)
	r.c.bytes.Add(int64(n))
	return n, err
}

// TestRestoreFetchesOnlyNewestVersions: most pages of a large snapshot were overwritten since. Only
// the others are fetched from it.
func TestRestoreFetchesOnlyNewestVersions(t *testing.T) {
	m := storetest.NewMemory()
	h := newHistory(t, m, 16384, 3)
	h.commitState(h.randomPages(900)) // 11 MB compressed
	snapshot := ltxSize(t, m, store.LTXKey(0, 1, 1))
	next := append(h.randomPages(400), h.state[400*16384:450*16384]...)
	next = append(next, h.randomPages(450)...)
	h.commitState(next)
	for _, txid := range []ltx.TXID{2, 1} {
		c := &byteCounter{Store: m}
		data, _, err := restored(t, c, catalog.Target{TXID: txid})
		if err != nil || !bytes.Equal(data, h.states[txid]) {
			t.Fatalf("txid %d: %v, as it was: %v", txid, err, bytes.Equal(data, h.states[txid]))
		}
		of := c.bytes.Load() - ltxSize(t, m, store.LTXKey(0, txid, txid))
		if txid == 2 && of > snapshot/4 {
			t.Errorf("%d bytes were fetched of a snapshot of %d, although only 50 of its 900 pages are needed", of, snapshot)
		}
	}
	t.Run("R1_damage", func(t *testing.T) {
		key := store.LTXKey(0, 1, 1)
		for i := int64(0); i < snapshot; i += snapshot / 6 {
			m.Tamper(key, func(data []byte) []byte { data[i] ^= 0x10; return data })
			if data, _, err := restored(t, m, catalog.Target{}); err == nil && !bytes.Equal(data, h.states[2]) {
				t.Fatalf("byte %d flipped: success with other contents", i)
			}
			m.Tamper(key, func(data []byte) []byte { data[i] ^= 0x10; return data })
		}
	})
}

func ltxSize(t *testing.T, s store.Store, key string) int64 {
	t.Helper()
	_, obj, err := s.Get(context.Background(), key, 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	return obj.Size
}

// TestRestore_D17_lockPage restores a database larger than 1 GiB whose pages are nearly all zeros:
// the lock page is in no file, and remains a hole in the output.
func TestRestore_D17_lockPage(t *testing.T) {
	if testing.Short() || raceDetector {
		t.Skip("writes a GiB of zeros")
	}
	t.Parallel()
	const pageSize = 65536
	lock := ltx.LockPgno(pageSize)
	commit := lock + 2
	var buf bytes.Buffer
	enc, err := ltx.NewEncoder(&buf)
	if err != nil {
		t.Fatal(err)
	}
	if err := enc.EncodeHeader(ltx.Header{Version: ltx.Version, Flags: ltx.HeaderFlagNoChecksum, PageSize: pageSize,
		Commit: commit, MinTXID: 1, MaxTXID: 7}); err != nil {
		t.Fatal(err)
	}
	page := make([]byte, pageSize)
	var sum ltx.Checksum
	for pgno := uint32(1); pgno <= commit; pgno++ {
		if pgno == lock {
			continue
		}
		binary.BigEndian.PutUint32(page, pgno)
		sum ^= ltx.ChecksumPage(pgno, page)
		if err := enc.EncodePage(ltx.PageHeader{Pgno: pgno}, page); err != nil {
			t.Fatal(err)
		}
	}
	if err := enc.Close(); err != nil {
		t.Fatal(err)
	}
	m := storetest.NewMemory()
	meta := map[string]string{store.MetaChecksum: (sum | ltx.ChecksumFlag).String()}
	if _, err := m.Put(context.Background(), store.LTXKey(9, 1, 7), storetest.Bytes(buf.Bytes()),
		store.PutOptions{Metadata: meta}); err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(t.TempDir(), "out.db")
	r, err := restore.Run(context.Background(), m, restore.Options{Output: out, Check: restore.CheckNone})
	if err != nil || r.Size() != int64(commit)*pageSize || !r.Compared {
		t.Fatalf("%+v, %v", r, err)
	}
	f, err := os.Open(out)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, pgno := range []uint32{1, lock - 1, lock, lock + 1, commit} {
		got := make([]byte, 8)
		if _, err := f.ReadAt(got, int64(pgno-1)*pageSize); err != nil {
			t.Fatal(err)
		}
		if want := pgno; pgno == lock && binary.BigEndian.Uint32(got) != 0 ||
			pgno != lock && binary.BigEndian.Uint32(got) != want {
			t.Errorf("page %d begins with %x", pgno, got)
		}
	}
}

// BenchmarkRestore restores a database of 317 MB with 30 s of changes at 100 transactions a second,
// from a directory and from an S3 server on this machine. In the same run it copies and syncs a
// file of the same content, so that the ratio compares like with like. It also reports CPU time,
// for machines on which other programs run.
func BenchmarkRestore(b *testing.B) {
	b.Run("directory", func(b *testing.B) {
		s, err := file.New(filepath.Join(b.TempDir(), "replica"))
		if err != nil {
			b.Fatal(err)
		}
		benchmarkRestore(b, s)
	})
	b.Run("s3", func(b *testing.B) {
		server := s3test.Start(b)
		s, err := s3.New(b.Context(), s3.Config{
			Bucket: s3test.Bucket, Prefix: "app", Region: s3test.Region, Endpoint: server.URL, PathStyle: new(true),
			AccessKey: s3test.AccessKey, SecretKey: s3test.SecretKey,
		})
		if err != nil {
			b.Fatal(err)
		}
		benchmarkRestore(b, s)
	})
}

func benchmarkRestore(b *testing.B, s store.Store) {
	const pages = 317_000_000 / 4096
	dir := b.TempDir()
	h := newHistory(b, s, 4096, 1)
	h.commitState(h.randomPages(pages))
	for range 30 {
		next := bytes.Clone(h.state)
		for range 250 {
			copy(next[h.rnd.IntN(pages)*4096:], h.randomPages(1))
		}
		h.commitState(next)
		delete(h.states, h.txid-1)
	}
	source, out, other := filepath.Join(dir, "source.db"), filepath.Join(dir, "out.db"), filepath.Join(dir, "copy.db")
	if err := os.WriteFile(source, h.state, 0o600); err != nil {
		b.Fatal(err)
	}
	h.states, h.state = nil, nil
	debug.FreeOSMemory()
	unix.Sync()
	var restoring, copying usage
	b.SetBytes(pages * 4096)
	for b.Loop() {
		restoring.add(func() {
			r, err := restore.Run(context.Background(), s, restore.Options{Output: out, Check: restore.CheckNone})
			if err != nil {
				b.Fatal(err)
			}
			b.Logf("plan %s, apply %s, sync %s", r.PlanTime, r.ApplyTime, r.FinishTime)
		})
		copying.add(func() { copyAndSync(b, source, other) })
		if err := errors.Join(os.Remove(out), os.Remove(other)); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(restoring.wall.Seconds()/float64(b.N), "restore-s/op")
	b.ReportMetric(restoring.cpu.Seconds()/float64(b.N), "restore-cpu-s/op")
	b.ReportMetric(copying.wall.Seconds()/float64(b.N), "cp-s/op")
	b.ReportMetric(float64(restoring.wall)/float64(copying.wall), "restore/cp")
}

// usage adds up the time that calls took.
type usage struct{ wall, cpu time.Duration }

func (u *usage) add(f func()) {
	start, before := time.Now(), cpuTime()
	f()
	u.wall += time.Since(start)
	u.cpu += cpuTime() - before
}

// cpuTime returns the CPU time that this process has used.
func cpuTime() time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_PROCESS_CPUTIME_ID, &t); err != nil {
		return 0
	}
	return time.Duration(t.Nano())
}

// copyAndSync copies a file, as cp does, and syncs the copy.
func copyAndSync(b *testing.B, from, to string) {
	b.Helper()
	in, err := os.Open(from)
	if err != nil {
		b.Fatal(err)
	}
	defer in.Close()
	out, err := os.Create(to)
	if err != nil {
		b.Fatal(err)
	}
	defer out.Close()
	if _, err := io.CopyBuffer(struct{ io.Writer }{out}, struct{ io.Reader }{in}, make([]byte, 256<<10)); err != nil {
		b.Fatal(err)
	}
	if err := out.Sync(); err != nil {
		b.Fatal(err)
	}
}
