package store

import (
	"time"

	"github.com/superfly/ltx"

	"github.com/sqlwatch/sqlwatch/replicator/moment"
)

// PageSums is the content of a database at one TXID in 8 bytes a page, as it is
// rebuilt from a replica when the state directory was lost.
type PageSums struct {
	PageSize  int
	Sums      []ltx.Checksum // ltx.ChecksumPage of page i+1; 0 for the lock page
	Timestamp time.Time      // of the last object, so that time goes on from there
	Lineage   string         // of the last object, "" when it carries none
	Taken     moment.Stamp   // of the last object
}
