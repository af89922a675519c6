package upload

import (
	"context"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/sqlwatch/sqlwatch/replicator/merge"
	"github.com/sqlwatch/sqlwatch/replicator/moment"
	"github.com/sqlwatch/sqlwatch/replicator/spool"
	"github.com/sqlwatch/sqlwatch/replicator/store"
)

// Bounds of one upload of merged segments.
const (
	maxBatchSegments = 128
	maxBatchBytes    = 64 << 20
)

// Batch is the segments that are uploaded as one object, in order.
type Batch []spool.Segment

// NextBatch returns the first of the segments that fit in one object: contiguous, of one page
// size, within the bounds. A snapshot is a batch of its own. segments must not be empty.
func NextBatch(segments []spool.Segment) Batch {
	n, bytes := 1, segments[0].Size
	if segments[0].Snapshot() {
		return segments[:1]
	}
	for n < len(segments) && n < maxBatchSegments && !segments[n].Snapshot() &&
		segments[n].MinTXID == segments[n-1].MaxTXID+1 && segments[n].PageSize == segments[0].PageSize &&
		bytes+segments[n].Size <= maxBatchBytes {
		bytes += segments[n].Size
		n++
	}
	return segments[:n]
}

// File returns the object's level and TXIDs.
func (b Batch) File() store.LTXFile {
	f := store.LTXFile{MinTXID: b[0].MinTXID, MaxTXID: b[len(b)-1].MaxTXID}
	if b[0].Snapshot() {
		f.Level = store.SnapshotLevel
	}
	return f
}

// Body returns the object's bytes and the file that holds them until discard is called.
func (b Batch) Body(ctx context.Context, dir, name string) (
	body store.Body, path string, discard func() error, err error,
) {
	first := b[0]
	if len(b) == 1 {
		return store.Body{Size: first.Size, SHA256: first.SHA256, Open: func() (io.ReadCloser, error) {
			return os.Open(first.Path)
		}}, first.Path, func() error { return nil }, nil
	}
	inputs := make([]io.Reader, len(b))
	for i, s := range b {
		f, err := os.Open(s.Path)
		if err != nil {
			return body, "", nil, fmt.Errorf("merge segments: %w", err)
		}
		defer f.Close()
		inputs[i] = f
	}
	m, err := merge.Files(ctx, dir, name, inputs)
	if err != nil {
		return body, "", nil, err
	}
	return m.Body, m.Path(), m.Discard, nil
}

// Notes returns the object's metadata, which describes the state after it.
func (b Batch) Notes(sha256 string) map[string]string {
	last := b[len(b)-1]
	m := map[string]string{
		store.MetaTimestamp: last.Timestamp.UTC().Format(time.RFC3339Nano),
		store.MetaChecksum:  last.Checksum.String(),
		store.MetaLineage:   last.Lineage,
		store.MetaSHA256:    sha256,
	}
	moment.Merged(b[0].Stamp(), last.Stamp()).Put(m)
	for _, segment := range b {
		if segment.Reason != "" {
			m[store.MetaReason] = segment.Reason
		}
	}
	return m
}
