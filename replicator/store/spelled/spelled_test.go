package spelled_test

import (
	"context"
	"errors"
	"io"
	"testing"

	"golang.org/x/text/unicode/norm"

	"github.com/sqlwatch/sqlwatch/replicator/store"
	"github.com/sqlwatch/sqlwatch/replicator/store/spelled"
	"github.com/sqlwatch/sqlwatch/replicator/store/storetest"
)

// bucket is a store for each spelling of a prefix, as in S3.
type bucket map[string]*storetest.Memory

func (b bucket) open(prefix string) (*storetest.Memory, error) {
	if b[prefix] == nil {
		b[prefix] = storetest.NewMemory()
	}
	return b[prefix], nil
}

func (b bucket) at(t *testing.T, prefix string) store.Store {
	t.Helper()
	st, err := spelled.Open(prefix, b.open)
	if err != nil {
		t.Fatal(err)
	}
	return st
}

const key = "0000/0000000000000001-0000000000000001.ltx"

func read(t *testing.T, st store.Store, key string) string {
	t.Helper()
	body, _, err := st.Get(t.Context(), key, 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	defer body.Close()
	data, err := io.ReadAll(body)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// TestPrefix_D23_spelled: two hosts spell a prefix in different normalization forms (NFC, NFD).
// Each finds and continues what the other wrote. An empty replica uses the form that is given, and
// so does a host if both forms exist.
func TestPrefix_D23_spelled(t *testing.T) {
	t.Parallel()
	composed := norm.NFC.String("Größe/é")
	apart := norm.NFD.String(composed)
	if composed == apart {
		t.Fatal("both forms are equal: the test would prove nothing")
	}
	for name, prefixes := range map[string][2]string{"composed first": {composed, apart}, "last": {apart, composed}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := bucket{}
			put := func(st store.Store, key, text string) {
				t.Helper()
				if _, err := st.Put(t.Context(), key, storetest.Bytes([]byte(text)), store.PutOptions{}); err != nil {
					t.Fatal(err)
				}
			}
			early := b.at(t, prefixes[1]) // opened before anything is stored
			if _, _, err := early.Get(t.Context(), key, 0, 0); !errors.Is(err, store.ErrNotFound) {
				t.Fatal(err)
			}
			put(b.at(t, prefixes[0]), key, "one")
			for _, st := range []store.Store{early, b.at(t, prefixes[1])} {
				if got := read(t, st, key); got != "one" {
					t.Errorf("the other host reads %q", got)
				}
				put(st, "0000/more", "two")
			}
			if n := len(b[prefixes[0]].Keys()); n != 2 || len(b[prefixes[1]].Keys()) > 0 {
				t.Errorf("%d of 2 objects are below the first prefix", n)
			}
			put(b[prefixes[1]], key, "both are there")
			if got := read(t, b.at(t, prefixes[1]), key); got != "both are there" {
				t.Errorf("with both forms: %q", got)
			}
		})
	}
	if _, alone := bucket.at(bucket{}, t, "plain").(*storetest.Memory); !alone {
		t.Error("a prefix with only one form is wrapped")
	}
}

// TestPrefix_D23_asked: if the form cannot be found out, Put returns an error and does not begin a
// new replica.
func TestPrefix_D23_asked(t *testing.T) {
	t.Parallel()
	b := bucket{}
	away := true
	st, err := spelled.Open("é", func(prefix string) (store.Store, error) {
		inner, err := b.open(prefix)
		return storetest.NewFaulty(inner, func(op, _ string, _ int) storetest.Fault {
			if away && op == "list" {
				return storetest.NotStored
			}
			return storetest.None
		}), err
	})
	if err != nil {
		t.Fatal(err)
	}
	put := func() error {
		_, err := st.Put(context.Background(), key, storetest.Bytes([]byte("x")), store.PutOptions{})
		return err
	}
	if err := put(); !errors.Is(err, store.ErrUnavailable) {
		t.Errorf("put while the form is unknown: %v, want ErrUnavailable", err)
	}
	away = false
	if err := put(); err != nil {
		t.Error(err)
	}
}

func TestStore(t *testing.T) {
	t.Parallel()
	storetest.Run(t, func(t *testing.T) store.Store { return bucket.at(bucket{}, t, "é") })
}
