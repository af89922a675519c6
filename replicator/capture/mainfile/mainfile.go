// Package mainfile finds out whether a database's main file was written to.
package mainfile

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/sqlwatch/sqlwatch/internal/dbfile"
	"github.com/sqlwatch/sqlwatch/internal/dirwatch"
	"github.com/sqlwatch/sqlwatch/replicator/spool"
)

// Tick is longer than the resolution of file times that have one below a second: within one Tick after a write,
// another write may leave the same time. See Aged for the others.
const Tick = 20 * time.Millisecond

// Probe describes one main file.
type Probe struct {
	files *dbfile.Files
	boot  string // the system's boot id

	seen  spool.MainFile // as Still last saw it
	since time.Time      // when Still first saw it so

	follows *dirwatch.Following // watches the file once its WAL is removed; nil: it does not
}

// order is shared by the whole process, because a user may have few inotify instances only.
var order dirwatch.Order

// Follow begins, or continues, to watch whether anything is written to the file once the pinned WAL is removed.
// Where the system cannot tell, Untouched stays false.
func (p *Probe) Follow() {
	if p.follows != nil {
		p.follows.Untouched() // events that nobody asks for in time are lost
		return
	}
	path, err := p.files.Path(), error(nil)
	if p.follows, err = order.Follow(path, filepath.Base(path)+"-wal"); err != nil {
		return
	}
	if unlinked, err := p.files.WALUnlinked(); err != nil || !unlinked.IsZero() { // it would see another WAL's removal
		p.Unfollow()
	}
}

// Untouched reports whether it is known that nothing was written to the file since the WAL was removed.
func (p *Probe) Untouched() bool { return p.follows != nil && p.follows.Untouched() }

// WrittenSince reports whether the file, main, was or may have been written to after the WAL was unlinked. What the
// watch saw counts first: file times do not tell where the clock was set back in between, or within one tick.
func (p *Probe) WrittenSince(unlinked time.Time, main spool.MainFile) bool {
	if p.follows != nil && p.follows.Touched() {
		return true
	}
	return unlinked.UnixNano() < last(main) || unlinked.UnixNano() == last(main) && !p.Untouched()
}

// Unfollow ends the watch that Follow began.
func (p *Probe) Unfollow() {
	if p.follows != nil {
		p.follows.Stop()
		p.follows = nil
	}
}

// New returns a probe that does not know the boot id yet: see ReadBoot.
func New(files *dbfile.Files) *Probe { return &Probe{files: files} }

// ReadBoot reads the system's boot id.
func (p *Probe) ReadBoot(log *slog.Logger) {
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		log.Warn("the system's boot id cannot be read; restarts cost a comparison of the database", "err", err)
	}
	p.boot = string(bytes.TrimSpace(boot))
}

// Sure describes the main file as it is now. It returns zero where a later write might not show in the file's
// times. The caller holds the WAL if it is to store the result.
func (p *Probe) Sure() (spool.MainFile, error) {
	main, err := p.Now()
	// If the clock was set back, the file's time lies in the future: it then differs from what a write would
	// leave now just as an old one does.
	if err != nil || !Aged(main) {
		return spool.MainFile{}, err
	}
	return main, nil
}

// ErrUnsettled says that the main file was written to just now: try again.
var ErrUnsettled = errors.New("the main file was written to just now")

// Settled is Sure, with ErrUnsettled where Sure returns zero.
func (p *Probe) Settled() (spool.MainFile, error) {
	main, err := p.Sure()
	if err == nil && main == (spool.MainFile{}) {
		err = ErrUnsettled
	}
	return main, err
}

// Aged reports whether a write from now on would show in the file's times.
func Aged(main spool.MainFile) bool {
	return time.Since(time.Unix(0, main.Modified)).Abs() >= resolution(main)
}

// resolution returns for how long after a write another one may leave the same times. FAT keeps every second second,
// and ext4 with inodes of 128 bytes, as small and old file systems have them, every second.
func resolution(main spool.MainFile) time.Duration {
	for _, step := range []time.Duration{2 * time.Second, time.Second} {
		if main.Modified%int64(step) == 0 && main.Changed%int64(step) == 0 {
			return step + Tick
		}
	}
	return Tick
}

// last returns when the file was last written to, or its times were set: who puts a copy in place may give it the times
// of the original (cp -p), which are long past, but the change of a file's times is itself a change of the file.
func last(main spool.MainFile) int64 { return max(main.Modified, main.Changed) }

// Now is Sure even where another write within the same Tick might not show: if the result differs from an
// earlier one, the file was written to.
func (p *Probe) Now() (spool.MainFile, error) {
	st, err := p.files.Stat()
	if err != nil || p.boot == "" {
		return spool.MainFile{}, err
	}
	return spool.MainFile{
		Modified: st.ModTime.UnixNano(), Changed: st.ChangeTime.UnixNano(), Size: st.DatabaseSize, Boot: p.boot,
	}, nil
}

// Still returns how long the file has been as it is, as far as earlier calls saw. The file's own time does not
// tell, because the clock may have been set.
func (p *Probe) Still(now time.Time) (time.Duration, error) {
	main, err := p.Now()
	if err == nil && main != p.seen {
		p.seen, p.since = main, now
	}
	return now.Sub(p.since), err
}

// witnesses is how many pages Backfilled compares.
const witnesses = 8

// Backfilled reports whether the main file has what the checkpoints up to x.Backfilled wrote: the pages that
// later frames do not contain are the same in it as in the WAL. If not, somebody wrote another file over it
// afterwards. Where later frames contain every page, it returns true. The caller holds the WAL, and no
// checkpoint is under way.
func (p *Probe) Backfilled(x dbfile.WALIndex) (bool, error) {
	wal, main := p.files.WAL(), p.files.Database()
	if wal == nil || x.Backfilled == 0 || x.Backfilled > x.MaxFrame {
		return true, nil
	}
	pages, err := dbfile.FramePages(p.files, x.MaxFrame)
	if err != nil {
		return false, err
	}
	seen := map[uint32]bool{}
	for _, page := range pages[x.Backfilled:] { // a checkpoint skips a page that a later frame contains
		seen[page] = true
	}
	in, out := make([]byte, x.PageSize), make([]byte, x.PageSize)
	for frame, told := x.Backfilled, 0; frame > 0 && told < witnesses; frame-- {
		page := pages[frame-1]
		if seen[page] || page > x.Pages {
			continue
		}
		seen[page] = true
		at := dbfile.WALHeader{PageSize: x.PageSize}.FrameOffset(frame) + dbfile.FrameHeaderSize
		if _, err := wal.ReadAt(in, at); err != nil {
			return false, fmt.Errorf("read wal frame %d: %w", frame, err)
		}
		_, err := main.ReadAt(out, int64(page-1)*int64(x.PageSize))
		if err != nil && !errors.Is(err, io.EOF) {
			return false, fmt.Errorf("read database page %d: %w", page, err)
		}
		if err != nil || !bytes.Equal(in, out) {
			return false, nil
		}
		told++
	}
	return true, nil
}
