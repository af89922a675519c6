package lineage

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/superfly/ltx"

	"github.com/sqlwatch/sqlwatch/internal/dbfile"
	"github.com/sqlwatch/sqlwatch/internal/durable"
)

// NoteSuffix is appended to a database's name to form its note's.
const NoteSuffix = "-sqlwatch"

// Note is left beside a restored database and says what it was restored from, so that the next
// sqlwatch continues that lineage. It is valid only for this same file, and only until somebody
// writes to the replica: that is, for one start.
type Note struct {
	Lineage string   `json:"lineage"`
	TXID    ltx.TXID `json:"txid"`
	File    string   `json:"file"` // see dbfile.Identity
}

// Leave writes the note of a database that was restored to path. If the lineage or the
// file's identity is unknown, it writes none and removes an older note.
func Leave(path, lineage string, txid ltx.TXID) error {
	note := Note{Lineage: lineage, TXID: txid, File: dbfile.Identity(path)}
	if lineage == "" || note.File == "" {
		return Clear(path)
	}
	data, err := json.Marshal(note)
	if err != nil {
		return fmt.Errorf("note the lineage of %s: %w", path, err)
	}
	return durable.WriteFile(path+NoteSuffix, data, 0o600)
}

// Find returns the note of the database at path, if it has one.
func Find(path string) (note Note, found bool) {
	data, err := os.ReadFile(path + NoteSuffix)
	if err != nil || json.Unmarshal(data, &note) != nil {
		return Note{}, false
	}
	return note, note.Lineage != "" && note.File != "" && note.File == dbfile.Identity(path)
}

// Clear removes the note of the database at path.
func Clear(path string) error {
	if err := durable.Remove(path + NoteSuffix); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove the note of a restore: %w", err)
	}
	return nil
}
