package sumlist_test

import (
	"bytes"
	"errors"
	"io"
	"maps"
	"slices"
	"testing"

	"github.com/superfly/ltx"

	"github.com/sqlwatch/sqlwatch/replicator/store"
	"github.com/sqlwatch/sqlwatch/replicator/sumlist"
)

// file returns an LTX file of the given pages, and their checksums.
func file(t *testing.T, pages ...uint32) ([]byte, map[uint32]ltx.Checksum) {
	t.Helper()
	var out bytes.Buffer
	enc, err := ltx.NewEncoder(&out)
	if err != nil {
		t.Fatal(err)
	}
	if err := enc.EncodeHeader(ltx.Header{Version: ltx.Version, Flags: ltx.HeaderFlagNoChecksum, PageSize: 512,
		Commit: pages[len(pages)-1], MinTXID: 2, MaxTXID: 9}); err != nil {
		t.Fatal(err)
	}
	sums := map[uint32]ltx.Checksum{}
	for _, n := range pages {
		data := bytes.Repeat([]byte{byte(n), byte(n >> 8)}, 256)
		sums[n] = ltx.ChecksumPage(n, data)
		if err := enc.EncodePage(ltx.PageHeader{Pgno: n}, data); err != nil {
			t.Fatal(err)
		}
	}
	if err := enc.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes(), sums
}

func opened(data []byte) func() (io.ReadCloser, error) {
	return func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(data)), nil }
}

// pass reads a body to the last byte but not to io.EOF, as a store does that knows its size.
func pass(t *testing.T, open func() (io.ReadCloser, error), size int) []byte {
	t.Helper()
	r, err := open()
	if err != nil {
		t.Fatal(err)
	}
	got := make([]byte, size)
	if _, err := io.ReadFull(r, got); err != nil {
		t.Fatal(err)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	return got
}

func listOf(t *testing.T, data []byte) []byte {
	t.Helper()
	l := sumlist.New(t.TempDir())
	defer l.Discard()
	open := l.Tap(opened(data))
	if first, err := open(); err != nil || first.Close() != nil { // an attempt that reads nothing
		t.Fatal(err)
	}
	if got := pass(t, open, len(data)); !bytes.Equal(got, data) {
		t.Fatal("the file was changed on its way")
	}
	body, ok := l.Body()
	if !ok {
		t.Fatal("no list")
	}
	list := pass(t, body.Open, int(body.Size))
	if again := pass(t, body.Open, int(body.Size)); !bytes.Equal(again, list) {
		t.Error("the second reading of the list differs from the first")
	}
	return list
}

func read(list []byte) (h sumlist.Header, sums map[uint32]ltx.Checksum, err error) {
	sums = map[uint32]ltx.Checksum{}
	err = sumlist.Read(bytes.NewReader(list), func(got sumlist.Header) error { h = got; return nil },
		func(page uint32, sum ltx.Checksum) error { sums[page] = sum; return nil })
	return h, sums, err
}

func TestList(t *testing.T) {
	t.Parallel()
	for _, pages := range [][]uint32{{1}, {1, 2, 3, 200, 70_000}, {4, 5, 9}} {
		data, want := file(t, pages...)
		h, got, err := read(listOf(t, data))
		if err != nil || !maps.Equal(got, want) || h != (sumlist.Header{PageSize: 512, Pages: pages[len(pages)-1]}) {
			t.Errorf("%d: %+v, %v, %v; want %v", pages, h, got, err, want)
		}
	}
}

// TestList_R1: a list in which any byte was changed, or that was cut anywhere, is refused.
func TestList_R1(t *testing.T) {
	t.Parallel()
	data, want := file(t, 1, 2, 3, 200, 201, 70_000)
	list := listOf(t, data)
	for i := range list {
		bad := slices.Clone(list)
		bad[i] ^= 0x41
		if _, got, err := read(bad); !errors.Is(err, store.ErrCorrupt) {
			t.Errorf("byte %d flipped: %v, %v", i, maps.Equal(got, want), err)
		}
		if _, _, err := read(list[:i]); !errors.Is(err, store.ErrCorrupt) {
			t.Errorf("cut at %d: %v", i, err)
		}
	}
	if _, _, err := read(append(slices.Clone(list), 0)); !errors.Is(err, store.ErrCorrupt) {
		t.Errorf("one byte more: %v", err)
	}
}

// TestTap_hinders: a body that is no LTX file, is not read to its end, or whose list cannot be
// written is passed on unchanged, and gets no list.
func TestTap_hinders(t *testing.T) {
	t.Parallel()
	good, _ := file(t, 1, 2, 3)
	for name, tt := range map[string]struct {
		data []byte
		read int
		dir  string
	}{
		"text":        {bytes.Repeat([]byte("text "), 100_000), 500_000, t.TempDir()},
		"half of it":  {good, len(good) / 2, t.TempDir()},
		"nothing":     {good, 0, t.TempDir()},
		"no room":     {good, len(good), t.TempDir() + "/gone"},
		"a byte more": {append(slices.Clone(good), 1), len(good) + 1, t.TempDir()},
	} {
		l := sumlist.New(tt.dir)
		if got := pass(t, l.Tap(opened(tt.data)), tt.read); !bytes.Equal(got, tt.data[:tt.read]) {
			t.Errorf("%s: the body was changed on its way", name)
		}
		if _, ok := l.Body(); ok {
			t.Errorf("%s: it has a list", name)
		}
		l.Discard()
	}
}
