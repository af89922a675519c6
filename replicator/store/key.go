package store

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/superfly/ltx"
)

// SnapshotLevel is the level that holds snapshots taken on their own. A file
// whose min TXID is 1 is a snapshot at any level.
const SnapshotLevel = 9

// sumsPrefix begins the keys of lists of page checksums. They are uploaded as bulk: that of a
// large database has many megabytes.
const sumsPrefix = "sqlwatch/sums/"

// dayLevel is the first level of files that hold the changes of a day or more.
const dayLevel = 4

// ErrKey is returned by ParseLTXKey for anything that is not exactly the key
// of an LTX file.
var ErrKey = errors.New("not the key of an ltx file")

const ltxKeyLen = len("0000/0000000000000001-0000000000000001.ltx")

// LTXKey returns the key of the LTX file that holds the TXIDs min to max at a level.
// Within a level the order of keys is the order of min TXIDs.
func LTXKey(level int, min, max ltx.TXID) string {
	return LevelPrefix(level) + ltx.FormatFilename(min, max)
}

// ParseLTXKey is the inverse of LTXKey and accepts nothing else: a listing is
// untrusted, and a key that passes here contains no path but its own.
func ParseLTXKey(key string) (level int, min, max ltx.TXID, err error) {
	if len(key) != ltxKeyLen || key[4] != '/' {
		return 0, 0, 0, fmt.Errorf("%w: %.80q", ErrKey, key)
	}
	n, err := strconv.ParseUint(key[:4], 16, 16)
	if err != nil || n > SnapshotLevel {
		return 0, 0, 0, fmt.Errorf("%w: level of %q", ErrKey, key)
	}
	min, max, err = ltx.ParseFilename(key[5:])
	if err != nil {
		return 0, 0, 0, fmt.Errorf("%w: %q", ErrKey, key)
	}
	if min == 0 || min > max {
		return 0, 0, 0, fmt.Errorf("%w: txids of %q", ErrKey, key)
	}
	return int(n), min, max, nil
}

// LevelPrefix is what every key of a level begins with.
func LevelPrefix(level int) string { return fmt.Sprintf("%04x/", level) }

// SumsKey returns the key of the list of a file's page checksums, and whether there is one: for
// snapshots, and for files with the changes of a day or more. Smaller files are read instead.
func SumsKey(level int, min, max ltx.TXID) (key string, kept bool) {
	if min > 1 && level < dayLevel {
		return "", false
	}
	return sumsPrefix + strings.TrimSuffix(LTXKey(level, min, max), ".ltx"), true
}

// LTXFile is one LTX file of a replica, as its key tells.
type LTXFile struct {
	Level            int
	MinTXID, MaxTXID ltx.TXID
	Object           Object
}

// Snapshot reports whether the file stands on its own.
func (f LTXFile) Snapshot() bool { return f.MinTXID == 1 }

// Time returns when the newest batch of the file was taken, if its metadata is known.
func (f LTXFile) Time() (t time.Time, known bool) { return MetadataTime(f.Object.Metadata) }

// MetadataTime returns the time in MetaTimestamp.
func MetadataTime(meta map[string]string) (time.Time, bool) {
	t, err := time.Parse(time.RFC3339Nano, meta[MetaTimestamp])
	return t.UTC(), err == nil
}
