// Package mainfile tells whether a database's main file was written to.
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

// Tick is above the resolution of file times: a file written to within it may be
// written to again and show the same time.
const Tick = 20 * time.Millisecond

// Probe describes one main file.
type Probe struct {
	files *dbfile.Files
	boot  string // which boot of the system this is

	seen  spool.MainFile // what Still saw last
	since time.Time      // when it saw that first

	follows *dirwatch.Following // what becomes of the file once its WAL is removed; nil: not asked
}

// order is the process's: a user has few inotify instances.
var order dirwatch.Order

// Follow begins, or goes on, to watch whether anything is written to the file once the WAL that is
// pinned is removed. Where the system cannot tell, nothing is known of that.
func (p *Probe) Follow() {
	if p.follows != nil {
		p.follows.Untouched() // what is not asked for in time is lost
		return
	}
	path, err := p.files.Path(), error(nil)
	if p.follows, err = order.Follow(path, filepath.Base(path)+"-wal"); err != nil {
		return
	}
	if unlinked, err := p.files.WALUnlinked(); err != nil || !unlinked.IsZero() { // another one's removal would be seen
		p.Unfollow()
	}
}

// Untouched reports whether it is known that nothing was written to the file since the WAL was removed.
func (p *Probe) Untouched() bool { return p.follows != nil && p.follows.Untouched() }

// Unfollow ends what Follow began.
func (p *Probe) Unfollow() {
	if p.follows != nil {
		p.follows.Stop()
		p.follows = nil
	}
}

// New returns a probe that knows nothing of the system yet: see ReadBoot.
func New(files *dbfile.Files) *Probe { return &Probe{files: files} }

// ReadBoot reads which boot of the system this is.
func (p *Probe) ReadBoot(log *slog.Logger) {
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		log.Warn("the system's boot id cannot be read; restarts cost a comparison of the database", "err", err)
	}
	p.boot = string(bytes.TrimSpace(boot))
}

// Sure describes the main file as it is now. It is zero where a later change could not
// be told from it. The caller holds the WAL if it is to remember it.
func (p *Probe) Sure() (spool.MainFile, error) {
	main, err := p.Now()
	// A clock that was set back since leaves times to come: they differ from what a write
	// would leave now as well as old ones do.
	if err != nil || !Aged(main) {
		return spool.MainFile{}, err
	}
	return main, nil
}

// ErrUnsettled says that the main file was written to just now: look again.
var ErrUnsettled = errors.New("the main file was written to just now")

// Settled is Sure, or ErrUnsettled.
func (p *Probe) Settled() (spool.MainFile, error) {
	main, err := p.Sure()
	if err == nil && main == (spool.MainFile{}) {
		err = ErrUnsettled
	}
	return main, err
}

// Aged reports whether a write from now on would show in the time of the file.
func Aged(main spool.MainFile) bool { return time.Since(time.Unix(0, main.Modified)).Abs() >= Tick }

// Now is Sure, also where the file may be written to within the same tick: where it
// differs from what was seen before, it was written to.
func (p *Probe) Now() (spool.MainFile, error) {
	st, err := p.files.Stat()
	if err != nil || p.boot == "" {
		return spool.MainFile{}, err
	}
	return spool.MainFile{
		Modified: st.ModTime.UnixNano(), Changed: st.ChangeTime.UnixNano(), Size: st.DatabaseSize, Boot: p.boot,
	}, nil
}

// Still reports for how long the file has been as it is, as far as it was asked. The file's own
// time says nothing of that where the clock was set.
func (p *Probe) Still(now time.Time) (time.Duration, error) {
	main, err := p.Now()
	if err == nil && main != p.seen {
		p.seen, p.since = main, now
	}
	return now.Sub(p.since), err
}

// witnesses is how many pages are to tell whether a checkpoint was the last to write.
const witnesses = 8

// Backfilled reports whether the main file has what the checkpoints up to x.Backfilled
// wrote: pages that were not written again since are in it as they are in the WAL. If
// not, somebody wrote another file over it after them. Where every page has been written
// again, nothing is known against it. The caller holds the WAL, and no checkpoint is under way.
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
	for _, page := range pages[x.Backfilled:] { // a checkpoint leaves those to the next one
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
