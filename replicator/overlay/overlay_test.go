package overlay

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/superfly/ltx"

	"github.com/sqlwatch/sqlwatch/replicator/moment"
)

const size = 512

// file is a main file whose pages are overwritten half by half, so that a reader may see torn
// pages.
type file struct {
	mu   sync.Mutex
	data []byte
}

func (f *file) ReadAt(b []byte, off int64) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return bytes.NewReader(f.data).ReadAt(b, off)
}

func (f *file) half(page uint32, part int, data []byte) {
	f.mu.Lock()
	defer f.mu.Unlock()
	copy(f.data[int(page-1)*size+part*size/2:], data[part*size/2:(part+1)*size/2])
}

func content(page, version uint32) []byte {
	b := make([]byte, size)
	for i := 0; i < size; i += 8 {
		binary.BigEndian.PutUint32(b[i:], page)
		binary.BigEndian.PutUint32(b[i+4:], version)
	}
	return b
}

// TestCopy_D72_whileOthersWrite: while others overwrite pages, each in two halves, the copy is the
// file as it was at the beginning, including pages that exist only in the WAL.
func TestCopy_D72_whileOthersWrite(t *testing.T) {
	t.Parallel()
	const pages, inWAL = 12000, 100
	f := &file{data: make([]byte, (pages-inWAL)*size)}
	for page := uint32(1); page <= pages-inWAL; page++ {
		copy(f.data[int(page-1)*size:], content(page, 1))
	}
	c := NewCopy(f, size, pages, Options{Dir: t.TempDir(), Limit: 1 << 30})
	for page := uint32(pages - inWAL + 1); page <= pages; page++ {
		c.Keep(page, content(page, 1))
	}
	stop, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		rnd := rand.New(rand.NewPCG(1, 2))
		for version := uint32(2); ; version++ {
			select {
			case <-stop:
				return
			default:
			}
			page := 1 + rnd.Uint32N(pages-inWAL)
			c.Preserve(page)
			f.half(page, 0, content(page, version))
			f.half(page, 1, content(page, version))
		}
	}()
	want := uint32(1)
	err := c.Each(t.Context(), func(page uint32, data []byte) error {
		if page != want {
			t.Fatalf("page %d, want %d", page, want)
		}
		if !bytes.Equal(data, content(page, 1)) {
			t.Fatalf("page %d is not what it was: version %d", page, binary.BigEndian.Uint32(data[4:]))
		}
		want++
		return nil
	})
	close(stop)
	<-ended
	if err != nil || want != pages+1 {
		t.Fatalf("ended before page %d: %v", want, err)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
}

// TestCopy_D72_givesWay: if the preserved pages do not fit, the copy ends, but Preserve does not
// fail.
func TestCopy_D72_givesWay(t *testing.T) {
	t.Parallel()
	full := errors.New("full")
	for _, tc := range []struct {
		name string
		o    Options
		want error
	}{
		{"limit", Options{Limit: 10 * size}, ErrRoom},
		{"disk", Options{Limit: 1 << 30, Room: func() error { return full }}, full},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			f := &file{data: make([]byte, 2*inMemory)}
			tc.o.Dir = t.TempDir()
			c := NewCopy(f, size, 2*inMemory/size, tc.o)
			for page := uint32(1); page <= 2*inMemory/size; page++ {
				c.Preserve(page)
			}
			err := c.Each(t.Context(), func(uint32, []byte) error { return nil })
			if !errors.Is(err, tc.want) {
				t.Errorf("got %v, want %v", err, tc.want)
			}
			if err := c.Close(); err != nil {
				t.Error(err)
			}
			if left, err := os.ReadDir(tc.o.Dir); err != nil || len(left) > 0 {
				t.Errorf("left behind: %v %v", left, err)
			}
		})
	}
}

// TestPages: pages are returned as they were put, from memory and from the file, and freed places
// are used again.
func TestPages(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	p := NewPages(size, Options{Dir: dir, Limit: 1 << 30})
	const n = 2 * inMemory / size
	for round := uint32(1); round <= 2; round++ {
		for page := uint32(1); page <= n; page++ {
			if err := p.Put(page, content(page, round)); err != nil {
				t.Fatal(err)
			}
		}
	}
	for page := uint32(1); page <= n; page += 2 {
		p.Drop(page)
	}
	for page := uint32(n + 1); page <= n+n/2; page++ {
		if err := p.Put(page, content(page, 3)); err != nil {
			t.Fatal(err)
		}
	}
	if p.used != n {
		t.Errorf("%d places for %d pages", p.used, n)
	}
	got := make([]byte, size)
	for _, page := range p.Numbers() {
		version := uint32(2)
		if page > n {
			version = 3
		}
		if ok, err := p.Get(page, got); !ok || err != nil || !bytes.Equal(got, content(page, version)) {
			t.Fatalf("page %d: %v %v", page, ok, err)
		}
	}
	if ok, _ := p.Get(1, got); ok {
		t.Error("a dropped page is there")
	}
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

// panicking is a main file that panics when it is read, as a bug of ours might.
type panicking struct{}

// TestFound_S25_file: the file for the pages that a comparison has found is made before others wait, and removed when
// they do not: not as soon as the pages are too many.
func TestFound_S25_file(t *testing.T) {
	t.Parallel()
	const size = 64 << 10
	for name, end := range map[string]func(*Found) error{
		"with the next portion": func(f *Found) error {
			stop := errors.New("the test has seen enough")
			known := func() (ltx.Checksum, error) { return 0, stop }
			err := f.ReadMain(&file{}, size, 1, size, nil, known, func() error { return nil })
			if errors.Is(err, stop) {
				err = nil
			}
			return err
		},
		"at the end": (*Found).Close,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			files := func() int {
				entries, err := os.ReadDir(dir)
				if err != nil {
					t.Fatal(err)
				}
				return len(entries)
			}
			f := NewFound(NewPages(size, Options{Dir: dir, Limit: inMemory + 2*size}))
			if f.Prepare(); files() != 1 {
				t.Fatalf("%d files, want the one that is needed later", files())
			}
			for page := uint32(1); f.Pages() != nil; page++ {
				if err := f.Take(page, make([]byte, size)); err != nil || page > inMemory/size+3 {
					t.Fatalf("page %d: %v", page, err)
				}
			}
			if n := files(); n != 1 {
				t.Errorf("%d files: it was removed while others may wait", n)
			}
			if err := end(f); err != nil || files() != 0 {
				t.Errorf("%d files are left, %v", files(), err)
			}
		})
	}
}

func (panicking) ReadAt([]byte, int64) (int, error) { panic("the test says so") }

// TestStream_P6: a panic in the goroutine of a stream becomes an error of that stream. A stream
// that is not read to its end is over when its snapshot is closed.
func TestStream_P6(t *testing.T) {
	t.Parallel()
	copies := NewCopies(nil)
	h := ltx.Header{PageSize: size, Commit: 100, MinTXID: 1, MaxTXID: 1, Timestamp: 1}
	s := NewSnapshot(NewCopy(panicking{}, size, 100, Options{}), copies, h, 0, "", moment.Stamp{})
	if _, err := io.ReadAll(s.Stream(t.Context(), "")); err == nil || !strings.Contains(err.Error(), "the test says so") {
		t.Errorf("got %v", err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	f := &file{data: make([]byte, 100*size)}
	s = NewSnapshot(NewCopy(f, size, 100, Options{}), copies, h, 0, "", moment.Stamp{})
	s.Stream(t.Context(), "").Read(make([]byte, 10))
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}
