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

// Quirks are ways in which a store, or a proxy in front of it, deviates from what it should do.
type Quirks struct {
	MetadataLost bool  // metadata stored with an object was not returned
	RangeErr     error // a request for part of an object was not answered with that part
	HeadRefused  bool
	LargeErr     error  // the error of an upload in parts
	Versioned    bool   // deleted objects are kept as versions
	NotDeleted   bool   // an object is still there after a successful delete
	ProbeKey     string // the probe, if it could not be deleted
}

// probeNote is the metadata that the probe stores with its object.
const probeNote = "a note of the doctor"

func (p *probe) note() map[string]string { return map[string]string{store.MetaReason: probeNote} }

// quirks checks the small things that everything else depends on.
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

// part reads some bytes from the middle.
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

// ProbeLarge uploads an object in the way of a snapshot: as a stream, in two parts. Call it for
// stores whose small round trip went well; it adds its result to known.
func ProbeLarge(ctx context.Context, st store.Store, known Replica) Replica {
	if known.Kind != "s3" || !known.WentWell() || known.Odd.RangeErr != nil { // it is read back in parts
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
