// Package spelled finds a replica whose prefix has accents, in whichever Unicode form it was stored.
package spelled

import (
	"context"
	"fmt"
	"io"
	"iter"
	"slices"
	"sync"

	"golang.org/x/text/unicode/norm"

	"github.com/sqlwatch/sqlwatch/replicator/store"
)

// Store is a replica below a prefix of which several Unicode forms (NFC, NFD) look the same but
// are different keys in a bucket. If nothing is stored below the prefix as given, but something
// below another form of it, Store uses that form.
type Store struct {
	stores []store.Store // by form; the prefix as given comes first

	mu     sync.Mutex // guards what follows; held across the requests of find
	chosen store.Store
}

// Open opens the store of a prefix. If the prefix has several forms, the first request finds
// out which one to use.
func Open[T store.Store](prefix string, open func(prefix string) (T, error)) (store.Store, error) {
	var s Store
	var prefixes []string
	for _, form := range []string{prefix, norm.NFC.String(prefix), norm.NFD.String(prefix)} {
		if slices.Contains(prefixes, form) {
			continue
		}
		st, err := open(form)
		if err != nil {
			return nil, err
		}
		prefixes, s.stores = append(prefixes, form), append(s.stores, st)
	}
	if len(s.stores) == 1 {
		return s.stores[0], nil
	}
	return &s, nil
}

// find returns the store to use. While all are empty, only a write makes the choice final.
func (s *Store) find(ctx context.Context, writes bool) (store.Store, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.chosen != nil {
		return s.chosen, nil
	}
	for _, st := range s.stores {
		for _, err := range st.List(ctx, "", "") {
			if err != nil {
				return nil, fmt.Errorf("find the replica's spelling: %w", err)
			}
			s.chosen = st
			return st, nil
		}
	}
	if writes {
		s.chosen = s.stores[0]
	}
	return s.stores[0], nil
}

// Unwrap returns the chosen store, or the one of the prefix as given while none is chosen.
func (s *Store) Unwrap() store.Store {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.chosen != nil {
		return s.chosen
	}
	return s.stores[0]
}

// Put implements store.Store.
func (s *Store) Put(ctx context.Context, key string, body store.Body, opts store.PutOptions) (store.Object, error) {
	st, err := s.find(ctx, true)
	if err != nil {
		return store.Object{}, err
	}
	return st.Put(ctx, key, body, opts)
}

// Get implements store.Store.
func (s *Store) Get(ctx context.Context, key string, offset, length int64) (io.ReadCloser, store.Object, error) {
	st, err := s.find(ctx, false)
	if err != nil {
		return nil, store.Object{}, err
	}
	return st.Get(ctx, key, offset, length)
}

// List implements store.Store.
func (s *Store) List(ctx context.Context, prefix, after string) iter.Seq2[store.Object, error] {
	return func(yield func(store.Object, error) bool) {
		st, err := s.find(ctx, false)
		if err != nil {
			yield(store.Object{}, err)
			return
		}
		st.List(ctx, prefix, after)(yield)
	}
}

// Delete implements store.Store.
func (s *Store) Delete(ctx context.Context, keys ...string) error {
	st, err := s.find(ctx, false)
	if err != nil {
		return err
	}
	return st.Delete(ctx, keys...)
}
