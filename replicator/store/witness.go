package store

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
)

const (
	witnessBlock  = 4096 // bytes compared at each place
	witnessPlaces = 4    // random places, beside the beginning and the end
)

// Witness remembers the size, the beginning, the end (the trailer of an LTX file) and some
// random places of a stream that is sent, so that the stored object can be compared with it
// when the stream is gone. It does not prove every byte: the upload's checksums and restore
// drills do.
type Witness struct {
	size   int64
	places []place
	block  []byte // the one being filled
	seen   int64  // full blocks so far
}

type place struct {
	offset int64
	data   []byte
}

// Witnessed returns body and a Witness of the bytes that are read from it.
func Witnessed(body Body) (Body, *Witness) {
	w := &Witness{}
	open := body.Open
	body.Open = func() (io.ReadCloser, error) {
		r, err := open()
		if err != nil {
			return nil, err
		}
		*w = Witness{}
		return struct {
			io.Reader
			io.Closer
		}{io.TeeReader(r, w), r}, nil
	}
	return body, w
}

// Write implements io.Writer; it never fails.
func (w *Witness) Write(p []byte) (int, error) {
	n := len(p)
	for len(p) > 0 {
		if w.block == nil {
			w.block = make([]byte, 0, witnessBlock)
		}
		take := min(witnessBlock-len(w.block), len(p))
		w.block = append(w.block, p[:take]...)
		p = p[take:]
		w.size += int64(take)
		if len(w.block) == witnessBlock {
			w.keep()
		}
	}
	return n, nil
}

// keep decides whether to remember a full block (reservoir sampling: each has the same chance,
// however many follow). The latest block is always kept, as the end.
func (w *Witness) keep() {
	full := place{w.size - int64(len(w.block)), w.block}
	w.block = nil
	switch w.seen++; {
	case len(w.places) < witnessPlaces+2:
		w.places = append(w.places, full)
		return
	}
	last := len(w.places) - 1
	if i := rand.Int64N(w.seen - 2); i < witnessPlaces {
		w.places[i+1] = w.places[last]
	}
	w.places[last] = full
}

// Confirm reads the remembered places of the object under key and compares them. It returns
// ErrCorrupt if they differ, or the error of reading them.
func (w *Witness) Confirm(ctx context.Context, st Store, key string) error {
	places := w.places
	if len(w.block) > 0 {
		places = append(places, place{w.size - int64(len(w.block)), w.block})
	}
	for _, p := range places {
		if err := w.compare(ctx, st, key, p); err != nil {
			return fmt.Errorf("read %s back: %w", key, err)
		}
	}
	return nil
}

func (w *Witness) compare(ctx context.Context, st Store, key string, p place) error {
	body, object, err := st.Get(ctx, key, p.offset, int64(len(p.data)))
	if err != nil {
		return err
	}
	defer body.Close()
	if object.Size != w.size {
		return fmt.Errorf("%w: it has %d bytes, %d were sent", ErrCorrupt, object.Size, w.size)
	}
	got, err := io.ReadAll(io.LimitReader(body, int64(len(p.data))+1))
	if err != nil {
		return err
	}
	if !bytes.Equal(got, p.data) {
		return fmt.Errorf("%w: bytes %d to %d are not those that were sent", ErrCorrupt, p.offset,
			p.offset+int64(len(p.data)))
	}
	return nil
}
