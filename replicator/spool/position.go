package spool

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"

	"github.com/superfly/ltx"

	"github.com/sqlwatch/sqlwatch/internal/dbfile"
	"github.com/sqlwatch/sqlwatch/internal/durable"
	"github.com/sqlwatch/sqlwatch/replicator/moment"
)

// Position is where a capture stands, with everything that is needed to prove later that nothing was missed since.
// Where the proof fails, commits count as missed, and a comparison captures the difference.
//
// The proof: the same file (device, inode, page size); then either the same WAL generation, whose running checksum
// continues from Frames.Checksum, or a newer one that is read from its first frame. As many commit frames must be
// copied as Change has risen, which detects generations that came and went while we held the WAL. While we did not
// hold it, it does not: if all users of the wal-index were killed, it is recreated, in place, and counts from 0. See
// Continues.
type Position struct {
	TXID      ltx.TXID        `json:"txid"` // of the last segment
	Lineage   string          `json:"lineage"`
	Timestamp int64           `json:"timestamp"` // of the last segment, in milliseconds
	PageSize  int             `json:"page_size"`
	Pages     uint32          `json:"pages"`
	Checksum  ltx.Checksum    `json:"checksum"` // of the database: the page-checksum map must agree
	Device    uint64          `json:"device"`
	Inode     uint64          `json:"inode"`
	Change    uint32          `json:"change"` // the wal-index's commit counter
	Salt1     uint32          `json:"salt1"`
	Salt2     uint32          `json:"salt2"`
	Frames    dbfile.Position `json:"frames"`

	Taken *moment.Stamp `json:"taken,omitempty"` // of the last segment; never changed in place, nil where not known
	Mark  moment.Mark   `json:"mark"`            // start of the time span that the next segment covers

	Main MainFile `json:"main"` // the main file when all of Frames was read and it had nothing newer; zero: not known

	// Doubt is why continuity from here is not proven and a comparison is due; "" if none is. It is stored because
	// after a crash its cause may no longer be visible.
	Doubt string `json:"doubt,omitempty"`
}

// Stamp returns when the last segment was taken.
func (p Position) Stamp() moment.Stamp { return moment.Known(p.Taken) }

// InGeneration reports whether x is of the WAL generation that p stands in.
func (p Position) InGeneration(x dbfile.WALIndex) bool {
	return p.Salt1 == x.Salt1 && p.Salt2 == x.Salt2
}

// Current reports whether nothing was committed since p. Each reset raises Salt1 by one; a Salt1 that has jumped was
// drawn for a new WAL, which somebody wrote to.
func (p Position) Current(x dbfile.WALIndex) bool {
	if x.MaxFrame == 0 {
		return p.Change == x.Change && x.Salt1-p.Salt1 < 1<<16
	}
	return p.Change == x.Change && p.InGeneration(x) && p.Frames == x.Position()
}

// MainFile identifies a state of the main file: where it differs, the file was written to. Boot is part of it because
// a power cut may keep what was written and lose the file time that went with it.
type MainFile struct {
	Modified int64  `json:"modified,omitempty"` // in Unix nanoseconds
	Changed  int64  `json:"changed,omitempty"`  // likewise, by any means; 0: not known
	Size     int64  `json:"size,omitempty"`     // in bytes
	Boot     string `json:"boot,omitempty"`
}

// Same reports whether the file is now what it was when m was taken.
func (m MainFile) Same(now MainFile) bool {
	if m.Changed == 0 {
		now.Changed = 0
	}
	return m != MainFile{} && m == now
}

// AtRest returns p as the position of a database that consists of its main file alone: there is no WAL, or an empty
// one, and the next process to open it rebuilds the wal-index.
func (p Position) AtRest(main MainFile) Position {
	p.Change, p.Salt1, p.Salt2, p.Frames, p.Main = 0, 0, 0, dbfile.Position{}, main
	return p
}

// Continues reports whether x can be compared with p although we did not hold the WAL in between. In p's own
// generation the running checksum shows whether it continues. A newer generation begins with a reset, and before a
// reset every frame is backfilled: if the main file was not written to since everything up to p was read, there were
// no further frames, and everything committed since is in x's generation. (Salts of 0 are no generation: the
// wal-index of an empty WAL.)
func (p Position) Continues(x dbfile.WALIndex, now MainFile) bool {
	return p.InGeneration(x) && p.Salt2 != 0 || p.Main.Same(now)
}

// Moved returns p at the head that x describes.
func (p Position) Moved(x dbfile.WALIndex) Position {
	p.Change, p.Salt1, p.Salt2, p.Frames, p.Pages = x.Change, x.Salt1, x.Salt2, x.Position(), x.Pages
	return p
}

// version is the version of the files in the state directory. Files of
// another version are not touched: see ErrVersion.
const version = 1

// Record is what is written about one segment, and what remains of the last one
// when the spool is empty. In the file a line of JSON is followed by a line with
// its SHA-256, so that one flipped bit is not taken for a position.
type Record struct {
	Version  int      `json:"version"`
	Segment  Segment  `json:"segment"`
	Position Position `json:"position"`

	// Kept is the first segment that waits to be shipped although Position was reached without
	// it: see Skip. 0: none.
	Kept ltx.TXID `json:"kept,omitempty"`
}

var (
	ErrCorrupt = errors.New("corrupt record")
	// ErrVersion says that a state directory is of another version of sqlwatch.
	ErrVersion = errors.New("written by another version of sqlwatch: use that version, or move the state directory " +
		"away, which costs one comparison of the database with its replica")
)

func writeRecord(path string, r Record) error {
	r.Version = version
	line, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("encode %s: %w", path, err)
	}
	sum := sha256.Sum256(line)
	return durable.WriteFile(path, fmt.Appendf(line, "\n%x\n", sum), 0o600)
}

// readRecord reads a record. Errors: fs.ErrNotExist, ErrCorrupt, ErrVersion.
func readRecord(path string) (Record, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return Record{}, err
	}
	line, rest, _ := bytes.Cut(b, []byte("\n"))
	sum := sha256.Sum256(line)
	if string(rest) != hex.EncodeToString(sum[:])+"\n" {
		return Record{}, fmt.Errorf("%s: %w", path, ErrCorrupt)
	}
	var r Record
	if err := json.Unmarshal(line, &r); err != nil {
		return Record{}, fmt.Errorf("%s: %w: %w", path, ErrCorrupt, err)
	}
	if r.Version != version {
		return Record{}, fmt.Errorf("%s is of version %d: %w", path, r.Version, ErrVersion)
	}
	return r, nil
}
