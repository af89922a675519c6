package custody

import (
	"log/slog"
	"sync/atomic"

	"github.com/sqlwatch/sqlwatch/internal/dbfile"
	"github.com/sqlwatch/sqlwatch/replicator/lineage"
)

// Identity is which database file is replicated.
type Identity struct {
	Path  string
	File  string       // see dbfile.Identity
	Note  lineage.Note // that a restore left beside it
	Noted bool
}

// Original remembers which file was opened last. The zero value knows of none.
type Original struct{ which atomic.Pointer[Identity] }

// Identify notes the file before anything is concluded from it.
func (o *Original) Identify(path string) {
	id := Identity{Path: path, File: dbfile.Identity(path)}
	id.Note, id.Noted = lineage.Find(path)
	o.which.Store(&id)
}

// Get returns the file that was opened last.
func (o *Original) Get() Identity {
	if id := o.which.Load(); id != nil {
		return *id
	}
	return Identity{}
}

// ClearNote removes the note of a restore once the state directory knows what it says.
func (o *Original) ClearNote(mine State, log *slog.Logger) {
	id := o.Get()
	if !id.Noted || mine.ID != id.Note.Lineage || mine.Reached < id.Note.TXID {
		return
	}
	if err := lineage.Clear(id.Path); err != nil {
		log.Debug("the note that a restore left could not be removed; it is ignored from now on", "err", err)
		return
	}
	id.Noted = false
	o.which.Store(&id)
}
