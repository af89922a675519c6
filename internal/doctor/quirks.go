package doctor

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"io"
	mathrand "math/rand/v2"
	"time"

	"github.com/sqlwatch/sqlwatch/replicator/store"
	"github.com/sqlwatch/sqlwatch/replicator/store/s3"
)

// Quirks are what a store, or something before it, does otherwise than it should.
type Quirks struct {
	MetadataLost bool  // what was noted with an object did not come back
	RangeErr     error // a part of an object was not answered as such
	HeadRefused  bool
	LargeErr     error  // of an upload in parts
	Versioned    bool   // deleted objects stay as versions
	NotDeleted   bool   // what was said to be deleted is there
	ProbeKey     string // left behind where it could not be deleted
}

// probeNote is what the probe notes with its object.
const probeNote = "a note of the doctor"

func (p *probe) note() map[string]string { return map[string]string{store.MetaReason: probeNote} }

// quirks looks at the small things that everything else depends on.
func (p *probe) quirks(ctx context.Context) {
	odd := &p.found.Odd
	if _, object, err := p.store.Get(ctx, p.key, 0, 0); err == nil {
		odd.MetadataLost = object.Metadata[store.MetaReason] != probeNote
	}
	odd.RangeErr = p.part(ctx)
	if st, ok := store.As[*s3.Store](p.store); ok {
		odd.HeadRefused = st.HeadRefused()
		odd.Versioned, _ = st.Versioned(ctx)
	}
}

// part reads some bytes of the middle.
func (p *probe) part(ctx context.Context) error {
	const from, n = 3, 5
	reader, _, err := p.store.Get(ctx, p.key, from, n)
	if err != nil {
		return err
	}
	defer reader.Close()
	got, err := io.ReadAll(io.LimitReader(reader, 1<<10))
	if err == nil && !bytes.Equal(got, p.content[from:from+n]) {
		err = fmt.Errorf("%d bytes came back, not the %d that were asked for", len(got), n)
	}
	return err
}

// ProbeLarge uploads an object as a snapshot is: as a stream, in two parts. It is for
// stores that a small round trip went well to, and adds to what that found.
func ProbeLarge(ctx context.Context, st store.Store, known Replica) Replica {
	if known.Kind != "s3" || !known.WentWell() || known.Odd.RangeErr != nil { // what was stored is read back in parts
		return known
	}
	start := time.Now()
	key := probePrefix + "large-" + rand.Text()
	noise := mathrand.NewChaCha8([32]byte{1})
	body := store.Body{Size: -1, Open: func() (io.ReadCloser, error) {
		return io.NopCloser(io.LimitReader(noise, s3.DefaultPartSize+1<<10)), nil
	}}
	_, known.Odd.LargeErr = st.Put(ctx, key, body, store.PutOptions{})
	if err := st.Delete(ctx, key); known.Odd.LargeErr == nil {
		known.Odd.LargeErr = err
	}
	known.Duration += time.Since(start)
	return known
}

// odd says what the quirks mean.
func (r Replica) odd() []Finding {
	var found []Finding
	odd := r.Odd
	if odd.MetadataLost {
		found = append(found, one("replica-metadata", Warning,
			r.Place+": user metadata of an object (x-amz-meta-*) does not come back",
			"times, checksums and lineage of files are lost: after each start the replica starts over with a snapshot, and "+
				"corruption is noticed later",
			"have the gateway in front of the store pass x-amz-meta-* headers on, in both directions")...)
	}
	if odd.RangeErr != nil {
		what, cure := r.explain(odd.RangeErr)
		found = append(found, one("replica-range", Critical, what+" (a part of an object was asked for)",
			"restores read parts of files, and resume interrupted downloads", cure)...)
	}
	if odd.LargeErr != nil {
		what, cure := r.explain(odd.LargeErr)
		found = append(found, one("replica-large", Critical, what+fmt.Sprintf(" (an upload in parts of %d MiB)",
			s3.DefaultPartSize>>20), "small files can be stored, but no snapshot of a larger database", cure)...)
	}
	if odd.NotDeleted {
		found = append(found, one("replica-not-deleted", Warning,
			r.Place+": the store confirmed a delete, but the object is still there",
			"files that retention deletes stay, and you pay for them",
			"look for an object lock, a legal hold or a cache in front of the store")...)
	}
	if odd.Versioned {
		found = append(found, one("replica-versions", Warning,
			r.Place+": the bucket keeps every version of deleted or replaced objects",
			"retention frees nothing: you pay for everything that was ever stored, and stored_bytes does not show it",
			"have the bucket delete old versions: Backblaze B2: Lifecycle Settings, Keep only the last version; Amazon and "+
				"others: a rule NoncurrentVersionExpiration of a few days with ExpiredObjectDeleteMarker, and no rule that "+
				"expires current versions")...)
	}
	if odd.HeadRefused {
		found = append(found, one("replica-head", Note, r.Place+": HEAD is refused",
			"no harm: sqlwatch reads one byte instead",
			"have the gateway in front of the store pass HEAD on")...)
	}
	return found
}
