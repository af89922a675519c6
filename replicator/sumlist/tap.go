package sumlist

import (
	"crypto/sha256"
	"encoding/hex"
	"hash"
	"io"
	"path/filepath"
	"sync"

	"github.com/sqlwatch/sqlwatch/internal/durable"
	"github.com/sqlwatch/sqlwatch/internal/fault"
	"github.com/sqlwatch/sqlwatch/replicator/store"
)

// List is the list of a file that is about to be stored. It is made of the bytes that go
// out, whoever reads them; that it cannot be made hinders nobody.
type List struct {
	dir string

	mu   sync.Mutex // guards what follows
	tap  *tap       // of the last reading
	file *durable.File
}

// New returns a list whose temporary file will be in dir. The caller calls Discard.
func New(dir string) *List { return &List{dir: dir} }

// Tap returns open with readers of which each lists what it reads. The last one counts.
func (l *List) Tap(open func() (io.ReadCloser, error)) func() (io.ReadCloser, error) {
	return func() (io.ReadCloser, error) {
		l.Discard()
		r, err := open()
		if err != nil {
			return nil, err
		}
		file, err := durable.Create(filepath.Join(l.dir, "sums"), 0o600)
		if err != nil {
			return r, nil // the list is not worth a failure
		}
		from, to := io.Pipe()
		t := &tap{ReadCloser: r, to: to, ended: make(chan struct{}), sha: sha256.New()}
		l.mu.Lock()
		l.tap, l.file = t, file
		l.mu.Unlock()
		go t.list(file, from)
		return t, nil
	}
}

// Body returns the list as an object, once the file was read to its end; false where it
// was not, or could not be listed.
func (l *List) Body() (body store.Body, ok bool) {
	l.mu.Lock()
	t, file := l.tap, l.file
	l.mu.Unlock()
	if t == nil || t.end() != nil {
		return store.Body{}, false
	}
	return store.Body{Size: t.size, SHA256: hex.EncodeToString(t.sha.Sum(nil)), Open: func() (io.ReadCloser, error) {
		return io.NopCloser(io.NewSectionReader(file, 0, t.size)), nil
	}}, true
}

// Discard removes the list's file, once who makes it has ended.
func (l *List) Discard() {
	l.mu.Lock()
	t, file := l.tap, l.file
	l.tap, l.file = nil, nil
	l.mu.Unlock()
	if t != nil {
		t.end()
		file.Abort() // scratch: what cannot be removed is swept at the next start
	}
}

// tap passes a file on to whoever reads it, and to who lists its pages.
type tap struct {
	io.ReadCloser
	to    *io.PipeWriter
	off   bool          // who lists wants no more
	ended chan struct{} // closed when who lists is done; then what follows is final
	err   error
	size  int64
	sha   hash.Hash
}

// list lists the file that comes from the pipe.
func (t *tap) list(file *durable.File, from *io.PipeReader) {
	defer close(t.ended)
	t.err = fault.Guard(func() error { return write(io.MultiWriter(file, t.sha, t), from) })
	from.Close() // whoever passes the file on is not to wait for us
}

// Write counts the list's bytes.
func (t *tap) Write(p []byte) (int, error) {
	t.size += int64(len(p))
	return len(p), nil
}

// Read implements io.Reader.
func (t *tap) Read(p []byte) (int, error) {
	n, err := t.ReadCloser.Read(p)
	if n > 0 && !t.off {
		_, told := t.to.Write(p[:n])
		t.off = told != nil
	}
	return n, err
}

// Close implements io.Closer.
func (t *tap) Close() error {
	t.to.Close()
	return t.ReadCloser.Close()
}

// end returns what became of the list, once the reading has ended.
func (t *tap) end() error {
	t.to.Close()
	<-t.ended
	return t.err
}
