package stage

import (
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"syscall"

	"github.com/superfly/ltx"
	"golang.org/x/sys/unix"
)

// noteSuffix ends the name of the note beside a stage that says what is put together in it.
const noteSuffix = ".plan"

// Content says what is put together in a stage. Whether its pages are that is
// only known when all are there and add up.
type Content struct {
	Lineage  string   `json:"lineage"`
	TXID     ltx.TXID `json:"txid"` // no page is of a later state
	PageSize int      `json:"page_size"`
	Pages    uint32   `json:"pages"`
}

// Content returns what a restore that did not end was putting together in this stage,
// the zero value where it starts over.
func (s *Stage) Content() Content { return s.content }

// Note writes down what the stage is for, so that it is worth keeping.
func (s *Stage) Note(c Content) error {
	data, err := json.Marshal(c)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(s.Name()+noteSuffix, os.O_WRONLY|os.O_CREATE|os.O_TRUNC|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	s.content = c
	_, err = f.Write(data)
	return errors.Join(err, f.Close())
}

// Forget forgets what was in the stage: it starts over.
func (s *Stage) Forget() error {
	s.content = Content{}
	if err := os.Remove(s.Name() + noteSuffix); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return s.Truncate(0)
}

// Keep closes the stage and leaves it, with its note, for who asks again.
func (s *Stage) Keep() error { return s.Close() }

// adopt takes over what a restore that did not end left at path, where it says what it
// is. It is locked already, and ours.
func adopt(f *os.File, output string, leave int64) *Stage {
	note, err := os.OpenFile(f.Name()+noteSuffix, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil
	}
	defer note.Close()
	data, err := io.ReadAll(io.LimitReader(note, 1<<12))
	s := &Stage{File: f, output: output, leave: leave}
	info, serr := f.Stat()
	if err != nil || serr != nil || !private(info) || json.Unmarshal(data, &s.content) != nil || s.content.TXID == 0 {
		return nil
	}
	return s
}

// private reports whether a file is ours, and nobody else can write to it under any name.
func private(info fs.FileInfo) bool {
	sys, ok := info.Sys().(*syscall.Stat_t)
	return ok && int(sys.Uid) == os.Geteuid() && info.Mode() == 0o600 && sys.Nlink == 1
}
