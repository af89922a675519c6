package merge_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"os"
	"testing"
	"time"

	"github.com/superfly/ltx"

	"github.com/sqlwatch/sqlwatch/replicator/merge"
	"github.com/sqlwatch/sqlwatch/replicator/moment"
	"github.com/sqlwatch/sqlwatch/replicator/store"
)

const pageSize = 512

// file returns an LTX file of pages, each filled with one byte, of a database of commit pages.
func file(t *testing.T, min, max ltx.TXID, commit uint32, pages ...[2]byte) io.Reader {
	t.Helper()
	var b bytes.Buffer
	enc, err := ltx.NewEncoder(&b)
	if err != nil {
		t.Fatal(err)
	}
	err = enc.EncodeHeader(ltx.Header{Version: ltx.Version, Flags: ltx.HeaderFlagNoChecksum, PageSize: pageSize,
		Commit: commit, MinTXID: min, MaxTXID: max, Timestamp: int64(max)})
	for _, p := range pages {
		err = errors.Join(err, enc.EncodePage(ltx.PageHeader{Pgno: uint32(p[0])}, bytes.Repeat(p[1:], pageSize)))
	}
	if err := errors.Join(err, enc.Close()); err != nil {
		t.Fatal(err)
	}
	return &b
}

// TestFiles: the merged file has the newest version of each page and none beyond the end of the
// database, and its body has the stated length and SHA-256.
func TestFiles(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		inputs []io.Reader
		commit uint32
		want   map[uint32]byte
	}{
		"overlapping pages": {
			[]io.Reader{file(t, 2, 2, 3, [2]byte{1, 'a'}, [2]byte{2, 'a'}), file(t, 3, 3, 3, [2]byte{2, 'b'}, [2]byte{3, 'b'}),
				file(t, 4, 6, 3, [2]byte{3, 'c'})},
			3, map[uint32]byte{1: 'a', 2: 'b', 3: 'c'}},
		"shrunk": {
			[]io.Reader{file(t, 2, 2, 4, [2]byte{1, 'a'}, [2]byte{4, 'a'}), file(t, 3, 3, 2, [2]byte{1, 'b'})},
			2, map[uint32]byte{1: 'b'}},
		"shrunk, and grown again": {
			[]io.Reader{file(t, 2, 2, 3, [2]byte{3, 'a'}), file(t, 3, 3, 1, [2]byte{1, 'b'}),
				file(t, 4, 4, 3, [2]byte{2, 'c'}, [2]byte{3, 'c'})},
			3, map[uint32]byte{1: 'b', 2: 'c', 3: 'c'}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			m, err := merge.Files(t.Context(), dir, "merged", tt.inputs)
			if err != nil {
				t.Fatal(err)
			}
			r, err := m.Body.Open()
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			data, err := io.ReadAll(r)
			sum := sha256.Sum256(data)
			if err != nil || int64(len(data)) != m.Body.Size || hex.EncodeToString(sum[:]) != m.Body.SHA256 {
				t.Errorf("%d bytes, %v: not the stated length and SHA-256", len(data), err)
			}
			dec := ltx.NewDecoder(bytes.NewReader(data))
			if err := dec.DecodeHeader(); err != nil {
				t.Fatal(err)
			}
			got, page := map[uint32]byte{}, make([]byte, pageSize)
			for {
				var h ltx.PageHeader
				if err := dec.DecodePage(&h, page); err == io.EOF {
					break
				} else if err != nil {
					t.Fatal(err)
				}
				got[h.Pgno] = page[0]
			}
			if err := dec.Close(); err != nil {
				t.Error(err)
			}
			h := dec.Header()
			if h.Commit != tt.commit || h.MinTXID != 2 || m.Min != 2 || h.MaxTXID != m.Max || len(got) != len(tt.want) {
				t.Errorf("%+v; pages %v, want %v", h, got, tt.want)
			}
			for pgno, want := range tt.want {
				if got[pgno] != want {
					t.Errorf("page %d is filled with %q, want %q", pgno, got[pgno], want)
				}
			}
			if err := m.Discard(); err != nil {
				t.Error(err)
			}
			if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
				t.Errorf("left behind: %v, %v", left, err)
			}
		})
	}
}

// TestFiles_refused: inputs that do not follow each other, or break off, make no file and leave
// none behind.
func TestFiles_refused(t *testing.T) {
	t.Parallel()
	for name, inputs := range map[string][]io.Reader{
		"a gap":      {file(t, 2, 2, 1, [2]byte{1, 'a'}), file(t, 4, 4, 1, [2]byte{1, 'b'})},
		"backwards":  {file(t, 3, 3, 1, [2]byte{1, 'a'}), file(t, 2, 2, 1, [2]byte{1, 'b'})},
		"broken off": {file(t, 2, 2, 1, [2]byte{1, 'a'}), io.LimitReader(file(t, 3, 3, 1, [2]byte{1, 'b'}), 110)},
		"nothing":    {},
	} {
		dir := t.TempDir()
		if m, err := merge.Files(t.Context(), dir, "merged", inputs); err == nil {
			t.Errorf("%s: merged into a file of txids %d to %d, want an error", name, m.Min, m.Max)
		}
		if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
			t.Errorf("%s: left behind: %v, %v", name, left, err)
		}
	}
}

// TestNotes: the metadata are those of the last file, but the time since which they cover is the
// first file's. What the last file does not say is not made up.
func TestNotes(t *testing.T) {
	t.Parallel()
	since := time.Unix(1_700_000_000, 0).UTC()
	taken := func(since, at time.Time) map[string]string {
		m := map[string]string{}
		moment.Stamp{Time: at, Since: since}.Put(m)
		return m
	}
	last := taken(since.Add(time.Minute), since.Add(2*time.Minute))
	last[store.MetaTimestamp], last[store.MetaLineage], last[store.MetaSHA256] = "2024-01-01T00:00:00Z", "l", "of another"
	got := merge.Notes(moment.Of(taken(since, since.Add(time.Minute))), last, "sum")
	if got[store.MetaSHA256] != "sum" || got[store.MetaTimestamp] != last[store.MetaTimestamp] ||
		got[store.MetaLineage] != "l" {
		t.Errorf("%v", got)
	}
	if _, found := got[store.MetaChecksum]; found {
		t.Error("there is a checksum although no input has one")
	}
	if s := moment.Of(got); !s.Since.Equal(since) || !s.Time.Equal(since.Add(2*time.Minute)) {
		t.Errorf("it covers %v to %v", s.Since, s.Time)
	}
}
