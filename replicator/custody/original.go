package custody

import (
	"log/slog"
	"sync/atomic"

	"github.com/sqlwatch/sqlwatch/internal/dbfile"
	"github.com/sqlwatch/sqlwatch/replicator/lineage"
)

// Identity identifies the database file that is replicated.
type Identity struct {
	Path  string
	File  string       // see dbfile.Identity
	Note  lineage.Note // left beside it by a restore, if Noted
	Noted bool
}

// Original remembers which database file was opened last; the zero value has none.
type Original struct{ which atomic.Pointer[Identity] }

// Identify records the file at path and reads the note beside it.
func (o *Original) Identify(path string) {
	id := Identity{Path: path, File: dbfile.Identity(path)}
	id.Note, id.Noted = lineage.Find(path)
	o.which.Store(&id)
}

// Get returns the file that was identified last.
func (o *Original) Get() Identity {
	if id := o.which.Load(); id != nil {
		return *id
	}
	return Identity{}
}

// ClearNote removes a restore's note once the state directory has recorded its contents.
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
