package doctor

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"strings"
	"time"

	"github.com/sqlwatch/sqlwatch/replicator/store"
)

// probePrefix is where probes are written; programs that read LTX files look elsewhere.
const probePrefix = "sqlwatch/doctor-"

// Probe makes a real round trip: it lists, writes an object of a few bytes, writes it again on
// the condition that it does not exist, reads it back, lists it, and deletes it. It adds the
// result to what known says of the replica.
func Probe(ctx context.Context, st store.Store, known Replica) Replica {
	start := time.Now()
	p := &probe{store: st, key: probePrefix + rand.Text(), content: []byte(rand.Text()), found: known}
	p.run(ctx)
	p.found.Duration = time.Since(start)
	return p.found
}

// WentWell reports whether every step of the round trip succeeded.
func (r Replica) WentWell() bool {
	return r.Duration > 0 && r.ListErr == nil && r.PutErr == nil && r.GetErr == nil && r.DeleteErr == nil && !r.Corrupt &&
		!r.NotListed
}

type probe struct {
	store   store.Store
	key     string
	content []byte
	found   Replica
}

func (p *probe) run(ctx context.Context) {
	p.found.Foreign, p.found.ListErr = p.foreign(ctx)
	if p.found.ListErr != nil && fatal(p.found.ListErr) {
		return
	}
	if p.found.PutErr = p.put(ctx); p.found.PutErr != nil {
		return
	}
	p.get(ctx)
	if p.found.GetErr == nil {
		p.quirks(ctx)
	}
	if p.found.ListErr == nil {
		_, listed, err := p.first(ctx, p.key)
		p.found.ListErr, p.found.NotListed = err, err == nil && !listed
	}
	if err := p.store.Delete(ctx, p.key); err != nil {
		p.found.DeleteErr, p.found.Odd.ProbeKey = err, p.key
	} else if _, _, err := p.store.Get(ctx, p.key, 0, 0); err == nil {
		p.found.Odd.NotDeleted = true
	}
}

// foreign looks for files of another program. LTX files, and generations of Litestream 0.3,
// sort before our own notes.
func (p *probe) foreign(ctx context.Context) (bool, error) {
	key, any, err := p.first(ctx, "")
	if err != nil || !any {
		return false, err
	}
	if !strings.HasPrefix(key, "0") && !strings.HasPrefix(key, "generations/") {
		return false, nil
	}
	_, ours, err := p.first(ctx, "sqlwatch/")
	return err == nil && !ours, err
}

func (p *probe) first(ctx context.Context, prefix string) (string, bool, error) {
	for object, err := range p.store.List(ctx, prefix, "") {
		return object.Key, err == nil, err
	}
	return "", false, nil
}

func (p *probe) body() store.Body {
	sum := sha256.Sum256(p.content)
	return store.Body{Size: int64(len(p.content)), SHA256: hex.EncodeToString(sum[:]),
		Open: func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(p.content)), nil }}
}

// put writes the probe and finds out whether the store honours conditions.
func (p *probe) put(ctx context.Context) error {
	_, err := p.store.Put(ctx, p.key, p.body(), store.PutOptions{Create: true, Metadata: p.note()})
	if errors.Is(err, errors.ErrUnsupported) {
		p.found.Conditional = Refused
		_, err = p.store.Put(ctx, p.key, p.body(), store.PutOptions{Metadata: p.note()})
		return err
	}
	if err != nil {
		return err
	}
	switch _, err := p.store.Put(ctx, p.key, p.body(), store.PutOptions{Create: true, Metadata: p.note()}); {
	case err == nil:
		p.found.Conditional = Ignored
	case errors.Is(err, store.ErrExists):
		p.found.Conditional = Honoured
		if p.found.Kind == "s3" { // a directory supports both, and the attempt would leave a lock file
			p.found.Matching = p.match(ctx)
		}
	case errors.Is(err, errors.ErrUnsupported):
		p.found.Conditional = Refused
	}
	return nil
}

// match finds out whether the store refuses to replace the probe under a wrong ETag.
func (p *probe) match(ctx context.Context) Support {
	const wrong = `"00000000000000000000000000000000"`
	switch _, err := p.store.Put(ctx, p.key, p.body(), store.PutOptions{Match: wrong, Metadata: p.note()}); {
	case err == nil:
		return Ignored
	case errors.Is(err, store.ErrExists):
		return Honoured
	case errors.Is(err, errors.ErrUnsupported):
		return Refused
	}
	return Unknown
}

// get reads the probe back. The store has just stamped it with its own clock, to the second,
// which gives the difference to ours.
func (p *probe) get(ctx context.Context) {
	reader, object, err := p.store.Get(ctx, p.key, 0, -1)
	if err != nil {
		p.found.GetErr = err
		return
	}
	defer reader.Close()
	got, err := io.ReadAll(io.LimitReader(reader, 1<<10))
	if err != nil {
		p.found.GetErr = err
		return
	}
	p.found.Corrupt = !bytes.Equal(got, p.content)
	if !object.Modified.IsZero() {
		p.found.Skew, p.found.SkewKnown = time.Until(object.Modified), true
	}
}
