// Package claim tells whether the WAL beside a database is known to be written by an application that
// uses that database. Where it is not, a copy of two files may be on its way, of which the WAL came first.
package claim

import (
	"time"

	"github.com/sqlwatch/sqlwatch/internal/dbfile"
	"github.com/sqlwatch/sqlwatch/replicator/capture/mainfile"
	"github.com/sqlwatch/sqlwatch/replicator/capture/presence"
	"github.com/sqlwatch/sqlwatch/replicator/spool"
)

// arrival is for how long a copy is waited for after its first file was seen: a file that was not written
// to for so long is complete.
const arrival = 2 * time.Second

// Claim is what is known of the WAL's origin. It is not for concurrent use.
type Claim struct {
	files    *dbfile.Files
	main     *mainfile.Probe
	presence *presence.Presence
	captured func() spool.Position

	strange time.Time        // when a WAL was found that no connected process wrote
	found   *dbfile.WALIndex // the index of an unclaimed WAL as it was first read
}

// New returns a Claim that knows nothing yet. captured returns the position up to which was captured.
func New(files *dbfile.Files, main *mainfile.Probe, p *presence.Presence, captured func() spool.Position) *Claim {
	return &Claim{files: files, main: main, presence: p, captured: captured}
}

// Forget forgets what was found: the files may be others now.
func (c *Claim) Forget() { c.strange, c.found = time.Time{}, nil }

// Missing reports whether there is a WAL that does not continue what was captured, while nobody is
// connected: no process was seen that wrote it for this file. It may be of an application that was
// killed, or of another database whose files are being put in the place of these.
func (c *Claim) Missing(now time.Time) bool {
	st, err := c.files.Stat()
	if err != nil || st.WALSize <= dbfile.WALHeaderSize {
		return false
	}
	pos := c.captured()
	h, err := c.files.WALHeader()
	if err != nil || pos.TXID == 0 || h.Salt1 == pos.Salt1 && h.Salt2 == pos.Salt2 {
		return false
	}
	// Last, because an application may have connected and written the WAL since the last look.
	return c.presence.Look(now) == nil && !c.presence.Attached()
}

// StillMissing reports whether nobody has committed to the WAL since it was found unclaimed. Commits are all
// that shows an application that connected and left between two looks.
func (c *Claim) StillMissing(x dbfile.WALIndex) bool {
	if c.found == nil {
		c.found = &x
	}
	return x.MaxFrame > 0 && x.Change == c.found.Change && x.Salt1 == c.found.Salt1
}

// Stranger reports whether the WAL, of which our wal-index shows no frame although the file has grown, was
// written by no process that uses that index: it then belongs to a copy that is being put in place.
func (c *Claim) Stranger(now time.Time) (bool, error) {
	if err := c.presence.Look(now); err != nil || c.presence.Attached() {
		return false, err
	}
	if x, err := c.files.WALIndex(); err != nil || x.MaxFrame > 0 { // of an application that has left again
		return false, err
	}
	c.strange = now
	return true, nil
}

// Arriving reports whether a copy of two files, the main file and its WAL, seems to be under way.
// Either may come first.
func (c *Claim) Arriving(now time.Time) bool {
	if c.strange.IsZero() && c.Missing(now) {
		c.strange = now
	}
	still, err := c.main.Still(now)
	return err == nil && !c.presence.Attached() && min(now.Sub(c.strange), still) < arrival && !c.strange.IsZero()
}
