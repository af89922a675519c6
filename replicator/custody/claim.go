package custody

import (
	"errors"
	"fmt"
	"time"

	"github.com/superfly/ltx"

	"github.com/sqlwatch/sqlwatch/replicator/lease"
	"github.com/sqlwatch/sqlwatch/replicator/lineage"
)

// ErrForeign says that the replica's prefix or directory holds the history of another database
// or of another program. sqlwatch stores nothing there.
var ErrForeign = errors.New("the replica's space holds another's history")

// ClaimError says why sqlwatch does not write to a replica: whose history it holds.
type ClaimError struct {
	Replica string
	Verdict lineage.Verdict // Diverged, Foreign or Stranger
	Lineage lineage.Lineage // the replica's
	Writer  string          // who wrote to it last; "": unknown
	TXID    ltx.TXID        // the replica's last
	At      time.Time       // the time of TXID
	Noted   bool            // this database was restored from that replica, but to an older moment
}

// Error says what was found, what was done and what to do.
func (e *ClaimError) Error() string {
	if e.Verdict == lineage.Stranger {
		return e.Replica + ": it holds files that sqlwatch did not write (Litestream's?); nothing was stored: use an empty " +
			"prefix, " +
			"or continue that history with: sqlwatch run --adopt=NAME, the name being the replica's or the database's"
	}
	whose := "a lineage without a name"
	if e.Lineage.ID != "" {
		begun := e.Lineage.Made.UTC().Format(time.RFC3339)
		whose = fmt.Sprintf("lineage %.8s, begun %s by %s", e.Lineage.ID, begun, e.Lineage.By)
	}
	if e.Writer != "" {
		whose += ", last written to by " + e.Writer
	}
	if !e.At.IsZero() {
		whose += " at " + e.At.UTC().Format(time.RFC3339)
	}
	what := "it holds another database's history"
	if e.Verdict == lineage.Diverged {
		what = lease.ErrFenced.Error() + " and went on with its history"
	}
	cure := "give this database a prefix of its own"
	if e.Noted {
		cure = "this database was restored from it, but not its newest state"
	}
	return fmt.Sprintf("%s: %s (%s, txid %s); nothing is stored from here, commits are kept in the spool: %s; if this "+
		"database "+
		"is to follow in its place, start once with: sqlwatch run --adopt=NAME, the name being the replica's or the "+
		"database's; "+
		"both histories stay restorable", e.Replica, what, whose, e.TXID, cure)
}

// Unwrap returns lease.ErrFenced or ErrForeign.
func (e *ClaimError) Unwrap() error {
	if e.Verdict == lineage.Diverged {
		return lease.ErrFenced
	}
	return ErrForeign
}
