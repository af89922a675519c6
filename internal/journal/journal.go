// Package journal appends lines of JSON to a file, in bounded space: when the file
// is full it becomes the old one, and the old one goes. A line that a crash cut
// short is left out by who reads.
package journal

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"github.com/sqlwatch/sqlwatch/internal/durable"
)

// Log is one journal. Its methods may be called concurrently; of two processes only
// one may write.
type Log struct {
	path  string
	limit int64 // bytes of both files together

	mu   sync.Mutex // guards what follows
	file *os.File   // nil: not open
	size int64
}

// New returns the journal at path, which takes no more than limit bytes. It opens
// nothing.
func New(path string, limit int64) *Log { return &Log{path: path, limit: limit} }

// old is the file before the present one.
func old(path string) string { return path + ".1" }

// Append writes values, each on a line. When it returns nil the lines survive the
// process, not a power cut.
func (l *Log) Append(values ...any) error {
	var lines bytes.Buffer
	for _, v := range values {
		data, err := json.Marshal(v)
		if err != nil {
			return fmt.Errorf("write %s: %w", l.path, err)
		}
		lines.Write(append(data, '\n'))
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.open(); err != nil {
		return err
	}
	if l.size > 0 && l.size+int64(lines.Len()) > l.limit/2 {
		if err := l.rotate(); err != nil {
			return err
		}
	}
	n, err := l.file.Write(lines.Bytes())
	l.size += int64(n)
	if err != nil {
		return errors.Join(fmt.Errorf("write %s: %w", l.path, err), l.shut())
	}
	return nil
}

// open opens the file if it is not, behind a line that a crash cut short.
func (l *Log) open() error {
	if l.file != nil {
		return nil
	}
	if err := durable.MkdirAll(filepath.Dir(l.path), 0o700); err != nil {
		return err
	}
	file, err := os.OpenFile(l.path, os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("open the journal: %w", err)
	}
	info, err := file.Stat()
	last := []byte{'\n'}
	if err == nil && info.Size() > 0 {
		_, err = file.ReadAt(last, info.Size()-1)
	}
	if err == nil && last[0] != '\n' {
		_, err = file.Write([]byte{'\n'})
	}
	if err != nil {
		return errors.Join(fmt.Errorf("open the journal: %w", err), file.Close())
	}
	l.file, l.size = file, info.Size()
	return nil
}

// rotate makes the file the old one, and begins another.
func (l *Log) rotate() error {
	if err := l.shut(); err != nil {
		return err
	}
	if err := durable.Replace(l.path, old(l.path)); err != nil {
		return err
	}
	return l.open()
}

func (l *Log) shut() error {
	if l.file == nil {
		return nil
	}
	err := l.file.Close()
	l.file, l.size = nil, 0
	return err
}

// Close closes the file. Append opens it again.
func (l *Log) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.shut()
}

// longest bounds one line: a file of another kind is not taken into memory.
const longest = 1 << 20

// Read calls each with the lines of the journal at path, the oldest first, until it
// returns false. What is no whole line is left out. A journal that does not exist is
// empty.
func Read(path string, each func(line []byte) bool) error {
	for _, name := range []string{old(path), path} {
		more, err := readOne(name, each)
		if err != nil || !more {
			return err
		}
	}
	return nil
}

func readOne(name string, each func([]byte) bool) (more bool, err error) {
	file, err := os.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return true, nil
	}
	if err != nil {
		return false, fmt.Errorf("read the journal: %w", err)
	}
	defer file.Close()
	lines := bufio.NewReaderSize(file, 64<<10)
	for {
		line, err := readLine(lines)
		if err == nil && json.Valid(line) && !each(line) {
			return false, nil
		}
		if errors.Is(err, io.EOF) {
			return true, nil
		}
		if err != nil {
			return false, fmt.Errorf("read the journal: %w", err)
		}
	}
}

// readLine returns a line; of one that is too long no more than its beginning.
func readLine(r *bufio.Reader) (line []byte, err error) {
	for {
		part, err := r.ReadSlice('\n')
		if len(line) < longest {
			line = append(line, part...)
		}
		if !errors.Is(err, bufio.ErrBufferFull) {
			return line, err
		}
	}
}
