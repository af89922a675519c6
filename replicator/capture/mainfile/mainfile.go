// Package mainfile tells whether a database's main file was written to.
package mainfile

import (
	"bytes"
	"log/slog"
	"os"
	"time"

	"github.com/sqlwatch/sqlwatch/internal/dbfile"
	"github.com/sqlwatch/sqlwatch/replicator/spool"
)

// Tick is above the resolution of file times: a file written to within it may be
// written to again and show the same time.
const Tick = 20 * time.Millisecond

// Probe describes one main file.
type Probe struct {
	files *dbfile.Files
	boot  string // which boot of the system this is
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
	if err != nil || time.Since(time.Unix(0, main.Modified)).Abs() < Tick {
		return spool.MainFile{}, err
	}
	return main, nil
}

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
