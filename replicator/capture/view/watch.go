package view

import (
	"fmt"

	"github.com/sqlwatch/sqlwatch/internal/dbfile"
	"github.com/sqlwatch/sqlwatch/replicator/capture/mainfile"
	"github.com/sqlwatch/sqlwatch/replicator/spool"
)

// Watch finds out whether anything other than a checkpoint has written to a main file.
type Watch struct {
	files            *dbfile.Files
	probe            *mainfile.Probe
	salt, backfilled uint32 // the WAL generation, and how much of it was backfilled
	main             spool.MainFile
}

// NewWatch returns a Watch that has not looked yet.
func NewWatch(files *dbfile.Files, p *mainfile.Probe) *Watch { return &Watch{files: files, probe: p} }

// Look returns ErrNone where the file was written to since the last look and no checkpoint accounts for it, as
// when cp puts another database into the same file: where the WAL is empty, nothing else shows that. A
// checkpoint announces how far it means to get before it writes; while one is under way, and at the look after
// one, nothing is known.
func (w *Watch) Look() error {
	touched, err := w.touched()
	if touched {
		err = fmt.Errorf("%w: the file was written to, and not by a checkpoint", ErrNone)
	}
	return err
}

func (w *Watch) touched() (bool, error) {
	x, err := w.files.WALIndex()
	if err != nil {
		return false, err
	}
	now := Watch{files: w.files, probe: w.probe, salt: x.Salt1, backfilled: x.Backfilled}
	if now.main, err = w.probe.Now(); err != nil {
		return false, err
	}
	again, err := w.files.WALIndex()
	if err != nil {
		return false, err
	}
	now.main.Changed = 0 // chmod or a hard link changes it too
	if x.BackfillAttempted > x.Backfilled || again.Salt1 != x.Salt1 || again.Backfilled != x.Backfilled ||
		again.BackfillAttempted != x.BackfillAttempted {
		now.main = spool.MainFile{}
	}
	before := *w
	*w = now
	known := before.main != spool.MainFile{} && now.main != spool.MainFile{}
	return known && before.salt == now.salt && before.backfilled == now.backfilled && before.main != now.main, nil
}
