package store

import (
	"time"

	"github.com/superfly/ltx"

	"github.com/sqlwatch/sqlwatch/replicator/moment"
)

// PageSums are the page checksums of a database at one TXID, as they are rebuilt from a
// replica after the state directory was lost.
type PageSums struct {
	PageSize  int
	Sums      []ltx.Checksum // ltx.ChecksumPage of page i+1; 0 for the lock page
	Timestamp time.Time      // of the last object, so that later timestamps rise from there
	Lineage   string         // of the last object, "" when it carries none
	Taken     moment.Stamp   // of the last object
}
