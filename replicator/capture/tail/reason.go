package tail

// Reason says why a segment does not come from the WAL alone.
type Reason string

// The reasons for which continuity was not proven and the database was compared
// with its page checksums. ReasonFirst is no discontinuity and is not counted.
const (
	ReasonFirst    Reason = "first"      // nothing was ever captured: the whole database
	ReasonState    Reason = "state"      // the state directory was lost or is corrupt
	ReasonReplaced Reason = "replaced"   // another file is at the path
	ReasonPageSize Reason = "page_size"  // the whole database again: pages of two sizes cannot be combined
	ReasonWALReset Reason = "wal_reset"  // the WAL was reset before all of it was captured
	ReasonWALIndex Reason = "wal_index"  // the commit counter went back: the wal-index was rebuilt, or the WAL deleted
	ReasonFrames   Reason = "frames"     // frames that should be valid are not
	ReasonGrowth   Reason = "growth"     // a page by which the database grew is not in the WAL
	ReasonSpool    Reason = "spool_full" // the spool had reached its limit and commits were not captured
)

// Reasons returns every counted reason, so that each can be exported at 0.
func Reasons() []Reason {
	return []Reason{
		ReasonState, ReasonReplaced, ReasonPageSize, ReasonWALReset, ReasonWALIndex, ReasonFrames, ReasonGrowth, ReasonSpool,
	}
}
