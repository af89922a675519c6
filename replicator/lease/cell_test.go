package lease

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"math/rand/v2"
	"sync"

	"github.com/sqlwatch/sqlwatch/replicator/store"
)

// cell is a store of one object with conditional writes, whose replies get lost.
type cell struct {
	rnd      *rand.Rand
	data     []byte
	version  int
	ignores  string                   // "create", "match" or "all": these conditions are ignored
	refuses  string                   // these conditions are refused with ErrUnsupported, named as in ignores
	form     func(etag string) string // how the reply to a Put spells the ETag; nil: as in other replies
	faults   bool
	delays   bool     // unconditional writes may arrive any time later
	under    [][]byte // the writes that have not arrived yet
	together int      // that many creations succeed, as if their conditions were checked at the same moment
	between  func()   // called before each request is served; may be nil

	mu sync.Mutex // guards data and version, because a lease renews itself while During runs
}

func (c *cell) Put(_ context.Context, _ string, body store.Body, o store.PutOptions) (store.Object, error) {
	if c.between != nil {
		c.between()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	fault := 0
	if c.faults {
		fault = c.rnd.IntN(6)
	}
	if fault == 1 {
		return store.Object{}, store.ErrUnavailable
	}
	if len(c.under) > 0 && c.rnd.IntN(4) == 0 {
		c.data, c.under, c.version = c.under[0], c.under[1:], c.version+1
	}
	covers := func(which, condition string) bool { return which == "all" || which == condition }
	if o.Create && covers(c.refuses, "create") || o.Match != "" && covers(c.refuses, "match") {
		return store.Object{}, errors.ErrUnsupported
	}
	passes := o.Create && c.together > 0
	if passes {
		c.together--
	}
	if o.Create && !passes && !covers(c.ignores, "create") && c.version > 0 || o.Match != "" && !covers(c.ignores,
		"match") &&
		o.Match != fmt.Sprint(c.version) {
		return store.Object{}, store.ErrExists
	}
	r, err := body.Open()
	if err != nil {
		return store.Object{}, err
	}
	data, err := io.ReadAll(r)
	if err != nil {
		return store.Object{}, err
	}
	if blind := o.Match == "" && !o.Create || covers(c.ignores, "match"); c.delays && blind && c.rnd.IntN(12) == 0 {
		c.under = append(c.under, data) // its sender gives up, but it may still arrive
		return store.Object{}, store.ErrUnavailable
	}
	c.data = data
	c.version++
	if fault == 2 {
		return store.Object{}, store.ErrUnavailable // done, but the reply is lost
	}
	etag := fmt.Sprint(c.version)
	if c.form != nil {
		etag = c.form(etag)
	}
	return store.Object{ETag: etag}, nil
}

func (c *cell) Get(context.Context, string, int64, int64) (io.ReadCloser, store.Object, error) {
	if c.between != nil {
		c.between()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.faults && c.rnd.IntN(6) == 1 {
		return nil, store.Object{}, store.ErrUnavailable
	}
	if c.version == 0 {
		return nil, store.Object{}, store.ErrNotFound
	}
	return io.NopCloser(bytes.NewReader(c.data)), store.Object{ETag: fmt.Sprint(c.version)}, nil
}

func (c *cell) List(context.Context, string, string) iter.Seq2[store.Object, error] {
	return func(func(store.Object, error) bool) {}
}
func (c *cell) Delete(context.Context, ...string) error { return nil }

// nonce returns the nonce of the stored note.
func (c *cell) nonce() string {
	note, _, _, _ := Read(context.Background(), &cell{data: c.data, version: c.version})
	return note.Nonce
}
